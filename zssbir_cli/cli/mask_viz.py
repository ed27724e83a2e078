"""`zssbir mask-viz`."""

from pathlib import Path

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import option
from zssbir_cli.errors import UsageError


def mask_viz(
    context: typer.Context,
    images: list[Path] = option([], "PATH", "Your own photos: files or folders (repeatable).", "--photos"),
    classes: list[str] = option([], "NAMES", "Classes of the data set to show (repeatable)."),
    text: list[str] = option([], "WORDS", "Words to look for instead of the class name (repeatable)."),
    run: options.Run = None,
    data: options.Data = None,
    model: str | None = option(
        None,
        "MODEL",
        "An open_clip model, or `offline` (for drawn pictures).  [default: the recipe's]",
        "--vxl",
    ),
    weights: str | None = option(None, "FILE|TAG", "An open_clip tag or a weight file.", "--vxl-weights"),
    ratio: float | None = option(
        None, "0-0.99", "Share of patches to mask.  [default: the recipe's]", "--mask-ratio", min=0, max=0.99
    ),
    count: int = option(8, "N", "Photos to show.", min=1, max=200),
    out: Path | None = options.out(
        "Folder for masks.png and masks.html.  [default: the run's, otherwise mask-viz]", folder=True
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
    from zssbir_cli.cli.display import loading
    from zssbir_cli.engine.runs import find_run
    from zssbir_cli.models.known import check_clip_name

    _refuse_idle(context)
    for place in images:
        options.exists(place, "--photos")
    if run is not None:
        find_run(run, runs)
    if model is not None:
        check_clip_name(model, weights or "", "--vxl", "--vxl-weights")
    with loading("mask-viz", "the model"):
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


def _refuse_idle(context: typer.Context) -> None:
    """Refuse options that would do nothing. Errors: UsageError."""
    found, values = options.given(context), context.params
    idle: list[str] = []
    why = ""
    if values["images"]:
        idle = [name for name in ("data", "classes") if name in found]
        why = "--photos, which brings its own pictures"
    elif values["model"] == "offline":
        idle, why = (
            [name for name in ("weights",) if name in found],
            "--vxl offline, which brings its own weights",
        )
    if "runs" in found and values["run"] is None and (values["images"] or values["data"] is not None):
        idle, why = ["runs"], "--photos or --data without --run"
    if idle:
        raise UsageError(f"{found[idle[0]]} has no effect with {why}; leave it out")
