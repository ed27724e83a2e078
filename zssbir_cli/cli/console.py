"""What commands share: notes and progress on stderr, tables on stdout. User text never passes as markup."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager


def note(text: str) -> None:
    """One line for the user, on stderr."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) that shows progress: a bar on a terminal, else a line every 10 % or 60 s."""
    if sys.stderr.isatty():
        with _bar(label) as update:
            yield update
    else:
        yield _lines(label)


@contextmanager
def _bar(label: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(label: str) -> Callable[[int, int], None]:
    start = last = time.monotonic()
    tenth = 0

    def update(done: int, total: int) -> None:
        nonlocal last, tenth
        now, share = time.monotonic(), 10 * done // max(1, total)
        if share > tenth or now - last >= 60:
            tenth, last = share, now
            rate = done / max(now - start, 1e-9)
            note(f"{label}: {done:,} of {total:,} ({10 * tenth} %), {rate:,.0f}/s")

    return update


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None) -> None:
    """Print a table on stdout; numbers are right-aligned. Names are printed as they are, never as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if title:
        print(title)
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, name in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[i], int | float) for row in rows)
        grid.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(
            *(
                Text(f"{c:,}" if isinstance(c, int) else f"{c:,.1f}" if isinstance(c, float) else str(c))
                for c in row
            )
        )
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(grid)
