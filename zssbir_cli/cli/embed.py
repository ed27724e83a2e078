"""`zssbir embed`."""

from pathlib import Path

import typer


def embed(
    images: Path | None = typer.Option(
        None, "--images", help="Any folder of photos, no classes needed; default: the run's own data set."
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
    out: Path | None = typer.Option(None, "--out", help="The embeddings file of --images."),
    half: bool = typer.Option(False, "--half", help="Store float16 (half the size) instead of float32."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    precision: str = typer.Option(
        "auto", "--precision", help="auto (bf16 weights where fast), fp32 or bf16."
    ),
    workers: int | None = typer.Option(None, "--workers", min=0, help="Image-loading processes per rank."),
    batch: int = typer.Option(128, "--batch", min=1, help="Images per forward pass."),
    force: bool = typer.Option(False, "--force", help="Embed again even if a fresh file is there."),
    runs: Path = typer.Option(Path("runs"), "--runs", help="Where the latest run is looked for."),
) -> None:
    """Compute embeddings of a data set or a folder of photos, for eval and search; a killed pass continues."""
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.stages import stages
    from zssbir_cli.compute import distributed
    from zssbir_cli.embedding import parts as workflow
    from zssbir_cli.engine.runs import find_run

    chosen = find_run(run, runs, checkpoint)
    request = workflow.Request(chosen.path, chosen.which, device, precision, workers, batch)
    with stages() as progress:
        if images is not None:
            from zssbir_cli.embedding.folder import run_folder

            result = run_folder(request, images, out, half=half, force=force, progress=progress)
            lines = [str(result.path)]
            skipped = result.skipped
        else:
            lines = [str(p) for p in workflow.run_parts(request, data, part, force=force, progress=progress)]
            skipped = ()
    if not distributed.is_main():
        return
    for name, reason in skipped:
        note(f"skipped {name}: {reason}")
    print("\n".join(lines))
