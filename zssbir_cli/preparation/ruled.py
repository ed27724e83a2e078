"""Ruled and squared paper: its evenly spaced lines are taken out of a drawing."""

import cv2
import numpy as np

from zssbir_cli.arrays import Float32

SLOPES = (0.0, -0.005, 0.005, -0.01, 0.01, -0.015, 0.015, -0.02, 0.02, -0.03, 0.03)
"""Inclinations that are tried: a sheet is seldom scanned quite straight."""
FAINTEST_LINE = 0.03
FEWEST_LINES = 4


def without_lines(dark: Float32) -> Float32 | None:
    """Darkness of a drawing on its ground, [H, W] (0 = paper, 1 = black) -> the same without ruled lines, None when
    there are none.

    A line is where most of a row is dark, with a regular distance to the next; a stroke that crosses it stays.
    """
    rows = _without_rows(dark)
    columns = _without_rows(np.ascontiguousarray((dark if rows is None else rows).T))
    return rows if columns is None else np.ascontiguousarray(columns.T)


def _without_rows(dark: Float32) -> Float32 | None:
    slope = max(SLOPES, key=lambda s: _sharpness(dark, s))
    pad = int(abs(slope) * dark.shape[1] / 2) + 2
    tall = cv2.copyMakeBorder(dark, pad, pad, 0, 0, cv2.BORDER_CONSTANT, value=0)
    straight = _sheared(np.asarray(tall, np.float32), slope)
    level = _model(np.median(straight, axis=1))
    if level is None or not _reach_the_edges(straight, level):
        return None
    spread = np.repeat(level[:, None], dark.shape[1], 1).astype(np.float32)
    lines = _sheared(spread, -slope)[pad:-pad]
    rest = np.where(lines > 0, np.where(dark > 1.5 * lines + 0.02, dark, np.minimum(dark, 0)), dark)
    bridged = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return np.asarray(np.where(lines > 0, np.minimum(dark, bridged), rest), np.float32)


def _reach_the_edges(dark: Float32, level: Float32) -> bool:
    """Whether half of the lines run from edge to edge, as those of paper do: even strokes (a fence, shelves) end before.
    `level` is of three rows a line, of which one or more are inked."""
    lines, wide = dark[level > 0], max(2, dark.shape[1] // 100)
    ends = (np.median(lines[:, :wide], axis=1), np.median(lines[:, -wide:], axis=1))
    return all(np.mean(end > FAINTEST_LINE) > 0.5 / 3 for end in ends)


def _model(level: Float32) -> Float32 | None:
    """Darkness of the lines, row by row, from the rows' medians; None when they are not regular."""
    candidates = level[level > FAINTEST_LINE]
    if len(candidates) < FEWEST_LINES:
        return None
    usual_level = float(np.median(candidates))
    found = level > max(FAINTEST_LINE, 0.4 * usual_level)
    level = np.minimum(level, 1.3 * usual_level)  # a long stroke along a line is darker, and stays
    rows = np.flatnonzero(found)
    lines = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    middles = np.array([line.mean() for line in lines])
    gaps = np.diff(middles)
    if len(lines) < FEWEST_LINES or max(map(len, lines)) > 0.5 * np.median(gaps):
        return None
    usual = float(np.median(gaps))
    if usual < 3 or np.mean(np.abs(gaps - usual) < 0.15 * usual + 1) < 0.7:
        return None
    model = np.where(found, level, 0).astype(np.float32)
    for more in (middles[0] - usual, middles[-1] + usual):  # seen in part only, on an inclined sheet
        model[[i for i in (int(more), round(more) + 1) if 0 <= i < len(model)]] = level[found].max()
    return np.asarray(cv2.dilate(model[:, None], np.ones((3, 1), np.uint8)).ravel(), np.float32)


def _sharpness(dark: Float32, slope: float) -> float:
    level = np.median(_sheared(dark, slope)[:, :: max(1, dark.shape[1] // 64)], axis=1)
    return float((np.maximum(level, 0) ** 2).sum())


def _sheared(dark: Float32, slope: float) -> Float32:
    """Every column moved down by `slope` times its distance from the middle."""
    if slope == 0:
        return dark
    height, width = dark.shape
    matrix = np.array([[1, 0, 0], [slope, 1, -slope * width / 2]], np.float32)
    moved = cv2.warpAffine(
        dark, matrix, (width, height), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(moved, np.float32)
