"""`zssbir embed`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option
from zssbir_cli.errors import UsageError
from zssbir_cli.files import check_writable
from zssbir_cli.names import counted, table_address
from zssbir_cli.types import Part

if TYPE_CHECKING:
    from zssbir_cli.workflows.embed import Embedded


def embed(
    context: typer.Context,
    files: list[Path] = typer.Argument(None, metavar="PARTS", help="Embeddings files for --join."),
    images: Path | None = option(
        None,
        "PATH",
        "Any folder of photos, no classes needed, or tar shards ('shards-{000..999}.tar').  [default: the run's own data set]",
        "--photos",
    ),
    part: list[str] = option(
        [],
        "PART",
        "Parts of the data set: test, val, holdout, train; of shards: I/N, or auto for the numbers of torchrun or a Slurm "
        "array.  [default: all but train; auto]",
    ),
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    data: options.Data = None,
    out: Path | None = option(
        None,
        "PATH",
        "The embeddings file of --photos, a LanceDB table (.lance), or the folder for those of shards.",
        "--out",
        "-o",
    ),
    join: Path | None = option(
        None,
        "OUT",
        "Make one gallery, a file or a table, of the embeddings files PARTS; with --photos, of all these shards.",
    ),
    index: bool = flag(
        "Make an index for `search --approximate`, in a table of 100,000 photos or more.", "--index"
    ),
    half: bool = flag("Store float16 (half the size) instead of float32.", "--half"),
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = None,
    batch: int = option(128, "N", "Images per forward pass.", min=1),
    force: bool = flag("Embed again even if the file is up to date.", "--force"),
    runs: options.Runs = Path("runs"),
) -> None:
    """Compute embeddings of a data set or a folder of photos, for eval and search; a killed pass continues.

    Example: zssbir embed --photos holiday --out holiday.h5
    """
    from zssbir_cli.cli.display import loading

    if files and join is None:
        raise UsageError(
            f"{files[0]}: photos are named with --photos, embeddings files to join with --join OUT"
        )
    if join is not None:
        options.allow_only(context, "--join", "join", "files", "index", "images")
        _join(join, files or [], images, index)
        return
    options.one_of_run_and_model(context, "runs")
    sharded = images is not None and images.suffix == ".tar"
    for name in () if sharded else part:
        options.one_of("--part", name, tuple(Part))
    if images is None:
        options.needs_data(model, data)
    elif not sharded:
        options.exists(images, "--photos")
    if out is not None and sharded:
        check_writable(out, folder=True)
    elif out is not None and not table_address(out):
        _check_target(out)
    with loading("embed", "the weights") as progress:
        from zssbir_cli.compute import distributed
        from zssbir_cli.workflows.embed import embed as run_embed

        result = run_embed(
            run, model=model, runs=runs, checkpoint=checkpoint, photos=images, out=out, half=half, data=data,
            parts=part, force=force, index=index, device=device, precision=precision, workers=workers, batch=batch,
            progress=progress,
        )  # fmt: skip
    if distributed.is_main():
        _say(result)


def _say(result: "Embedded") -> None:
    """What was done, on stderr; the files that are up to date now, on stdout."""
    from zssbir_cli.cli.console import note

    note(result.weights)
    if result.note:
        note(result.note)
    done = result.folder or result.shards
    for name, reason in done.skipped if done else ():
        note(f"skipped {name}: {reason}")
    if result.folder:
        note(f"{result.folder.images:,} photos: {result.folder}")
    if result.shards:
        note(str(result.shards))
    print("\n".join(table_address(file) or str(file) for file in result.files))


def _check_target(out: Path) -> None:
    from zssbir_cli.data.embeddings import check_target

    check_target(out)


def _join(out: Path, parts: list[Path], shards: Path | None, index: bool) -> None:
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress as shown

    if shards is not None and shards.suffix != ".tar":
        raise UsageError(
            f"--photos {shards}: with --join, the shards that must all be there (shards-{{000..999}}.tar)"
        )
    for part in parts:
        options.exists(part)
    if not table_address(out):
        _check_target(out)
    with shown("embed: joining") as progress:
        from zssbir_cli.embedding.join import join_galleries

        rows = join_galleries(parts, out, shards=shards, index=index, progress=progress)
    note(f"{counted(rows, 'photo')} of {counted(len(parts), 'part')}")
    print(table_address(out) or out)
