"""Painting helpers for backdrops, objects and scenes: noise, colours, blurs. Arrays are float32, 0-1."""

import colorsys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Plane = npt.NDArray[np.floating[Any]]
"""[H, W]."""

Picture = npt.NDArray[np.floating[Any]]
"""[H, W, 3]."""


def resized(plane: Plane, height: int, width: int) -> Plane:
    """A plane enlarged smoothly (bicubic)."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def noise(
    rng: np.random.Generator, height: int, width: int, cells: tuple[float, float], octaves: int = 3
) -> Plane:
    """Cloudy noise with about `cells` (rows, columns) blobs across, mean 0, about -1..1."""
    total = np.zeros((height, width), np.float32)
    strength = 1.0
    for octave in range(octaves):
        rows = int(np.clip(cells[0] * 2**octave, 1, height))
        columns = int(np.clip(cells[1] * 2**octave, 1, width))
        grid = rng.uniform(-1, 1, (rows + 2, columns + 2)).astype(np.float32)
        total += strength * resized(grid, height, width)
        strength *= 0.5
    return total


def softened(image: Image.Image, radius: float) -> Plane:
    """A grey image blurred (by three box filters), as a 0-1 plane."""
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def blurred(plane: Plane, radius: float) -> Plane:
    """A 0-1 plane blurred, in 8 bits."""
    return softened(Image.fromarray(np.asarray(plane * 255, dtype=np.uint8)), radius)


def hsv(hue: float, saturation: float, value: float) -> Plane:
    """A colour [3] from hue (wraps), saturation and value."""
    return np.asarray(
        colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0), 1), min(max(value, 0), 1)), np.float32
    )


def mix(a: Plane, b: Plane, t: Plane) -> Picture:
    """From colour (or picture) `a` to `b` by the plane `t` (clipped to 0-1)."""
    w = np.clip(t, 0, 1)[..., None]
    return np.asarray(a * (1 - w) + b * w, dtype=np.float32)


def luminance(colour: Plane) -> float:
    """Perceived brightness of a colour [3], 0-1."""
    return float(colour @ np.array([0.299, 0.587, 0.114], np.float32))


def grid(height: int, width: int) -> tuple[Plane, Plane]:
    """Coordinates y and x of the pixels, 0-1 across the longer side."""
    side = max(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / side
    return y, x
