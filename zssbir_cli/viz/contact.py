"""A contact sheet: one row per class, sketches on the left, photos on the right."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

UInt8 = npt.NDArray[np.uint8]
TILE, GAP, NAME, HEAD = 96, 6, 190, 40
COLOURS = {"seen": (70, 110, 180), "val": (190, 140, 40), "unseen": (180, 70, 70)}


@dataclass(frozen=True)
class SheetRow:
    """A class with some of its images, uint8 [H, W, 1] or [H, W, 3]."""

    name: str
    role: str
    sketches: Sequence[UInt8]
    photos: Sequence[UInt8]


def draw_sheet(rows: Sequence[SheetRow], path: Path, *, title: str, per_class: int) -> None:
    """Write the sheet as PNG."""
    width = NAME + 2 * per_class * (TILE + GAP) + 3 * GAP
    sheet = Image.new("RGB", (width, HEAD + len(rows) * (TILE + GAP) + GAP), (250, 250, 248))
    pen = ImageDraw.Draw(sheet)
    pen.text((GAP * 2, 12), title, fill=(30, 30, 30), font=ImageFont.load_default(16))
    for number, row in enumerate(rows):
        top = HEAD + number * (TILE + GAP)
        colour = COLOURS.get(row.role, (90, 90, 90))
        pen.rectangle((0, top, 5, top + TILE), fill=colour)
        pen.text(
            (GAP * 3, top + TILE // 2 - 18),
            _short(row.name),
            fill=(30, 30, 30),
            font=ImageFont.load_default(14),
        )
        pen.text((GAP * 3, top + TILE // 2 + 2), row.role, fill=colour, font=ImageFont.load_default(12))
        for images, left in ((row.sketches, NAME), (row.photos, NAME + per_class * (TILE + GAP) + 2 * GAP)):
            for i, image in enumerate(images[:per_class]):
                sheet.paste(_tile(image), (left + i * (TILE + GAP), top))
    sheet.save(path, "PNG")


def _short(name: str) -> str:
    text = "".join(c if c.isprintable() else "?" for c in name)
    return text if len(text) <= 22 else text[:21] + "…"


def _tile(image: UInt8) -> Image.Image:
    """The image fitted into a square tile on white."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).convert("RGB")
    picture.thumbnail((TILE, TILE), Image.Resampling.BICUBIC)
    tile = Image.new("RGB", (TILE, TILE), (255, 255, 255))
    tile.paste(picture, ((TILE - picture.width) // 2, (TILE - picture.height) // 2))
    return tile
