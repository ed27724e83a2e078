"""`zssbir mask-viz`."""

from pathlib import Path

import typer


def mask_viz(
    images: list[Path] = typer.Option([], "--photos", help="Your own photos: files or folders (repeatable)."),
    classes: list[str] = typer.Option([], "--classes", help="Classes of the data set to show (repeatable)."),
    text: list[str] = typer.Option(
        [], "--text", help="Words to look for instead of the class's name (repeatable)."
    ),
    run: str | None = typer.Option(
        None,
        "--run",
        help="Show the tokens of this run's encoder (folder, name or a part of it; default: the latest, if any).",
    ),
    data: Path | None = typer.Option(None, "--data", help="A prepared data set to take photos from."),
    model: str | None = typer.Option(
        None,
        "--vxl",
        help="`offline` (drawn pictures) or an open_clip model; default: as the run's recipe says.",
    ),
    weights: str | None = typer.Option(None, "--vxl-weights", help="An open_clip tag or a weight file."),
    ratio: float | None = typer.Option(
        None, "--mask-ratio", min=0, max=0.99, help="Share of patches to mask."
    ),
    count: int = typer.Option(8, "--count", min=1, max=200, help="Photos to show."),
    out: Path | None = typer.Option(
        None, "--out", help="Folder for masks.png and masks.html (default: the run's, else ./mask-viz)."
    ),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    json_: bool = typer.Option(False, "--json", help="Print scores as JSON."),
) -> None:
    """Show which patches of photos the linguistic masks keep (with nothing at hand: of a few drawn photos)."""
    import json

    from zssbir_cli.cli.console import note
    from zssbir_cli.workflows.mask_viz import MaskRequest, mask_viz

    outcome = mask_viz(
        MaskRequest(images, classes, text, run, data, model, weights, ratio, count, out, device)
    )
    if json_:
        print(json.dumps({"sheet": str(outcome.sheet), "page": str(outcome.page), "photos": outcome.rows}))
        return
    note(outcome.heading)
    print(outcome.sheet)
    print(outcome.page)
