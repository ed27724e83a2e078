"""`zssbir prepare`: from what the user has to a prepared data set, for own data, the demo and benchmarks."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.benchmarks.fetch import fetch, usual_places
from zssbir_cli.benchmarks.plan import plan_benchmark, read_published
from zssbir_cli.benchmarks.splits import DEFAULT_SPLIT, get_split
from zssbir_cli.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import counted, readable
from zssbir_cli.prepare.archives import open_source
from zssbir_cli.prepare.build import available_cores, build
from zssbir_cli.prepare.choices import BuildOptions, Choices
from zssbir_cli.prepare.journal import WORK, Journal, is_ours
from zssbir_cli.prepare.leaks import refuse
from zssbir_cli.prepare.own import check_given_once, default_name, plan_own
from zssbir_cli.prepare.plan import Plan
from zssbir_cli.prepare.sources import Source
from zssbir_cli.progress import Progress, silent

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """The result: where, what, and whether anything had to be done."""

    root: Path
    manifest: Manifest
    fresh: bool


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
    name = name or default_name(paths[0])
    sources = scan([Path(p) for p in paths], say)
    try:
        plan = plan_own(sources, name, choices)
        return carry_out(plan, out or Path("data") / name, choices.build, say, progress)
    finally:
        for source in sources:
            source.close()


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


def carry_out(plan: Plan, out: Path, options: BuildOptions, say: Say, progress: Progress) -> Prepared:
    """Build the plan into `out` unless it is there already."""
    for warning in plan.warnings:
        say(f"warning: {warning}")
    finished = _finished(plan, out, options, say)
    if finished is not None:
        return Prepared(out, finished, fresh=False)
    if (out / WORK).is_dir():
        say(f"continuing in {out}")
    return Prepared(out, build(plan, out, options, progress), fresh=True)


def _finished(plan: Plan, out: Path, options: BuildOptions, say: Say) -> Manifest | None:
    """The manifest when `out` already holds this very set, whole. Clears a damaged one.

    Raises:
        DataError: `out` holds another set or other files.
    """
    if not (out / MANIFEST_NAME).exists():
        if out.exists() and not all(is_ours(path) for path in out.iterdir()):
            raise DataError(f"{out} is not empty and not a prepared set; choose another folder with --out")
        return None
    try:
        manifest = read_manifest(out)
    except DataError as error:
        raise DataError(f"{error}; delete the folder to prepare it again") from None
    if manifest.options.get("plan") != plan.key:
        raise DataError(
            f"{out} holds {manifest.name} ({manifest.split}), prepared from other files or options; "
            f"choose another folder with --out, or delete it"
        )
    if manifest.leaks and not options.allow_leak:
        refuse(manifest.leaks)
    try:
        PreparedSet.open(out)
    except DataError as error:
        say(f"{error}; preparing it again")
        (out / MANIFEST_NAME).unlink()
        Journal(out).clear()
        return None
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest
