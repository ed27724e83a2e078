"""Drawings in colour -> grey, so that the strokes stand out of the paper whatever the two colours are."""

import cv2
import numpy as np

from zssbir_cli.arrays import UInt8
from zssbir_cli.data.jpeg import SIGNATURE, decode_jpeg
from zssbir_cli.data.png import bare_png
from zssbir_cli.errors import DataError

COLOURED = 40
"""Spread of red, green and blue (0-255) that is a colour, no tint of a scanner or a lamp."""
SMALL = 128
NAMES = ("red", "green", "blue")
WORSE = 0.5
"""Luminance is left when its strokes stand out this much less than those of the best channel."""


def drawing_of(rgb: UInt8) -> tuple[UInt8, str]:
    """A drawing in RGB, uint8 [H, W, 3] -> grey, uint8 [H, W], and the channel it is: luminance (""), or where that
    hides the strokes (yellow on white, red on green) the one that shows them best."""
    channel = _channel(rgb) if _is_coloured(rgb) else None
    if channel is None:
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8), ""
    return np.ascontiguousarray(rgb[..., channel]), f"{NAMES[channel]} channel taken"


def own_grey(raw: bytes, mode: str) -> tuple[UInt8, str]:
    """A JPEG or PNG of mode L or RGB as readers of a set decode it, or the channel of it, as `drawing_of`.

    Errors: DataError when it is damaged.
    """
    is_jpeg = raw[:2] == SIGNATURE
    if mode == "RGB":
        if not is_jpeg:
            rgb = _decoded(raw, cv2.IMREAD_COLOR_RGB)
            if np.array_equal(rgb[..., 0], rgb[..., 1]) and np.array_equal(rgb[..., 1], rgb[..., 2]):
                return np.ascontiguousarray(rgb[..., 1]), ""
            found, name = drawing_of(rgb)
        elif _is_coloured(decode_jpeg(raw, "RGB", factor=8)):
            found, name = drawing_of(decode_jpeg(raw, "RGB"))
        else:
            name = ""
        if name:
            return found, name
    return (decode_jpeg(raw, "GRAY") if is_jpeg else _decoded(raw, cv2.IMREAD_GRAYSCALE)), ""


def _decoded(raw: bytes, flags: int) -> UInt8:
    pixels = cv2.imdecode(bare_png(np.frombuffer(raw, np.uint8)), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise DataError("does not decode: damaged")
    return np.asarray(pixels, np.uint8)


def _is_coloured(rgb: UInt8) -> bool:
    every = max(1, max(rgb.shape) // SMALL)
    sample = rgb[::every, ::every]
    spread = sample.max(axis=2).astype(np.int16) - sample.min(axis=2)
    return bool(np.count_nonzero(spread > COLOURED) > 0.002 * spread.size)


def _channel(rgb: UInt8) -> int | None:
    """0, 1 or 2 where that channel separates strokes and paper much better than luminance, else None."""
    scale = SMALL / max(rgb.shape)
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = rgb if scale >= 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    views = np.dstack([small, cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)])
    wide = (min(views.shape[:2]) // 3) | 1
    apart = np.dstack([cv2.absdiff(v, cv2.medianBlur(v, wide)) for v in cv2.split(views)]).astype(np.float32)
    noise = np.median(apart, axis=(0, 1)) + 2
    strokes = (apart > 6 * noise).any(axis=2)
    if not strokes.any():
        return None
    contrast = np.quantile(apart[strokes], 0.75, axis=0) / noise
    best = int(np.argmax(contrast[:3]))
    return best if contrast[3] < WORSE * contrast[best] else None
