"""What all pictures share: colours, tiles, and writing a file whole."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from zssbir_cli import files
from zssbir_cli.arrays import Array
from zssbir_cli.errors import UsageError

INK = (32, 36, 44)
MUTED = (96, 104, 116)
RULE = (222, 226, 232)
PAPER = (255, 255, 255)
HIT = (0, 138, 94)
MISS = (205, 62, 40)

Colour = tuple[int, int, int]


def to_image(pixels: Array, side: int) -> Image.Image:
    """uint8 [H, W], [H, W, 1] or [H, W, 3] -> an RGB image that fits into a white square of `side` pixels.

    Raises UsageError for another shape or type.
    """
    grey = pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)
    if pixels.dtype != np.uint8 or not (grey or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise UsageError(f"a picture must be uint8 [H, W] or [H, W, 3], not {pixels.dtype} {pixels.shape}")
    flat = pixels.reshape(pixels.shape[:2]) if grey else pixels
    image = Image.fromarray(np.ascontiguousarray(flat)).convert("RGB")
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    square = Image.new("RGB", (side, side), PAPER)
    square.paste(image.resize(size, Image.Resampling.LANCZOS), ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def badge(draw: ImageDraw.ImageDraw, x: float, y: float, radius: int, hit: bool) -> None:
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


def save_image(image: Any, path: Path) -> Path:
    """Write a PIL image as PNG, whole or not at all; returns `path`. Raises DataError."""
    with files.writing(path), files.replacing(path) as partial:
        image.save(partial, "PNG")
    return path
