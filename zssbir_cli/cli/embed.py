"""`zssbir embed`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option
from zssbir_cli.types import Part


def embed(
    context: typer.Context,
    images: Path | None = option(
        None, "DIR", "Any folder of photos, no classes needed.  [default: the run's own data set]", "--photos"
    ),
    part: list[str] = option(
        [], "PART", "Parts of the data set: test, val, holdout, train.  [default: all but train]"
    ),
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    data: options.Data = None,
    out: Path | None = option(None, "PATH", "The embeddings file of --photos.", "--out", "-o"),
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
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress as shown

    options.one_of_run_and_model(context, "runs")
    for name in part:
        options.one_of("--part", name, tuple(Part))
    if images is None:
        options.needs_data(model, data)
    else:
        options.exists(images, "--photos")
    with shown("embed: loading PyTorch and the weights") as progress:
        from zssbir_cli.compute import distributed
        from zssbir_cli.workflows.embed import embed as run_embed

        result = run_embed(
            run, model=model, runs=runs, checkpoint=checkpoint, photos=images, out=out, half=half, data=data,
            parts=part, force=force, device=device, precision=precision, workers=workers, batch=batch,
            progress=progress,
        )  # fmt: skip
    if not distributed.is_main():
        return
    note(result.weights)
    if result.note:
        note(result.note)
    if result.folder is not None:
        for name, reason in result.folder.skipped:
            note(f"skipped {name}: {reason}")
        note(f"{result.folder.images:,} photos: {result.folder}")
    print("\n".join(str(file) for file in result.files))
