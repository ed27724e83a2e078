"""`zssbir runs`: list runs with their numbers; `zssbir runs compare A B`."""

from pathlib import Path
from typing import Annotated

import typer

from zssbir_cli.cli import complete, options
from zssbir_cli.cli.mistakes import Command, Group
from zssbir_cli.cli.options import option, shared
from zssbir_cli.errors import UsageError

app = typer.Typer(
    name="runs", cls=Group, invoke_without_command=True, add_completion=False, rich_markup_mode=None
)

OwnRuns = Annotated[Path | None, shared("DIR", "Folder of the runs.  [default: runs]", "--runs")]


@app.callback()
def runs(context: typer.Context, root: options.Runs = Path("runs"), json_: options.Json = False) -> None:
    """List runs: where they are, loss, best value on held-out seen classes, results of evaluations.

    Example: zssbir runs compare latest 20260101
    """
    context.obj = root
    if context.invoked_subcommand is not None:
        if json_:
            raise UsageError(f"--json goes behind `runs {context.invoked_subcommand}`, where there is one")
        return
    import json

    from zssbir_cli.cli.console import note, table
    from zssbir_cli.workflows.runs import list_runs, newest_of, percent

    found = list_runs(root)
    if json_:
        print(json.dumps([{**vars(r), "path": str(r.path)} for r in found], indent=1))
        return
    if not found:
        note(f"{root}: no runs yet; start one with `zssbir train --recipe ...`")
        return

    newest = newest_of(root)
    columns = (
        "run", "method", "data", "state", "step", "epoch", "loss", "best val %", "mAP@all % of each evaluation",
    )  # fmt: skip
    rows = [
        (
            f"{r.path.name} (latest)" if r.path.name == newest else r.path.name, r.method, r.data, r.state, r.step,
            f"{r.epoch:g}", "-" if r.loss is None else f"{r.loss:.4f}", percent(r.best_val),
            ", ".join(f"{name} {r.shown(name)}" for name in r.results) or "-",
        )
        for r in found
    ]  # fmt: skip
    table(columns, rows)
    note(
        "percent; best val: mAP@all (voc) on held-out seen classes; evaluations: mAP@all (voc), by name in eval/"
    )
    if any(r.outdated for r in found):
        note("outdated: training has replaced these weights since; run `zssbir eval` again")


@app.command("compare", cls=Command, short_help="Show what differed between two runs.")
def compare(
    context: typer.Context,
    first: str = typer.Argument(
        metavar="RUN",
        autocompletion=complete.runs,
        help="A run: its folder, its name or a part of it, or `latest`.",
    ),
    second: str = typer.Argument(
        metavar="OTHER", autocompletion=complete.runs, help="The run to compare it with."
    ),
    root: OwnRuns = None,
    json_: options.Json = False,
) -> None:
    """Show what differed between two runs (recipe, versions, data, device) and what came out."""
    import json

    from zssbir_cli.cli.console import table
    from zssbir_cli.engine.runs import find_run
    from zssbir_cli.workflows.runs import compare_runs

    a, b = (find_run(name, root or context.obj).path for name in (first, second))
    found = compare_runs(a, b)
    if json_:
        print(json.dumps({"a": str(a), "b": str(b), **found}, indent=1))
        return
    titles = {"recipe": "recipe", "record": "circumstances", "outcome": "outcome"}
    for key, title in titles.items():
        table([title, a.name, b.name], found[key] or [("(no difference)", "", "")])


@app.command("export", cls=Command, short_help="Show results as a table for a paper.")
def table_of_runs(
    context: typer.Context,
    names: list[str] = typer.Argument(
        None,
        metavar="RUN",
        autocompletion=complete.runs,
        help="Runs, in the order of the rows; default: all.",
    ),
    form: str = option("markdown", "FORM", "markdown, latex or csv.", "--format"),
    result: str = option(
        "zs", "NAME", "Which result: a name in the runs' eval folders, as `runs` lists them."
    ),
    convention: str = option("voc", "NAME", "Of mAP: voc, plain, hits or trec."),
    measure: list[str] = option(
        [], "NAME", "A column, e.g. mAP@200 (repeatable).  [default: mAP and P at every cut-off]"
    ),
    out: Path | None = option(
        None, "FILE", "Write to a file, not to stdout.", "--out", "-o", callback=options.writable
    ),
    root: OwnRuns = None,
) -> None:
    """Show results of runs as a table for a paper; runs that differ only in the seed are one row, mean ± sd.

    Example: zssbir runs export --format latex --measure mAP@all --measure P@100
    """
    from zssbir_cli.cli.console import note
    from zssbir_cli.files import write_text, writing
    from zssbir_cli.workflows.paper_table import formatted, paper_table

    found = paper_table(
        names or [], root or context.obj, result=result, convention=convention, measures=measure
    )
    text = formatted(found, form)
    if form == "csv":  # the other forms hold them
        for line in found.notes:
            note(line)
    if out is None:
        print(text, end="")
        return
    with writing(out):
        write_text(out, text)
    note(f"written: {out}")
