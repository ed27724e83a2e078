"""What a photo looks like in 64 grey values, and which photos look the same: one picture, saved again."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from zssbir_cli.arrays import Ints, UInt8
from zssbir_cli.data.jpeg import decode_jpeg

SIDE = 8
VALUES = SIDE * SIDE
ENOUGH = 20
"""Pixels of the shorter side from which the values are taken, at least. A photo that has fewer is not compared: its look
is that of a black one."""
ALIKE = 2.5
"""Grey levels (of 255, root mean square over the values) by which two looks of one picture differ at most. Copies of
photos as JPEG of quality 50 to 95, as PNG or WebP, and at a half to five times their size differ by 2.2 at most."""
SHARE = 0.1
"""The same as a share of the photo's contrast (the standard deviation of its values)."""
FLAT = 10.0
"""Photos of less contrast than this look like too many others, and are not compared."""
BLOCK = 256


class Alike(NamedTuple):
    """Two photos that look the same: the number of one in an earlier group, and of the other."""

    first: int
    again: int


def look_of_jpeg(raw: bytes, width: int, height: int) -> bytes:
    """The look of an upright JPEG of that size, which is decoded, every coefficient of it, as small as that allows.

    Errors: DataError: it does not decode.
    """
    factor = next((f for f in (8, 4, 2) if min(width, height) >= f * ENOUGH), 1)
    return _look(decode_jpeg(raw, "GRAY", factor=factor), width, height, factor)


def look_of(image: Image.Image) -> bytes:
    """The look of a loaded photo, grey or RGB: `VALUES` grey values of overlapping parts of it, row by row. Its shape
    counts for nothing: a photo squeezed to a square looks the same."""
    factor = max(1, min(image.size) // (2 * ENOUGH))
    smaller = image.reduce(factor) if factor > 1 else image
    return _look(np.asarray(smaller.convert("L")), *image.size, factor)


def _look(grey: UInt8, width: int, height: int, factor: int) -> bytes:
    """The look of pixels each of which stands for `factor` x `factor` of a photo (fewer at the far edges)."""
    if min(width, height) < ENOUGH:
        return bytes(VALUES)
    rows, columns = _shares(grey.shape[0], factor, height), _shares(grey.shape[1], factor, width)
    values = np.asarray(np.rint(rows @ grey.astype(np.float32) @ columns.T), np.uint8)
    return values.tobytes()


@lru_cache(256)
def _shares(pixels: int, factor: int, length: int) -> npt.NDArray[np.float32]:
    """float32 [SIDE, pixels]: what each pixel adds to each value. A value weighs a part of the side, and half of each
    neighbour's less and less, so that it depends little on where pixels begin and end."""
    edges = np.minimum(np.arange(pixels + 1) * factor, length) * (SIDE / length)
    middles, values = (edges[1:] + edges[:-1]) / 2, np.arange(SIDE)[:, None] + 0.5
    weights = np.clip(1 - abs(middles - values), 1e-6, None) * np.diff(edges)
    return np.asarray(weights / weights.sum(1, keepdims=True), np.float32)


def saved_again(looks: UInt8, group: Ints) -> list[Alike]:
    """For each photo that looks like ones of an earlier group (a smaller number): the most similar of those.

    looks: uint8 [n, VALUES]; group: int [n]. Flat photos are left out. Means of looks that are alike differ by `ALIKE` at
    most, so that in the order of means only neighbours are compared: a few percent of all pairs.
    """
    values = looks.astype(np.float32) - 128  # sums of their products are whole numbers that float32 holds
    mean, contrast = values.mean(1), values.std(1)
    order = np.argsort(mean, kind="stable")
    order = order[contrast[order] >= FLAT]
    found: list[Alike] = []
    for own in np.unique(group[order]).tolist():
        mine, others = order[group[order] == own], order[group[order] < own]
        means = mean[others]
        for block in np.array_split(mine, max(1, -(-len(mine) // BLOCK))):
            low, high = mean[block[0]] - ALIKE, mean[block[-1]] + ALIKE
            near = others[np.searchsorted(means, low) : np.searchsorted(means, high)]
            found += _nearest(values, block, near, contrast)
    return sorted(found, key=lambda pair: pair.again)


def _nearest(
    values: npt.NDArray[np.float32], mine: Ints, others: Ints, contrast: npt.NDArray[np.float32]
) -> list[Alike]:
    """The nearest of `others` for each of `mine` that has one which is near enough."""
    limit = VALUES * np.minimum(ALIKE, SHARE * contrast[mine]) ** 2
    best, first = np.full(len(mine), np.inf, np.float32), np.zeros(len(mine), np.int64)
    one = values[mine]
    for start in range(0, len(others), BLOCK):
        other = values[others[start : start + BLOCK]]
        apart = np.square(one).sum(1)[:, None] + np.square(other).sum(1) - 2 * (one @ other.T)
        at = apart.argmin(1)
        least = apart[np.arange(len(mine)), at]
        first[least < best] = others[start + at][least < best]
        best = np.minimum(best, least)
    return [Alike(int(first[i]), int(mine[i])) for i in np.flatnonzero(best <= limit)]
