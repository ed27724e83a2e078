"""Pictures of what retrieval finds: a sketch and its top photos, hits and misses marked."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw

from zssbir_cli.errors import UsageError
from zssbir_cli.viz.canvas import (
    HIT,
    INK,
    MISS,
    MUTED,
    PAPER,
    RULE,
    Array,
    badge,
    fitted,
    font,
    save_png,
    to_image,
)

_TILE = 116
_GAP = 10
_EDGE = 4
_TEXT = 18
_HEAD = 66


class Found(NamedTuple):
    """A retrieved photo: uint8 [H, W, 3]; its class; its score; whether it is right (None = not known)."""

    photo: Array
    label: str
    score: float
    hit: bool | None


class GalleryRow(NamedTuple):
    """A query sketch (uint8 [H, W] or [H, W, 3]), its class, and the photos found, best first."""

    query: Array
    label: str
    found: Sequence[Found]


def save_gallery(
    path: Path, rows: Sequence[GalleryRow], title: str = "Sketch → photos", subtitle: str = ""
) -> Path:
    """Draw one line per query: the sketch, then its photos, hits with a green frame and a tick, misses with a
    red frame and a cross; below each its class and score. Writes a PNG and returns its path.

    Raises UsageError when there is nothing to draw, DataError when `path` cannot be written.
    """
    if not rows or not any(row.found for row in rows):
        raise UsageError("a gallery needs at least one query with at least one photo")
    columns = max(len(row.found) for row in rows)
    step_x, step_y = _TILE + 2 * _EDGE + _GAP, _TILE + 2 * _EDGE + 2 * _TEXT + _GAP
    left = 2 * _GAP + step_x + 2 * _GAP
    size = (left + columns * step_x + _GAP, _HEAD + len(rows) * step_y + _GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((2 * _GAP, 14), fitted(draw, title, size[0] - 4 * _GAP, font(20, True)), INK, font(20, True))
    draw.text((2 * _GAP, 40), fitted(draw, subtitle, size[0] - 4 * _GAP, font(12)), MUTED, font(12))
    for number, row in enumerate(rows):
        y = _HEAD + number * step_y
        if number:
            draw.line((2 * _GAP, y - _GAP, size[0] - 2 * _GAP, y - _GAP), fill=RULE)
        _tile(sheet, draw, row.query, 2 * _GAP, y, RULE)
        _caption(draw, 2 * _GAP, y, row.label, "query sketch", bold=True)
        for rank, found in enumerate(row.found):
            x = left + rank * step_x
            frame = RULE if found.hit is None else HIT if found.hit else MISS
            _tile(sheet, draw, found.photo, x, y, frame)
            _caption(draw, x, y, found.label, f"{rank + 1}.  {found.score:.3f}")
            if found.hit is not None:
                badge(draw, x + _TILE + _EDGE - 9, y + _EDGE + 11, 12, found.hit)
    return save_png(sheet, path)


def _tile(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, picture: Array, x: int, y: int, frame: tuple[int, int, int]
) -> None:
    outer = _TILE + 2 * _EDGE
    draw.rounded_rectangle((x, y, x + outer - 1, y + outer - 1), radius=5, fill=frame)
    sheet.paste(to_image(picture, _TILE), (x + _EDGE, y + _EDGE))


def _caption(draw: ImageDraw.ImageDraw, x: int, y: int, label: str, note: str, bold: bool = False) -> None:
    below = y + _TILE + 2 * _EDGE + 3
    draw.text((x + 2, below), fitted(draw, label, _TILE, font(12, bold)), INK, font(12, bold))
    draw.text((x + 2, below + _TEXT - 3), fitted(draw, note, _TILE, font(11)), MUTED, font(11))
