"""A thin frame in the margin of a sheet, around the whole drawing: taken away."""

import cv2
import numpy as np

from zssbir_cli.arrays import UInt8

INK = 224
"""Darker than this is a line."""
MARGIN = 0.15
"""Share of the side within which a frame lies."""
THICKEST = 0.03
TOUCHING = 0.002
"""Share of the gap inside of a frame that may be inked (specks of a JPEG); more belongs to a drawing that touches it."""
LONGEST_STROKE = 0.8
"""A row that is inked for this share of its length may belong to a frame; strokes seldom do."""


def without_frame(page: UInt8) -> UInt8 | None:
    """Dark ink on white, uint8 [H, W] -> the same without its frame; None when there is none.

    A frame is a thin rectangle, straight along the sides of the image, with nothing outside of it and a gap inside. It is
    taken for a part of the drawing where what it surrounds is a rectangle too: a window, a screen.
    """
    ink = np.asarray(cv2.threshold(page, INK - 1, 1, cv2.THRESH_BINARY_INV)[1], np.uint8)
    rows, columns = _sides(ink), _sides(np.ascontiguousarray(ink.T))
    if rows is None or columns is None:
        return None
    (top, inner_top, inner_bottom, bottom), (left, inner_left, inner_right, right) = rows, columns
    outside = ink.copy()
    outside[top:bottom, left:right] = 0
    inside = ink[inner_top:inner_bottom, inner_left:inner_right]
    gap = max(1, round(0.01 * min(page.shape)))
    content = inside[gap:-gap, gap:-gap]
    around = cv2.countNonZero(inside) - cv2.countNonZero(np.ascontiguousarray(content))
    if cv2.countNonZero(outside) or around > TOUCHING * 2 * gap * sum(inside.shape):
        return None
    if not content.any() or _is_rectangle(content):
        return None
    out = np.full_like(page, 255)
    within = np.s_[inner_top:inner_bottom, inner_left:inner_right]
    out[within] = page[within]
    return out


def _sides(ink: UInt8) -> tuple[int, int, int, int] | None:
    """Where the upper and lower line of a frame begin and end, with a row beside each for soft edges: upper line
    [a, b), lower line [c, d) as (a, b, c, d); None when there are none."""
    height, width = ink.shape
    inked = ink.sum(axis=1, dtype=np.int64)
    long = np.flatnonzero(inked >= LONGEST_STROKE * width)
    upper, lower = long[long < MARGIN * height], long[long >= (1 - MARGIN) * height]
    if not len(upper) or not len(lower) or len(upper) + len(lower) < len(long):
        return None
    thick = max(2, round(THICKEST * height))
    if np.ptp(upper) >= thick or np.ptp(lower) >= thick:
        return None
    return max(0, int(upper[0]) - 2), int(upper[-1]) + 3, int(lower[0]) - 2, min(height, int(lower[-1]) + 3)


def _is_rectangle(ink: UInt8) -> bool:
    """Whether the outline of what is drawn is a straight rectangle."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    thick = max(2, round(THICKEST * min(box.shape)))
    sides = (box[:thick].any(0), box[-thick:].any(0), box[:, :thick].any(1), box[:, -thick:].any(1))
    return all(float(side.mean()) > 0.9 for side in sides)
