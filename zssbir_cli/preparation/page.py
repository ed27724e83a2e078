"""A sheet that lies askew on something darker: what is around it is no part of the drawing."""

import cv2
import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import UInt8

SMALL = 128
"""Longer side of the reduced image on which the sheet is found."""
DARK = 0.42
"""Darker than this share of the sheet's brightness is table (or ink); shadows on the sheet are lighter."""
BETWEEN = (0.34, 0.55)
MOST_BETWEEN = 0.1
"""Share of the image that may be about as dark as that: a table ends at the sheet's edge, a vignette fades."""
LIGHTEST_TABLE = 0.85
"""The same for a table that is seen in all four corners, where a shadow falls on some."""
VALLEY = 0.05
THICK = 0.055
"""Share of the side: a stroke is seldom that thick, and reaches a corner of the image still more seldom."""
MOST_BAYS = 0.1
"""Share of the table that may reach into the sheet's outline: a sheet has no bays, as a filled shape on black has."""
SMALLEST_SHEET = 0.3
"""Share of the image that the sheet takes at least."""
EDGE = 0.02
"""Share of the side by which the sheet is trimmed: its edge throws a shadow."""


def around_sheet(grey: UInt8) -> UInt8 | None:
    """A drawing, uint8 [H, W] -> 1 where the image shows what a light sheet lies on, else 0, uint8 [H, W]; None when
    there is nothing of the kind.

    There is when something dark, thicker than strokes, fills a corner of the image. The sheet is convex, so all that is
    light spans it, and strokes that run to its edge stay.
    """
    height, width = grey.shape
    scale = min(1.0, SMALL / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    bright = float(np.quantile(small, 1 - SMALLEST_SHEET / 2))
    level = _level(small, bright)
    if level is None:
        return None
    dark = (small < level).astype(np.uint8)
    light = cv2.morphologyEx(1 - dark, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(light, connectivity=8)
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] > 0.002 * small.size]
    points = cv2.findNonZero(np.isin(labels, large).astype(np.uint8))
    if points is None:
        return None
    sheet = np.zeros_like(small)
    cv2.fillConvexPoly(sheet, cv2.convexHull(points), 1)
    inside = small[sheet > 0]
    if len(inside) < SMALLEST_SHEET * small.size or float(np.median(inside)) < level:
        return None
    if _is_no_table(sheet, dark):
        return None
    edge = 2 * round(EDGE * min(small.shape)) + 1
    padded = cv2.copyMakeBorder(sheet, 1, 1, 1, 1, cv2.BORDER_REPLICATE)  # the sheet goes on beyond the image
    trimmed = cv2.erode(padded, np.ones((edge, edge), np.uint8), borderType=cv2.BORDER_REPLICATE)[1:-1, 1:-1]
    outside = np.asarray(cv2.resize(1 - trimmed, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)
    return outside if outside.any() else None


def _level(small: UInt8, bright: float) -> float | None:
    """The brightness that parts the sheet from what it lies on; None when there seems to be only one of them."""
    between = cv2.inRange(small, BETWEEN[0] * bright, BETWEEN[1] * bright)
    if _dark_corners(small < DARK * bright) and cv2.countNonZero(between) <= MOST_BETWEEN * small.size:
        return DARK * bright
    paper = cv2.dilate(small, np.ones((5, 5), np.uint8))  # without strokes
    level = float(cv2.threshold(paper, 0, 1, cv2.THRESH_OTSU)[0])
    if level > LIGHTEST_TABLE * bright or _dark_corners(paper < level) < 4:
        return None
    valley = cv2.inRange(paper, level - VALLEY * bright, level + VALLEY * bright)
    return level if cv2.countNonZero(valley) <= MOST_BETWEEN / 2 * small.size else None


def _is_no_table(sheet: UInt8, dark: UInt8) -> bool:
    """Whether what is dark around the sheet reaches into its convex outline, as around a finger or a filled shape, or is
    nothing but strokes."""
    thick = cv2.morphologyEx(dark, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))  # without strokes
    labels = cv2.connectedComponents(thick, connectivity=4)[1]
    table = np.isin(labels, np.unique(labels[(sheet == 0) & (thick > 0)])) & (thick > 0)
    return bool(np.count_nonzero(table & (sheet > 0)) >= MOST_BAYS * np.count_nonzero(table & (sheet == 0)))


def _dark_corners(dark: npt.NDArray[np.bool_]) -> int:
    """How many corners of the image have a square, of the thickness of no stroke, that is dark or nearly."""
    side = max(3, round(THICK * min(dark.shape)))
    corners = (dark[:side, :side], dark[:side, -side:], dark[-side:, :side], dark[-side:, -side:])
    return sum(float(corner.mean()) > 0.6 for corner in corners)
