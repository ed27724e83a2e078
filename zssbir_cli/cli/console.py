"""What commands share: notes on stderr, tables on stdout. User text never passes as markup."""

import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress

GAPS = (2, 1)
"""Blanks between two columns: the second where the first leaves too little room."""
UNLIMITED = 10_000
RULE = "──"
"""Begins the line between names and rows."""
Cells = list[list[str]]


def note(text: str) -> None:
    """One line for the user, on stderr."""
    with suppress(OSError):  # nobody reads stderr: the result matters more
        print(text, file=sys.stderr, flush=True)


def table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], title: str | None = None, spare: int = 0
) -> None:
    """Print a table on stdout that fits the terminal (or COLUMNS); numbers are right-aligned.

    Where the columns do not fit side by side without breaking words, the last `spare` ones are left out and named on
    stderr; where that does not help, each row becomes a short block of lines. Names are printed as they are, never as
    markup.
    """
    if title:
        print(title)
    cells = [[_text(value) for value in row] for row in rows]
    room = paragraph_width()
    numeric = [
        bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))
    ]
    for gap in GAPS:
        widths = fitting_widths([list(columns), *cells], room - gap * (len(columns) - 1))
        if widths is not None:
            return _print_grid(columns, cells, widths, numeric, gap)
    if spare:
        kept = len(columns) - spare
        table(columns[:kept], [row[:kept] for row in rows])
        return note(f"no room for {' and '.join(columns[kept:])}: see the report, or use a wider terminal")
    return _print_blocks(columns, cells, room)


def paragraph_width() -> int:
    """Columns that a line on stdout may take: the terminal's, or as good as no limit in a file."""
    return shutil.get_terminal_size((UNLIMITED, 24)).columns if _limited() else UNLIMITED


def fitting_widths(lines: Cells, room: int) -> list[int] | None:
    """Widths of the columns, `room` in all, such that no word and no interval is broken; None when there are
    none."""
    from rich.cells import cell_len

    cells = [list(column) for column in zip(*lines, strict=True)]
    widths = [max(cell_len(c) for c in column) for column in cells]
    least = [max(cell_len(word) for c in column for word in _words(c)) for column in cells]
    while sum(widths) > room:
        widest = max(range(len(widths)), key=lambda i: (widths[i] > least[i], widths[i]))
        if widths[widest] <= least[widest]:
            return None
        widths[widest] -= 1
    return widths


def _words(cell: str) -> list[str]:
    """The pieces that a cell may be broken into; one of numbers and signs alone stays whole."""
    return cell.split() if any(c.isalpha() for c in cell) else [cell]


def _limited() -> bool:
    return sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal()


def _text(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if isinstance(value, float) else " ".join(str(value).split("\n"))


def _print_grid(
    columns: Sequence[str], cells: Cells, widths: Sequence[int], numeric: Sequence[bool], gap: int
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    # the last column is padded as all are, and that cut off below: without its padding, Rich before 15 makes it wider
    grid = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap - 1, 0, 0))
    for name, width, right in zip(columns, widths, numeric, strict=True):
        grid.add_column(Text(name), justify="right" if right else "left", width=width, overflow="fold")
    for row in cells:
        grid.add_row(*(Text(cell) for cell in row))
    console = Console(width=max(20, sum(widths) + gap * len(widths) + 1), highlight=False)
    with console.capture() as captured:  # printed as any text, so that a closed pipe is the same for all
        console.print(grid)
    total = sum(widths) + gap * (len(widths) - 1)
    lines = (line.rstrip() for line in captured.get().splitlines())
    print("\n".join(line[:total] if line.startswith(RULE) else line for line in lines))


def _print_blocks(columns: Sequence[str], cells: Cells, room: int) -> None:
    """Each row as its first cell and, below it, a line `column: value` for every other one."""
    import textwrap

    for row in cells:
        first = f"{columns[0]}: {row[0]}" if columns[0] else row[0]
        print("\n".join(textwrap.wrap(first, max(20, room), break_on_hyphens=False)))
        for name, cell in zip(columns[1:], row[1:], strict=True):
            line = f"{name}: {cell}" if name else cell
            if cell:
                print(textwrap.fill(line, max(20, room), initial_indent="  ", subsequent_indent="    ",
                                    break_on_hyphens=False))  # fmt: skip
