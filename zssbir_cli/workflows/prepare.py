"""`zssbir prepare`: from what the user has to a prepared data set, for own data, the demo and benchmarks."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zssbir_cli.data.manifest import MANIFEST_NAME, Manifest, read_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.prepare.archives import open_source
from zssbir_cli.prepare.build import BuildOptions, available_cores, build
from zssbir_cli.prepare.clean import SMALLEST_SQUARE
from zssbir_cli.prepare.journal import WORK, Journal, is_ours
from zssbir_cli.prepare.layout import find_images, to_items
from zssbir_cli.prepare.leaks import refuse
from zssbir_cli.prepare.plan import Plan
from zssbir_cli.prepare.roles import assign_roles
from zssbir_cli.prepare.sources import ARCHIVE_SUFFIXES, Source
from zssbir_cli.progress import Progress, silent

Say = Callable[[str], None]


@dataclass(frozen=True)
class Choices:
    """Options of `prepare` that apply to every kind of data; None = the default of that kind."""

    unseen: str | None = None
    val_classes: int | None = None
    holdout: int | None = None
    subset: int | None = None
    seed: int = 0
    build: BuildOptions = field(default_factory=BuildOptions)

    def check(self) -> None:
        """Raises UsageError for values out of range."""
        for name, value, least in (
            ("--val-classes", self.val_classes, 0),
            ("--holdout", self.holdout, 0),
            ("--subset", self.subset, 1),
            ("--seed", self.seed, 0),
            ("--size", self.build.clean.size, SMALLEST_SQUARE if self.build.clean.square else 16),
            ("--workers", self.build.workers, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{name} {value}: give {least} or more")
        if self.build.clean.square and self.build.clean.size is None:
            raise UsageError(
                "--square needs --size N, the side of the network's input (the recipe's data.size)"
            )


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
    choices.check()
    name = name or default_name(paths[0])
    sources = scan([Path(p) for p in paths], say)
    try:
        found = find_images(sources)
        for warning in found.warnings:
            say(f"warning: {warning}")
        classes = assign_roles(
            list(found.names.values()),
            unseen=choices.unseen,
            val_classes=choices.val_classes,
            seed=choices.seed,
        )
        held = choices.holdout or 0
        items = to_items(found, sources, classes, holdout=held, subset=choices.subset, seed=choices.seed)
        unseen = sum(c.role == "unseen" for c in classes)
        split = f"{unseen}-unseen" + (
            "" if choices.unseen and "," in choices.unseen else f"-seed{choices.seed}"
        )
        options: dict[str, str | int | float | bool | None] = {
            "seed": choices.seed,
            "unseen": choices.unseen,
            "val_classes": choices.val_classes,
            "holdout": held,
            "subset": choices.subset,
            "size": choices.build.clean.size,
            "square": choices.build.clean.square,
            "dedup": choices.build.dedup,
            "quick": choices.build.clean.quick,
        }
        plan = Plan(name, split, classes, tuple(sources), items, options, tuple(found.warnings))
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
        say(f"{path}: {len(source.listing.paths):,} files, {sum(source.listing.sizes) / 1e6:,.1f} MB")
        sources.append(source)
    return sources


def default_name(path: Path) -> str:
    """A data set's name from the file or folder it comes from."""
    name = path.resolve().name
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)] or "own"
    return name or "own"


def carry_out(plan: Plan, out: Path, options: BuildOptions, say: Say, progress: Progress) -> Prepared:
    """Build the plan into `out` unless it is there already."""
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
