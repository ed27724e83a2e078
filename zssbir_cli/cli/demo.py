"""`zssbir demo`."""

import time
from pathlib import Path

import typer


def demo(
    out: Path = typer.Option(Path("zssbir-demo"), "--out", help="Folder for everything the demo makes."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of the pictures, the split and the training."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    set_: list[str] = typer.Option(
        [], "--set", help="Override a key of the recipe demo.yaml, e.g. --set train.epochs=4 (repeatable)."
    ),
    photos: int = typer.Option(40, "--photos", min=2, help="Photos per class (and 3/4 as many sketches)."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
) -> None:
    """See the whole way in minutes, offline: draw a data set, train, evaluate on unseen classes, show."""
    from zssbir_cli.cli.console import note, table
    from zssbir_cli.cli.stages import stages
    from zssbir_cli.cli.train_progress import TrainHooks
    from zssbir_cli.workflows import demo as workflow

    begin = time.perf_counter()
    note(f"demo in {out}: drawing sketches and photos, then training on the seen classes")
    with stages() as bar:
        data = workflow.draw(out, seed=seed, photos=photos, progress=bar)
    result = workflow.demo(
        out, data, seed=seed, device=device, overrides=tuple(set_), hooks=TrainHooks(), say=note
    )
    if as_json:
        print(result.summary.read_text(), end="")
        return
    rows = [(s.name, f"{100 * s.map_all:.1f}", f"{100 * s.p_10:.1f}", s.what) for s in result.scores]
    title = (
        f"unseen classes: {result.queries} sketches against {result.photos} photos of "
        f"{len(result.unseen)} classes (%, voc convention)"
    )
    table(("", "mAP@all", "P@10", "what it is"), rows, title)
    print(f"never seen in training: {', '.join(result.unseen)}")
    print(f"training multiplied the untrained mAP@all by {result.gain:.1f}")
    print(f"pictures: {', '.join(str(p) for p in result.pictures)}")
    print(f"data set: {result.data}    run: {result.run}    summary: {result.summary}")
    spent = ", ".join(f"{name} {value:.0f} s" for name, value in result.seconds.items())
    print(f"time: {time.perf_counter() - begin:.0f} s ({spent}, the rest: drawing and starting)")
    print(f"next: zssbir eval --split zs --run {result.run}")
    print("      zssbir prepare FOLDER   (your own sketch/<class>/* and photo/<class>/*)")
