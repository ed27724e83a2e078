"""`zssbir export`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import option
from zssbir_cli.types import EXPORT_FORMS


def export(
    context: typer.Context,
    run: options.Run = None,
    checkpoint: options.Checkpoint = "best",
    model: options.Model = None,
    format_: str = option(
        "onnx",
        "FORM",
        "onnx: the encoder and its preprocessing; run: one file that every --run takes.",
        "--format",
    ),
    out: Path | None = options.out("The file to write.  [default: the run's name]"),
    runs: options.Runs = Path("runs"),
) -> None:
    """Write a run for use elsewhere: its encoder as ONNX, or all that a colleague needs as one file.

    Example: zssbir export --run latest --format run --out mine.zip
    """
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import loading

    options.one_of("--format", format_, EXPORT_FORMS)
    options.one_of_run_and_model(context, "runs")
    with loading("export", "the weights"):
        from zssbir_cli.workflows.export import export as run_export

        found = run_export(run, format=format_, out=out, model=model, checkpoint=checkpoint, runs=runs)
    if found.pictures:
        note(f"checked with onnxruntime on {found.pictures}: least cosine {found.least_cosine:.6f}")
    print("\n".join(str(file) for file in found.files))
