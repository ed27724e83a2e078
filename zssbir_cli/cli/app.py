"""The `zssbir` app: one line per command. Command modules import only typer at module level, so that
`zssbir --help` is quick; torch and friends are imported inside command bodies."""

import typer

from zssbir_cli.cli.demo import demo
from zssbir_cli.cli.embed import embed
from zssbir_cli.cli.eval import evaluate
from zssbir_cli.cli.info import info
from zssbir_cli.cli.mask_viz import mask_viz
from zssbir_cli.cli.prepare import prepare
from zssbir_cli.cli.recipes import recipes
from zssbir_cli.cli.runs import app as runs
from zssbir_cli.cli.search import search
from zssbir_cli.cli.train import train

app = typer.Typer(
    name="zssbir",
    help="Zero-shot sketch-based image retrieval: search photos by drawing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(
        False, "--debug", help="Show a traceback on errors (works anywhere on the line)."
    ),
) -> None:
    """Zero-shot sketch-based image retrieval: search photos by drawing."""
    if version:
        from zssbir_cli import __version__

        typer.echo(f"zssbir {__version__}")
        raise typer.Exit


app.command("demo")(demo)
app.command("train")(train)
app.add_typer(runs, name="runs")
app.command("recipes")(recipes)
app.command("prepare")(prepare)
app.command("info")(info)
app.command("embed")(embed)
app.command("eval")(evaluate)
app.command("search")(search)
app.command("mask-viz")(mask_viz)
