"""What the pictures share: font, colours, image conversion, text that fits."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from zssbir_cli.errors import DataError, UsageError

INK = (32, 36, 44)
MUTED = (112, 120, 132)
RULE = (222, 226, 232)
PAPER = (255, 255, 255)
HIT = (0, 138, 94)
MISS = (205, 62, 40)

Array = npt.NDArray[np.generic]


@lru_cache
def font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along, so that pictures look the same everywhere."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def to_image(pixels: Array, side: int) -> Image.Image:
    """uint8 [H, W] or [H, W, 3] -> an RGB image that fits into a white square of `side` pixels.

    Raises UsageError for another shape or type.
    """
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise UsageError(f"a picture must be uint8 [H, W] or [H, W, 3], not {pixels.dtype} {pixels.shape}")
    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(image.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int, face: ImageFont.FreeTypeFont) -> str:
    """`text`, cut short with an ellipsis where it is wider than `width` pixels."""
    text = " ".join(text.replace("_", " ").split())
    if draw.textlength(text, font=face) <= width:
        return text
    while text and draw.textlength(text + "…", font=face) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def badge(draw: ImageDraw.ImageDraw, x: int, y: int, radius: int, hit: bool) -> None:
    """A round mark at the centre (x, y): green with a tick, or red with a cross."""
    r, w = radius, max(2, radius // 3)
    draw.ellipse((x - r, y - r, x + r, y + r), fill=HIT if hit else MISS, outline=PAPER, width=max(1, w // 2))
    s = r * 0.45
    if hit:
        draw.line(
            (x - s, y + 0.1 * s, x - 0.2 * s, y + 0.8 * s, x + s, y - 0.7 * s),
            fill=PAPER, width=w, joint="curve",
        )  # fmt: skip
    else:
        for sign in (-1, 1):
            draw.line((x - s * 0.85, y - sign * s * 0.85, x + s * 0.85, y + sign * s * 0.85), PAPER, w)


def save_png(image: Any, path: Path) -> Path:
    """Write a PIL image as PNG, whole or not at all; returns `path`. Raises DataError."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(partial, "PNG")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return path
