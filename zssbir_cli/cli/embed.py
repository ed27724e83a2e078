"""`zssbir embed`."""

from pathlib import Path

import typer


def embed(
    images: Path | None = typer.Option(
        None, "--photos", help="Any folder of photos, no classes needed; default: the run's own data set."
    ),
    part: list[str] = typer.Option(
        [], "--part", help="Parts of the data set: test, val, holdout, train; default: all but train."
    ),
    run: str | None = typer.Option(
        None,
        "--run",
        "-R",
        help="A run: its folder, its name or a part of it; default: the latest one. Under torchrun write -R.",
    ),
    checkpoint: str = typer.Option("best", "--checkpoint", help="best, last or epoch-NNNN."),
    data: Path | None = typer.Option(None, "--data", help="Another prepared data set than the run's own."),
    out: Path | None = typer.Option(None, "--out", help="The embeddings file of --photos."),
    half: bool = typer.Option(False, "--half", help="Store float16 (half the size) instead of float32."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    precision: str = typer.Option(
        "auto", "--precision", help="auto (bf16 where fast and safe), fp32 or bf16."
    ),
    workers: int | None = typer.Option(None, "--workers", min=0, help="Image-loading processes per rank."),
    batch: int = typer.Option(128, "--batch", min=1, help="Images per forward pass."),
    force: bool = typer.Option(False, "--force", help="Embed again even if a fresh file is there."),
    runs: Path = typer.Option(Path("runs"), "--runs", help="Where the latest run is looked for."),
) -> None:
    """Compute embeddings of a data set or a folder of photos, for eval and search; a killed pass continues."""
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress as shown
    from zssbir_cli.compute import distributed
    from zssbir_cli.engine.runs import find_run
    from zssbir_cli.workflows.embed import embed as run_embed

    chosen = find_run(run, runs, checkpoint)
    with shown() as progress:
        result = run_embed(
            chosen.path, checkpoint=chosen.which, images=images, out=out, half=half, data=data, parts=part,
            force=force, device=device, precision=precision, workers=workers, batch=batch, progress=progress,
        )  # fmt: skip
    if not distributed.is_main():
        return
    if result.folder is not None:
        for name, reason in result.folder.skipped:
            note(f"skipped {name}: {reason}")
        note(f"{result.folder.images:,} photos: {result.folder}")
    print("\n".join(str(file) for file in result.files))
