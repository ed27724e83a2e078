"""`zssbir prepare`: from what the user has to a prepared data set, for own data, the demo and benchmarks."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from zssbir_cli.benchmarks.fetch import fetch, usual_places
from zssbir_cli.benchmarks.layouts import recognise
from zssbir_cli.benchmarks.plan import plan_benchmark, read_published
from zssbir_cli.benchmarks.splits import DATASETS, DEFAULT_SPLIT, get_split
from zssbir_cli.demo.classes import CLASSES
from zssbir_cli.demo.pictures import Look, draw_pictures, draw_roles
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import counted, readable, suggestion
from zssbir_cli.preparation.archives import open_source
from zssbir_cli.preparation.carry import Prepared, carry_out, check_free
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.own import check_given_once, default_name, plan_own
from zssbir_cli.preparation.plan import PreparePlan
from zssbir_cli.preparation.reading import available_cores
from zssbir_cli.preparation.roles import read_unseen
from zssbir_cli.preparation.sources import Source
from zssbir_cli.progress import Progress, Say, silent
from zssbir_cli.types import Role

DEMO_UNSEEN = "13"
DEMO_VAL = 5


def prepare_own(
    paths: Sequence[Path],
    *,
    name: str | None = None,
    out: Path | None = None,
    choices: Choices,
    val: Collection[str] | None = None,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Prepare the user's own folder or archive (several are taken as one). `val`: names of the validation classes,
    in place of the number in `choices`.

    Raises:
        UsageError: bad option values or class names.
        DataError: nothing usable, a hostile archive, leaks, a full disk.
    """
    choices.check(name)
    check_given_once(paths)
    for path in paths:
        if not path.exists():
            hint = suggestion(path.name, (*DATASETS, "demo")) or "; give a folder or an archive"
            raise DataError(f"{readable(str(path))} does not exist{hint}")
    name = name or default_name(paths[0])
    sources = scan(paths, say)
    try:
        plan = _plan_own(sources, name, choices, val)
        return carry_out(plan, out or Path("data") / name, choices.build, say, progress)
    finally:
        for source in sources:
            source.close()


def _plan_own(
    sources: Sequence[Source], name: str, choices: Choices, val: Collection[str] | None
) -> PreparePlan:
    """The plan; when there is none, with the hint that these are a benchmark's files."""
    try:
        return plan_own(sources, name, choices, val)
    except DataError as error:
        dataset = recognise(path for s in sources for path in (f"{s.path.name}/{p}" for p in s.listing.paths))
        if dataset is None:
            raise
        places = " ".join(f"--from '{readable(str(s.path))}'" for s in sources)
        raise DataError(
            f"{error}. These look like files of {dataset}: zssbir prepare {dataset} {places}"
        ) from None


def prepare_benchmark(
    dataset: str,
    *,
    split: str | None = None,
    paths: Sequence[Path] = (),
    lists: Sequence[Path] = (),
    name: str | None = None,
    out: Path | None = None,
    choices: Choices,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Prepare a split of a published data set from folders and archives (`paths`), or from what can be
    found in the usual places or downloaded; `lists`: folders of published file lists.

    Raises:
        UsageError: no such split, an option that does not apply. DataError: files missing, leaks, bad lists.
    """
    choices.check(name)
    check_given_once(paths)
    if choices.unseen is not None:
        raise UsageError(
            f"--unseen does not apply to {dataset}: its splits are named, see `zssbir prepare --list`"
        )
    chosen = get_split(dataset, split)
    name = name or (dataset if chosen.name == DEFAULT_SPLIT[dataset] else chosen.name)
    listed = read_published(chosen, lists, choices)
    sources = scan(list(paths) or usual_places(dataset) or fetch(dataset, say), say)
    try:
        plan = plan_benchmark(chosen, sources, listed, name, choices)
        return carry_out(plan, out or Path("data") / name, choices.build, say, progress)
    finally:
        for source in sources:
            source.close()


def prepare_demo(
    out: Path | None = None,
    *,
    pictures: Path | None = None,
    name: str | None = None,
    choices: Choices,
    ambiguity: float | None = None,
    photos: int = 40,
    sketches: int = 30,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Draw the demo's pictures into the folder `pictures` (default: beside `out`) and prepare them like anyone's.

    `choices.unseen`: by default 13 classes drawn by the seed; `val_classes`: 5; `build.clean.size`: 128 pixels;
    `subset` in place of the numbers of `photos` and `sketches` per class. `ambiguity`: see `Look`.

    Raises:
        UsageError: bad option values. DataError: a folder holds something else, or cannot be written.
    """
    choices.check(name)
    name = name or "demo"
    out = out or Path("data") / name
    check_free(out)
    folder = pictures or out.with_name(f"{out.name}-pictures")
    unseen = read_unseen(choices.unseen or DEMO_UNSEEN, CLASSES)
    roles = draw_roles(choices.seed, unseen, DEMO_VAL if choices.val_classes is None else choices.val_classes)
    look = Look(
        seed=choices.seed,
        size=choices.build.clean.size or Look.size,
        ambiguity=Look.ambiguity if ambiguity is None else ambiguity,
        photos=choices.subset or photos,
        sketches=choices.subset or sketches,
    )
    draw_pictures(folder, roles, look, workers=choices.build.workers or available_cores(), progress=progress)
    test, val = ([n for n in CLASSES if roles[n] is role] for role in (Role.UNSEEN, Role.VAL))
    own = replace(choices, unseen=",".join(test), val_classes=len(val))
    return prepare_own([folder], name=name, out=out, choices=own, val=val, say=say, progress=progress)


def scan(paths: Sequence[Path], say: Say) -> list[Source]:
    """Open and list the sources."""
    sources = []
    for path in paths:
        source = open_source(path)
        source.scan()
        size = sum(source.listing.sizes) / 1e6
        say(f"{readable(str(path))}: {counted(len(source.listing.paths), 'file')}, {size:,.1f} MB")
        sources.append(source)
    return sources
