"""`zssbir prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from zssbir_cli.workflows.prepare import Prepared


def prepare(
    source: list[str] = typer.Argument(
        None,
        metavar="SOURCE...",
        help="demo, or your own folder or archive with sketch/<class>/* and photo/<class>/*.",
        show_default=False,
    ),
    out: Path = typer.Option(None, help="Output folder.  [default: data/NAME]", show_default=False),
    name: str = typer.Option(
        None, help="Name of the prepared set.  [default: from the source]", show_default=False
    ),
    unseen: str = typer.Option(
        None,
        metavar="NAMES|FILE|N|FRACTION",
        help="Test classes: names with commas, a file of names, a number, or a fraction.  [default: 0.2]",
        show_default=False,
    ),
    val_classes: int = typer.Option(
        None, help="Seen classes held out for model selection.  [default: a tenth]", show_default=False
    ),
    holdout: int = typer.Option(
        None, help="Sketches per seen class kept out of training (for generalised tests).", show_default=False
    ),
    subset: int = typer.Option(None, help="At most N images per class and modality.", show_default=False),
    seed: int = typer.Option(0, help="Seed of every random choice."),
    size: int = typer.Option(
        None, help="Bring the shorter side down to N pixels.  [default: keep]", show_default=False
    ),
    workers: int = typer.Option(0, help="Threads; 0 = one per core."),
    strict: bool = typer.Option(False, "--strict", help="An unusable image is an error."),
    dedup: bool = typer.Option(False, "--dedup", help="Leave out repeated images."),
    allow_leak: bool = typer.Option(False, "--allow-leak", help="Record leaks instead of refusing them."),
    quick: bool = typer.Option(
        False, "--quick", help="Check stored files by structure and checksum, without decoding them."
    ),
) -> None:
    """Turn sketches and photos into a prepared data set: shards and a manifest."""
    from zssbir_cli.cli.console import note, progress
    from zssbir_cli.data.build import BuildOptions
    from zssbir_cli.data.clean import CleanOptions
    from zssbir_cli.errors import UsageError
    from zssbir_cli.workflows.prepare import Choices, prepare_own, prepare_the_demo

    if not source:
        raise UsageError("prepare what? `zssbir prepare demo`, or `zssbir prepare FOLDER_OR_ARCHIVE`")
    build = BuildOptions(CleanOptions(size, quick), dedup, strict, allow_leak, workers)
    choices = Choices(unseen, val_classes, holdout, subset, seed, build)
    with progress("preparing") as bar:
        if source == ["demo"]:
            result = prepare_the_demo(out=out, choices=choices, progress=bar)
        else:
            paths = [Path(s) for s in source]
            result = prepare_own(paths, name=name, out=out, choices=choices, say=note, progress=bar)
    show(result)


def show(result: "Prepared") -> None:
    """The summary of a prepared set, on stdout."""
    from zssbir_cli.cli.console import note, table
    from zssbir_cli.data.build import REPORT_NAME
    from zssbir_cli.data.summary import summarise

    m = result.manifest
    if not result.fresh:
        note(f"{result.root} is already prepared with these options; nothing to do")
    rows = [(str(r.part), r.classes, r.sketches, r.photos, r.megabytes) for r in summarise(m)]
    table(
        ("part", "classes", "sketches", "photos", "MB"), rows, f"{m.name} ({m.split}), identity {m.identity}"
    )
    if m.skipped:
        print(f"{m.skipped:,} images were left out; see {result.root / REPORT_NAME}")
    for leak in m.leaks[:5]:
        print(f"leak: {leak.what} is in {leak.where}")
    if len(m.leaks) > 5:
        print(f"... {len(m.leaks)} leaks in all, recorded in the manifest")
    print(f"prepared in {result.root}")
