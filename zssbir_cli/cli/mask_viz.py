"""`zssbir mask-viz`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options


def mask_viz(
    images: list[Path] = typer.Option(
        [], "--photos", metavar="PATH", help="Your own photos: files or folders (repeatable)."
    ),
    classes: list[str] = typer.Option(
        [], "--classes", metavar="NAMES", help="Classes of the data set to show (repeatable)."
    ),
    text: list[str] = typer.Option(
        [], "--text", metavar="WORDS", help="Words to look for instead of the class's name (repeatable)."
    ),
    run: options.Run = None,
    data: options.Data = None,
    model: str | None = typer.Option(
        None,
        "--vxl",
        metavar="MODEL",
        help="An open_clip model, or `offline` (for drawn pictures).  [default: the recipe's]",
    ),
    weights: str | None = typer.Option(
        None, "--vxl-weights", metavar="FILE|TAG", help="An open_clip tag or a weight file."
    ),
    ratio: float | None = typer.Option(
        None,
        "--mask-ratio",
        metavar="0-0.99",
        min=0,
        max=0.99,
        help="Share of patches to mask.  [default: the recipe's]",
    ),
    count: int = typer.Option(8, "--count", metavar="N", min=1, max=200, help="Photos to show."),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        metavar="PATH",
        help="Folder for masks.png and masks.html.  [default: the run's, else mask-viz]",
    ),
    device: options.Device = "auto",
    runs: options.Runs = Path("runs"),
    json_: options.Json = False,
) -> None:
    """Show which patches of photos PuXIM's masks keep; without a run or photos, of a few drawn ones.

    Example: zssbir mask-viz --photos lion.jpg --text lion
    """
    import json

    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress
    from zssbir_cli.engine.runs import find_run
    from zssbir_cli.models.known import check_clip_name

    for place in images:
        options.exists(place, "--photos")
    if run is not None:
        find_run(run, runs)
    if model is not None:
        check_clip_name(model, "--vxl")
    with progress("mask-viz: loading PyTorch and the model"):
        from zssbir_cli.workflows.mask_viz import MaskRequest, mask_viz

        outcome = mask_viz(
            MaskRequest(images, classes, text, run, data, model, weights, ratio, count, out, device, runs)
        )
    if json_:
        print(json.dumps({"sheet": str(outcome.sheet), "page": str(outcome.page), "photos": outcome.rows}))
        return
    note(outcome.heading)
    print(outcome.sheet)
    print(outcome.page)
