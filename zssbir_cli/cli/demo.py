"""`zssbir demo`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option

if TYPE_CHECKING:
    from zssbir_cli.workflows.demo import DemoResult


def demo(
    out: Path = option(
        Path("zssbir-demo"),
        "DIR",
        "Folder for everything the demo makes.",
        "--out",
        "-o",
        callback=options.writable_folder,
    ),
    seed: options.Seed = 0,
    device: options.Device = "auto",
    set_: options.Set = None,
    per_class: int | None = option(
        None, "N", "Photos per class, and 3/4 as many sketches.  [default: 40; 10 with --quick]", min=2
    ),
    quick: bool = flag(
        "Fewer and smaller pictures: a third of the time or less, with lower numbers.", "--quick"
    ),
    as_json: options.Json = False,
) -> None:
    """See everything in minutes, offline: draw a data set, train on it, and search it by unseen classes.

    Example: zssbir demo --out /tmp/demo
    """
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import progress
    from zssbir_cli.recipe.loader import find_recipe, load_recipe
    from zssbir_cli.recipe.settings import check_act, check_agree
    from zssbir_cli.workflows.recipes import check_names

    given = [(f"--set {change}", change) for change in set_ or ()]
    check_agree(given)
    recipe = load_recipe(find_recipe("demo.yaml"), set_ or ())
    check_act(given, recipe)
    check_names(recipe)  # told before anything is drawn
    begin = time.perf_counter()
    with progress(
        f"demo in {out}: drawing sketches and photos, then training on the seen classes"
    ) as display:
        from zssbir_cli.cli.display import TrainHooks
        from zssbir_cli.workflows import demo as workflow

        photos = per_class or (workflow.QUICK_PHOTOS if quick else 40)
        data = workflow.draw(out, seed=seed, photos=photos, progress=display)
        changes = (*(workflow.QUICK if quick else ()), *(set_ or ()))
        result = workflow.demo(
            out, data, seed=seed, device=device, overrides=changes, hooks=TrainHooks(display), say=note
        )
    if as_json:
        print(result.summary.read_text("utf-8"), end="")
    else:
        _show(result, time.perf_counter() - begin)


def _show(result: "DemoResult", seconds: float) -> None:
    """The demo's table, what lies where, and what to do next, on stdout."""
    import shlex

    from zssbir_cli.cli.console import table

    rows = [(s.name, f"{100 * s.map_all:.1f}", f"{100 * s.p_10:.1f}", s.what) for s in result.scores]
    title = (
        f"unseen classes: {result.queries} sketches against {result.photos} photos of "
        f"{len(result.unseen)} classes (%, voc convention)"
    )
    table(("", "mAP@all", "P@10", "what it is"), rows, title)
    print(f"never seen in training: {', '.join(result.unseen)}")
    print(f"training multiplied the untrained mAP@all by {result.gain:.1f}")
    print(f"the story as a page: {result.page}    pictures: {', '.join(str(p) for p in result.pictures)}")
    print(f"data set: {result.data}    run: {result.run}    summary: {result.summary}")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    print(f"time: {seconds:.0f} s ({spent}, the rest: drawing and starting)")
    print(f"next: zssbir eval --split zs --run {shlex.quote(str(result.run))}")
    print("      zssbir prepare FOLDER   (your own sketch/<class>/* and photo/<class>/*)")
