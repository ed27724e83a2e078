"""`zssbir draw`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options


def draw(
    context: typer.Context,
    gallery: Path = typer.Option(
        ...,
        "--photos",
        metavar="PATH",
        help="An embeddings file, a folder of photos, or a prepared data set.",
    ),
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    host: str = typer.Option(
        "127.0.0.1",
        "--host",
        metavar="HOST",
        help="Where to listen; beyond this machine a token is required.",
    ),
    port: int = typer.Option(
        8765, "--port", metavar="N", min=0, max=65535, help="0 takes a free one.", show_default=True
    ),
    token: str = typer.Option(
        "",
        "--token",
        metavar="TEXT",
        help="What clients must send.  [default: none on this machine, else made up]",
        show_default=False,
    ),
    page: bool = typer.Option(True, "--page/--no-page", help="Serve the drawing page, or the API alone."),
    k: int = typer.Option(24, "-k", metavar="N", min=1, max=1000, help="Photos per answer."),
    device: options.Device = "auto",
    workers: options.Workers = None,
    runs: options.Runs = Path("runs"),
) -> None:
    """Open a page to draw on: the photos answer while you draw. The same search is an HTTP API.

    Example: zssbir draw --photos holiday
    """
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress as shown

    options.one_of_run_and_model(context, "runs")
    options.of_embeddings(context, gallery)
    options.exists(gallery, "--photos")
    with shown("draw: loading PyTorch and the weights") as progress:
        from zssbir_cli.workflows import draw as workflow

        server = workflow.open_server(
            gallery, run=run, model=model, runs=runs, which=checkpoint, host=host, port=port, token=token,
            page=page, k=k, device=device, workers=workers, progress=progress,
        )  # fmt: skip
    if server.note:
        note(server.note)
    note(f"{server.photos:,} photos; open {server.address} (Ctrl-C stops)")
    server.serve()
