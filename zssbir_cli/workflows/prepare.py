"""`zssbir prepare`: from what the user has to a prepared data set, for own data, the demo and benchmarks."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from zssbir_cli.benchmarks.layouts import DATASETS, recognise
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import counted, readable, suggestion
from zssbir_cli.preparation.archives import open_source
from zssbir_cli.preparation.build import Prepared, carry_out
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.preparation.finished import check_options
from zssbir_cli.preparation.plan import PreparePlan, check_given_once, default_name, plan_own
from zssbir_cli.preparation.reading import available_cores
from zssbir_cli.preparation.roles import read_unseen
from zssbir_cli.preparation.sources import Source
from zssbir_cli.progress import Progress, Say, silent
from zssbir_cli.types import AnyPath, Role

DEMO_UNSEEN = "13"
DEMO_VAL = 5


def prepare(
    source: AnyPath | Sequence[AnyPath],
    *,
    out: AnyPath | None = None,
    name: str | None = None,
    unseen: str | int | float | Sequence[str] | None = None,
    val_classes: int | None = None,
    holdout: int | None = None,
    per_class: int | None = None,
    seed: int = 0,
    size: int | None = None,
    square: bool = False,
    split: str | None = None,
    files: Sequence[AnyPath] = (),
    lists: Sequence[AnyPath] = (),
    ambiguity: float | None = None,
    dedup: bool = False,
    strict: bool = False,
    allow_leak: bool = False,
    workers: int = 0,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Turn sketches and photos into a prepared data set, in `out` (default: data/NAME). An option that is left out
    has the default of `zssbir prepare`.

    Args:
        source: a folder or archive with sketch/<class>/* and photo/<class>/*, or several that are taken as one; or
            `demo`, `sketchy`, `tuberlin`, `quickdraw`.
        unseen: own data: the test classes as names, a number, a fraction, or `all` (a set for evaluation only).
        val_classes: seen classes held out for model selection. holdout: sketches of each seen class that are kept
            out of training. per_class: the most sketches and photos of a class.
        size, square: bring pictures down to this side; with `square` store the network's inputs themselves.
        split, files, lists: benchmarks: the named split, what is there already, published file lists.
        ambiguity: demo: how many other things the photos show, 0-1.
        dedup, strict, allow_leak: leave out copies; refuse what cannot be used; record leaks.
        say: is told what happens, a line at a time.

    Errors: UsageError (an option, a name), DataError (files that are missing or unusable, leaks, a full disk).

    >>> prepared = zssbir.prepare("pictures", unseen=13, val_classes=5)
    >>> prepared.root.name, len(prepared.manifest.classes)
    ('pictures', 52)
    """
    given = [source] if isinstance(source, str | Path) else list(source)
    dataset = _dataset(given, of_benchmark=bool(split or files or lists), of_demo=ambiguity is not None)
    wanted = unseen if unseen is None or isinstance(unseen, str) else _names_or_number(unseen)
    choices = Choices(
        wanted, val_classes, holdout, per_class, seed, CleanOptions(size, square=square),
        dedup=dedup, strict=strict, allow_leak=allow_leak, workers=workers,
    )  # fmt: skip
    place = None if out is None else Path(out)
    if dataset == "demo":
        return prepare_demo(
            place, name=name, choices=choices, ambiguity=ambiguity, say=say, progress=progress
        )
    if dataset:
        return prepare_benchmark(
            dataset, split=split, paths=[*map(Path, files)], lists=[*map(Path, lists)], name=name, out=place,
            choices=choices, say=say, progress=progress,
        )  # fmt: skip
    return prepare_own([*map(Path, given)], name=name, out=place, choices=choices, say=say, progress=progress)


def _dataset(given: Sequence[AnyPath], *, of_benchmark: bool, of_demo: bool) -> str:
    """The benchmark's name, `demo`, or "" for the user's own files. UsageError for options that do not apply."""
    if not given:
        raise UsageError(
            "nothing to prepare: give demo, sketchy, tuberlin, quickdraw, or a folder or archive of your own"
        )
    dataset = str(given[0]) if len(given) == 1 and given[0] in (*DATASETS, "demo") else ""
    if of_benchmark and dataset not in DATASETS:
        raise UsageError("--split, --from and --lists apply only to sketchy, tuberlin or quickdraw")
    if of_demo and dataset != "demo":
        raise UsageError("--ambiguity applies only to `zssbir prepare demo`")
    return dataset


def _names_or_number(unseen: int | float | Sequence[str]) -> str:
    """As `--unseen` writes it; a trailing comma makes one name a name."""
    return f"n={unseen}" if isinstance(unseen, int | float) else ",".join((*unseen, ""))


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

    Errors: UsageError: bad option values or class names; DataError: nothing usable, a hostile archive, leaks, a full
    disk.
    """
    choices.check(name)
    check_given_once(paths)
    for path in paths:
        if not path.exists():
            hint = suggestion(path.name, (*DATASETS, "demo")) or "; give a folder or an archive"
            raise DataError(f"{readable(str(path))} does not exist{hint}")
    name = name or default_name(paths[0])
    out = out or Path("data") / name
    check_options(out, _settled(choices))
    with scanned(paths, say, leave=out) as sources:
        plan = _plan_own(sources, name, choices, val)
        return carry_out(plan, out, choices, say, progress)


def _settled(choices: Choices) -> dict[str, object]:
    """What the manifest will say of the options, but for those that only a plan settles."""
    return {key: value for key, value in choices.record().items() if key not in ("holdout", "val_classes")}


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

    Errors: UsageError: no such split, an option that does not apply; DataError: files missing, leaks, bad lists.
    """
    from zssbir_cli.benchmarks.fetch import fetch, usual_places  # own pictures need none of these
    from zssbir_cli.benchmarks.plan import plan_benchmark, read_published
    from zssbir_cli.benchmarks.splits import DEFAULT_SPLIT, get_split

    choices.check(name)
    check_given_once(paths)
    if choices.unseen is not None:
        raise UsageError(
            f"--unseen does not apply to {dataset}: its splits are named, see `zssbir prepare --list`"
        )
    chosen = get_split(dataset, split)
    name = name or (dataset if chosen.name == DEFAULT_SPLIT[dataset] else chosen.name)
    listed = read_published(chosen, lists, choices)
    out = out or Path("data") / name
    check_options(out, _settled(choices))
    with scanned(list(paths) or usual_places(dataset) or fetch(dataset, say), say, leave=out) as sources:
        plan = plan_benchmark(chosen, sources, listed, name, choices)
        return carry_out(plan, out, choices, say, progress)


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

    `choices.unseen`: by default 13 classes drawn by the seed; `val_classes`: 5; `clean.size`: 128 pixels;
    `subset` in place of the numbers of `photos` and `sketches` per class. `ambiguity`: see `Look`.

    Errors: UsageError: bad option values; DataError: a folder holds something else, or cannot be written.
    """
    from zssbir_cli.demo.classes import CLASSES
    from zssbir_cli.demo.pictures import Look, draw_pictures, draw_roles

    choices.check(name)
    name = name or "demo"
    out = out or Path("data") / name
    folder = pictures or out.with_name(f"{out.name}-pictures")
    unseen = read_unseen(choices.unseen or DEMO_UNSEEN, CLASSES)
    roles = draw_roles(choices.seed, unseen, DEMO_VAL if choices.val_classes is None else choices.val_classes)
    look = Look(
        seed=choices.seed,
        size=choices.clean.size or Look.size,
        ambiguity=Look.ambiguity if ambiguity is None else ambiguity,
        photos=choices.subset or photos,
        sketches=choices.subset or sketches,
    )
    test, val = ([n for n in CLASSES if roles[n] is role] for role in (Role.UNSEEN, Role.VAL))
    own = replace(choices, unseen=",".join(test), val_classes=len(val))
    check_options(out, _settled(own), len(CLASSES) * (look.photos + look.sketches))
    draw_pictures(folder, roles, look, workers=choices.workers or available_cores(), progress=progress)
    return prepare_own([folder], name=name, out=out, choices=own, val=val, say=say, progress=progress)


@contextmanager
def scanned(paths: Sequence[Path], say: Say, leave: Path | None = None) -> Iterator[list[Source]]:
    """The sources, open and listed. `leave`: a folder that is no part of them."""
    with ExitStack() as stack:
        sources = [stack.enter_context(closing(open_source(path, leave))) for path in paths]
        for path, source in zip(paths, sources, strict=True):
            source.scan()
            size = sum(source.listing.sizes) / 1e6
            say(f"{readable(str(path))}: {counted(len(source.listing.paths), 'file')}, {size:,.1f} MB")
        yield sources
