"""`zssbir draw`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option


def draw(
    context: typer.Context,
    gallery: Path = option(..., "PATH", options.PHOTOS, "--photos"),
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    host: str = option("127.0.0.1", "HOST", "Where to listen; beyond this machine a token is required."),
    port: int = option(8765, "N", "Port to listen on; 0 picks a free one.", min=0, max=65535),
    token: str = option(
        "", "TEXT", "Token that clients must send.  [default: none on this machine, otherwise generated]"
    ),
    page: bool = flag("Serve the drawing page, or the API alone.", "--page/--no-page", default=True),
    k: int = option(24, "N", "Photos per answer.", "-k", min=1, max=1000),
    device: options.Device = "auto",
    workers: options.Workers = None,
    runs: options.Runs = Path("runs"),
) -> None:
    """Open a page to draw on: matching photos appear as you draw. The same search is an HTTP API.

    Example: zssbir draw --photos holiday
    """
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import loading

    options.one_of_run_and_model(context, "runs")
    options.of_embeddings(context, gallery)
    options.exists(gallery, "--photos")
    with loading("draw", "the weights") as progress:
        from zssbir_cli.workflows import draw as workflow

        server = workflow.open_server(
            gallery, run=run, model=model, runs=runs, which=checkpoint, host=host, port=port, token=token,
            page=page, k=k, device=device, workers=workers, progress=progress,
        )  # fmt: skip
    if server.note:
        note(server.note)
    note(f"{server.photos:,} photos; open {server.address} (Ctrl-C stops)")
    server.serve()
