"""The `zssbir` app: one line per command. Command modules import only typer at module level, so that
`zssbir --help` is quick; torch and friends are imported inside command bodies."""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import typer

from zssbir_cli.cli import mistakes
from zssbir_cli.cli.demo import demo
from zssbir_cli.cli.doctor import doctor
from zssbir_cli.cli.draw import draw
from zssbir_cli.cli.embed import embed
from zssbir_cli.cli.eval import evaluate
from zssbir_cli.cli.export import export
from zssbir_cli.cli.info import info
from zssbir_cli.cli.mask_viz import mask_viz
from zssbir_cli.cli.mistakes import Command, Group
from zssbir_cli.cli.prepare import prepare
from zssbir_cli.cli.recipes import recipes
from zssbir_cli.cli.runs import app as runs
from zssbir_cli.cli.search import search
from zssbir_cli.cli.train import train
from zssbir_cli.errors import Interrupted

AGAIN = "finished work is kept; run the same command to continue"
INTERRUPTED = Interrupted.exit_code
NOTHING = "nothing was changed"

app = typer.Typer(
    name="zssbir",
    cls=Group,
    help="Zero-shot sketch-based image retrieval: search photos by drawing.",
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def root(
    version: bool = typer.Option(False, "--version", help="Print the version and exit."),
    debug: bool = typer.Option(
        False, "--debug", help="Show a traceback on errors (anywhere on the command line)."
    ),
) -> None:
    """Zero-shot sketch-based image retrieval: search photos by drawing."""
    if version:
        from zssbir_cli import __version__

        print(f"zssbir {__version__}")
        raise typer.Exit


def interruptible(command: Callable[..., None], kept: str) -> Callable[..., None]:
    """The command, with a word on Ctrl-C: what was kept and how to continue (unless the work says so itself)."""

    @functools.wraps(command)
    def run_it(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise Interrupted(f"interrupted: {kept}") from None

    return run_it


COMMANDS: tuple[tuple[str, str, Callable[..., None], str], ...] = (
    ("demo", "Draw a data set, train, evaluate and show, offline.", demo, AGAIN),
    ("prepare", "Turn sketches and photos into a prepared data set.", prepare, AGAIN),
    ("info", "Show what a prepared data set contains.", info, NOTHING),
    ("recipes", "List the shipped recipes, or explain every key.", recipes, NOTHING),
    ("train", "Train a model from a recipe.", train,
     "training had not begun, or its last checkpoint is kept: see `zssbir runs`, continue with --resume RUN"),
    ("embed", "Compute embeddings of a data set or of photos.", embed, AGAIN),
    ("eval", "Measure retrieval on unseen classes.", evaluate,
     "no result was written; finished embeddings are kept and reused"),
    ("search", "Find photos that match a drawing.", search,
     "no result was written; finished embeddings are kept and reused"),
    ("draw", "Open a page to draw on and see matching photos.", draw,
     "the server has stopped; finished embeddings are kept"),
    ("export", "Export a run as ONNX, or as one file to share.", export, NOTHING),
    ("doctor", "Check the installation, a data set or a run.", doctor, NOTHING),
    ("mask-viz", "Show which patches of photos PuXIM's masks keep.", mask_viz, NOTHING),
)  # fmt: skip
"""Name, summary (one line of 80 columns beside the name), function, and what is kept after Ctrl-C."""

for name, summary, command, kept in COMMANDS:
    app.command(name, cls=Command, short_help=summary)(interruptible(command, kept))
app.add_typer(runs, name="runs", short_help="List runs with their numbers, or compare two.")


@app.command("help", cls=Command, short_help="Show the help of a command.")
def show_help(
    context: typer.Context,
    words: list[str] | None = typer.Argument(None, metavar="COMMAND", help="A command, e.g. train."),
) -> None:
    """Show the help of a command, as its --help does."""
    if context.parent is not None:
        context.parent.command.main([*(words or ()), "--help"], prog_name="zssbir", standalone_mode=False)


def run(argv: Sequence[str]) -> int:
    """Run a command line and return its exit code. Raises ZssbirError, also for a wrong command line."""
    line, notes = mistakes.modern(argv or ["--help"])
    for text in notes:
        from zssbir_cli.cli.console import note

        note(text)
    stdout = sys.stdout
    try:
        code = app(line, prog_name="zssbir", standalone_mode=False)
    except SystemExit as stop:
        if sys.stdout is stdout:
            raise
        sys.stdout = stdout  # Typer wraps it, and exits with 1, when nobody reads it any more
        raise BrokenPipeError from stop
    except Exception as error:
        mistake = mistakes.explain(error)
        if mistake is None:
            raise
        raise mistake from error
    if code == INTERRUPTED:  # Ctrl-C before the command began: Typer says nothing
        raise Interrupted(f"interrupted: {NOTHING}")
    return code if isinstance(code, int) else 0
