"""`zssbir prepare`: from what the user has to a prepared data set, for own data, the demo and benchmarks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zssbir_cli.benchmarks.fetch import fetch, usual_places
from zssbir_cli.benchmarks.layouts import recognise
from zssbir_cli.benchmarks.plan import plan_benchmark, read_published
from zssbir_cli.benchmarks.splits import DATASETS, DEFAULT_SPLIT, get_split
from zssbir_cli.data.manifest import MANIFEST_NAME, read_manifest
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import counted, readable, suggestion
from zssbir_cli.prepare.archives import open_source
from zssbir_cli.prepare.carry import Prepared, Say, carry_out
from zssbir_cli.prepare.choices import Choices
from zssbir_cli.prepare.own import check_given_once, default_name, plan_own
from zssbir_cli.prepare.plan import Plan
from zssbir_cli.prepare.reading import available_cores
from zssbir_cli.prepare.sources import Source
from zssbir_cli.progress import Progress, silent


def prepare_own(
    paths: Sequence[Path],
    *,
    name: str | None = None,
    out: Path | None = None,
    choices: Choices,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Prepare the user's own folder or archive (several are taken as one).

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
        plan = _plan_own(sources, name, choices)
        return carry_out(plan, out or Path("data") / name, choices.build, say, progress)
    finally:
        for source in sources:
            source.close()


def _plan_own(sources: Sequence[Source], name: str, choices: Choices) -> Plan:
    """The plan; when there is none, with the hint that these are a benchmark's files."""
    try:
        return plan_own(sources, name, choices)
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


def prepare_the_demo(
    *,
    out: Path | None = None,
    choices: Choices,
    ambiguity: float | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Draw the demo set (`data.demo`); `--unseen`, `--val-classes`, `--seed`, `--size`, `--subset` and
    `--ambiguity` (0-1, things of other classes in the photos) apply.

    Raises:
        UsageError: bad option values. DataError: the output folder holds something else.
    """
    from zssbir_cli.demo.prepare import prepare_demo

    choices.check()
    if choices.build.clean.square:
        raise UsageError(
            "--square is not for the demo, which draws its images at --size and needs them whole"
        )
    root = out or Path("data/demo")
    fresh = not (root / MANIFEST_NAME).exists()
    given: dict[str, Any] = {
        "size": choices.build.clean.size,
        "val": choices.val_classes,
        "ambiguity": ambiguity,
    }
    if choices.unseen is not None:
        names = [n.strip() for n in choices.unseen.split(",")]
        given["unseen"] = int(choices.unseen) if choices.unseen.isdigit() else names
    if choices.subset is not None:
        given |= {"photos_per_class": choices.subset, "sketches_per_class": choices.subset}
    given = {key: value for key, value in given.items() if value is not None}
    workers = choices.build.workers or available_cores()
    prepare_demo(root, seed=choices.seed, workers=workers, progress=progress, **given)
    return Prepared(root, read_manifest(root), fresh)


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
