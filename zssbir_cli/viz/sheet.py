"""The one contact sheet: rows of captioned tiles, as a PNG whose size fits what it shows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Literal

from PIL import Image, ImageDraw

from zssbir_cli.arrays import UInt8
from zssbir_cli.errors import UsageError
from zssbir_cli.viz.canvas import HIT, INK, MISS, MUTED, PAPER, RULE, Colour, badge, save_image, to_image
from zssbir_cli.viz.fonts import draw_text, drawable, fitted, shortened, text_width, wrapped

Mark = Literal["", "query", "hit", "miss"]
MARGIN, GAP, APART, EDGE, LINE = 20, 10, 26, 4, 17
NAME, NOTE, TITLE, BODY = 12, 11, 20, 12
LEAST, LABEL = 480, (70, 190)
"""Least width of a sheet; least and greatest width of the rows' names."""
FRAME: dict[str, Colour] = {"": RULE, "query": INK, "hit": HIT, "miss": MISS}


@dataclass(frozen=True)
class Tile:
    """A picture with its caption, for a sheet or a page.

    image: uint8 [H, W] or [H, W, 3], None when there is none any more. name: class or file. note: a line below it,
    such as the score. rank: place from 1, 0 = none. mark: whether it is right. link: address of the original, for
    pages. spare: shown instead of a name that no font here can draw. folder: where the file lies, a line above its name.
    """

    image: UInt8 | None
    name: str = ""
    note: str = ""
    rank: int = 0
    mark: Mark = ""
    link: str = ""
    spare: str = ""
    folder: str = ""

    @property
    def path(self) -> str:
        """The name, with its folder."""
        return f"{self.folder}/{self.name}" if self.folder else self.name

    @property
    def alt(self) -> str:
        """The picture in words."""
        said = {"": "", "query": "query", "hit": "right class", "miss": "another class"}[self.mark]
        parts = (f"rank {self.rank}" if self.rank else "", self.path, self.note, said)
        return ", ".join(p for p in parts if p)


@dataclass(frozen=True)
class Row:
    """Tiles side by side, in groups set apart from one another; left of them a name with a note, if any."""

    groups: Sequence[Sequence[Tile]]
    name: str = ""
    note: str = ""
    spare: str = ""
    colour: Colour | None = None


def save_sheet(
    path: Path,
    rows: Sequence[Row],
    *,
    title: str,
    subtitle: str = "",
    heads: Sequence[str] = (),
    side: int = 116,
    per_line: int = 10,
) -> Path:
    """Draw the rows below one another and write a PNG; returns `path`.

    heads: a heading for each group. side: of a tile, in pixels. per_line: most tiles of a group side by side;
    further ones go to the next line. Right and wrong tiles have green and red frames with a tick or a cross, and
    a legend says so. Raises UsageError when there is nothing to draw, DataError when `path` cannot be written.
    """
    if not any(tile for row in rows for group in row.groups for tile in group):
        raise UsageError("a contact sheet needs at least one picture")
    return save_image(_Sheet(rows, title, subtitle, heads, side, per_line).drawn(), path)


class _Sheet:
    """Measures first, then draws."""

    def __init__(
        self, rows: Sequence[Row], title: str, subtitle: str, heads: Sequence[str], side: int, per_line: int
    ) -> None:
        self.rows, self.heads, self.side = rows, heads, side
        tiles = [t for row in rows for group in row.groups for t in group]
        self.named, self.noted = any(t.name for t in tiles), any(t.note or t.rank for t in tiles)
        self.placed = any(t.folder for t in tiles)
        self.marked = any(t.mark in ("hit", "miss") for t in tiles)
        self.outer = side + 2 * EDGE
        self.cell = (
            self.outer + (self.named + self.placed + self.noted) * LINE + GAP + (self.named or self.noted) * 4
        )
        count = max(len(row.groups) for row in rows)
        sizes = [[len(row.groups[g]) for row in rows if g < len(row.groups)] for g in range(count)]
        self.columns = [max(1, min(per_line, max(size))) for size in sizes]
        self.label = self._label()
        self.width = max(LEAST, self._left(count) - APART + MARGIN)
        room = self.width - 2 * MARGIN
        self.title, self.subtitle = wrapped(title, room, TITLE, True, 2), wrapped(subtitle, room, BODY)
        self.top = MARGIN + 27 * len(self.title) + LINE * len(self.subtitle) + 24 * self.marked + GAP

    def drawn(self) -> Image.Image:
        tall = [self._height(row) for row in self.rows]
        below = self.top + (LINE + 4) * bool(self.heads)
        sheet = Image.new("RGB", (self.width, below + sum(tall) + MARGIN - GAP), PAPER)
        pen = ImageDraw.Draw(sheet)
        self._header(pen)
        y = below
        for number, (row, height) in enumerate(zip(self.rows, tall, strict=True)):
            if number and (self.named or self.noted):
                pen.line((MARGIN, y - GAP, self.width - MARGIN, y - GAP), fill=RULE)
            self._row(sheet, pen, row, y)
            y += height
        return sheet

    def _label(self) -> int:
        """Width of the rows' names with the room behind them; 0 when they have none."""
        if not any(row.name for row in self.rows):
            return 0
        wide = max(
            max(text_width(drawable(r.name, r.spare), NAME, True), text_width(drawable(r.note), NOTE))
            for r in self.rows
        )
        return ceil(min(max(wide, LABEL[0]), LABEL[1])) + APART

    def _left(self, group: int) -> int:
        """Where a group begins."""
        return MARGIN + self.label + sum(n * (self.outer + GAP) - GAP + APART for n in self.columns[:group])

    def _height(self, row: Row) -> int:
        lines = [-(-len(g) // n) for g, n in zip(row.groups, self.columns, strict=False)]
        return max(1, *lines) * self.cell if lines else self.cell

    def _header(self, pen: ImageDraw.ImageDraw) -> None:
        y = MARGIN - 4
        for line in self.title:
            draw_text(pen, (MARGIN, y), line, TITLE, INK, bold=True)
            y += 27
        for line in self.subtitle:
            draw_text(pen, (MARGIN, y), line, BODY, MUTED)
            y += LINE
        if self.marked:
            x = MARGIN + 8.0
            for hit, text in ((True, "right class"), (False, "another class")):
                badge(pen, x, y + 12, 8, hit)
                draw_text(pen, (x + 14, y + 4), text, BODY, MUTED)
                x += 14 + text_width(text, BODY) + APART
        for group, head in enumerate(self.heads):
            room = self.columns[group] * (self.outer + GAP) - GAP
            draw_text(pen, (self._left(group), self.top - 2), fitted(head, room, BODY), BODY, MUTED)

    def _row(self, sheet: Image.Image, pen: ImageDraw.ImageDraw, row: Row, y: int) -> None:
        if self.label:
            self._name(pen, row, y)
        for tile, x, down in self._places(row):
            frame = FRAME[tile.mark]
            pen.rounded_rectangle(
                (x, y + down, x + self.outer - 1, y + down + self.outer - 1), radius=5, fill=frame
            )
            if tile.image is not None:
                sheet.paste(to_image(tile.image, self.side), (x + EDGE, y + down + EDGE))
            else:
                missing = fitted("no picture", self.side, NOTE)
                draw_text(pen, (x + 2 * EDGE, y + down + self.outer / 2 - 8), missing, NOTE, MUTED)
            self._caption(pen, tile, x, y + down + self.outer + 3)
            if tile.mark in ("hit", "miss"):
                badge(pen, x + self.outer - 13, y + down + 15, 12, tile.mark == "hit")

    def _places(self, row: Row) -> Iterator[tuple[Tile, int, int]]:
        """Each tile with its left edge and its distance from the row's top."""
        for group, tiles in enumerate(row.groups):
            for place, tile in enumerate(tiles):
                line, column = divmod(place, self.columns[group])
                yield tile, self._left(group) + column * (self.outer + GAP), line * self.cell

    def _name(self, pen: ImageDraw.ImageDraw, row: Row, y: int) -> None:
        room, middle = self.label - APART, y + self.outer // 2
        if row.colour is not None:
            pen.rectangle((MARGIN - 12, y, MARGIN - 8, y + self.outer - 1), fill=row.colour)
        name = drawable(row.name, row.spare)
        lines = wrapped(name, room, NAME, True)
        notes = [line for part in row.note.split("\n") for line in wrapped(part, room, NOTE)]
        top = middle - LINE * (len(lines) + len(notes)) / 2
        for number, line in enumerate(lines + notes):
            head = number < len(lines)
            colour = INK if head else row.colour or MUTED
            draw_text(pen, (MARGIN, top + number * LINE), line, NAME if head else NOTE, colour, bold=head)

    def _caption(self, pen: ImageDraw.ImageDraw, tile: Tile, x: int, y: int) -> None:
        bold = tile.mark == "query"
        room = self.outer - 4
        if self.placed:
            folder = shortened(drawable(tile.folder), lambda part: text_width(part, NOTE) <= room)
            draw_text(pen, (x + 2, y), folder, NOTE, MUTED)
            y += LINE - 1
        if self.named:
            name = shortened(
                drawable(tile.name, tile.spare), lambda part: text_width(part, NAME, bold) <= room
            )
            draw_text(pen, (x + 2, y), name, NAME, INK, bold=bold)
            y += LINE - 1
        note = f"{tile.rank}.  {tile.note}" if tile.rank else tile.note
        draw_text(pen, (x + 2, y), fitted(note, room, NOTE), NOTE, MUTED)
