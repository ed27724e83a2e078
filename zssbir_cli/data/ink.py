"""Sketch polarity and transparency on numpy arrays: any drawing becomes dark ink on white."""

import numpy as np
import numpy.typing as npt

UInt8 = npt.NDArray[np.uint8]


def dark_on_white(grey: UInt8) -> UInt8:
    """Invert a grey image [H, W] whose border is mostly dark."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return 255 - grey if float(border.mean()) < 127.5 else grey


def flatten(grey: UInt8, alpha: UInt8) -> UInt8:
    """Lay a transparent sketch [H, W] with its alpha [H, W] on white; light strokes drawn on nothing are
    made dark first."""
    weight = alpha.astype(np.float32) / 255
    total = float(weight.sum())
    light_ink = total > 0 and float((grey * weight).sum()) / total > 127.5
    if light_ink and float(weight.mean()) < 0.5:
        return np.rint(255 - grey * weight).astype(np.uint8)
    return dark_on_white(np.rint(grey * weight + 255 * (1 - weight)).astype(np.uint8))
