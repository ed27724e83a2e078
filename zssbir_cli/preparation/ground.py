"""The ground of a drawing: whatever it was drawn on, dark ink on white comes out.

Decided once, when a picture is cleaned. A drawing that is on white already is returned as it is, bit for bit.
For all others: what a sheet lies on, strips and frames at the edges are cut off, the polarity is found (chalk on a
board), the image is divided by its local ground (shadows, vignettes, grey or coloured paper), ruled lines are taken
out, and of what is darker than the paper's noise the connected strokes are kept.
"""

from typing import NamedTuple

import cv2
import numpy as np

from zssbir_cli.arrays import Float32, Int32, UInt8
from zssbir_cli.preparation.framed import LONGEST_STROKE, without_frame
from zssbir_cli.preparation.page import EDGE, around_sheet
from zssbir_cli.preparation.ruled import without_lines

WHITE = 248
"""From here on a pixel is white paper."""
SMALL = 128
"""Longer side of the reduced image on which the ground is found."""
STEP = 30
"""Smallest step in grey values (0-255) between a strip at the edge and the paper."""
DEEPEST_STRIP = 0.2
"""Share of the side that a strip or frame at the edge may take."""
DARKEST_GROUND = 0.3
"""Ground of this share of the brightest paper around or less is ink: a filled shape, no shadow."""
UNEVEN = 0.05
"""Share of the brightness by which a fifth of the paper may be off a smooth surface."""
LEAST_CONTRAST = 0.05
"""Darkness (0-1) of the faintest stroke on a ground without noise."""
NOTE = "ground made white"
FRAME = "frame removed"
INVERTED = "light on dark: inverted"
STRENGTHENED = "faint strokes made dark"
SMALLEST_SHEET = 96
"""On a smaller image strokes are mostly soft edge: what is nearly white there is no ground."""


class _Box(NamedTuple):
    """Rows [top, bottom) and columns [left, right) of the paper."""

    top: int
    bottom: int
    left: int
    right: int


def on_white(grey: UInt8) -> tuple[UInt8, str]:
    """A drawing on any ground, uint8 [H, W] -> dark ink on white, uint8 [H, W], and what was done ("" = nothing,
    and the same array)."""
    plain, rectangle = _look(grey)
    if rectangle and (page := without_frame(grey)) is not None:
        white, done = on_white(page)
        return white, f"{FRAME}, {done}" if done else FRAME
    if plain:
        return grey, ""
    around = around_sheet(grey)
    light = np.asarray(255 - grey, np.uint8)
    plain, rectangle = _look(light)
    if (plain or rectangle) and not _is_framed(grey, around):
        page = without_frame(light) if rectangle else None
        if page is not None:
            return page, f"{INVERTED}, {FRAME}"
        if plain:
            return light, INVERTED
    if min(grey.shape) < 24 or int(grey.max()) - int(grey.min()) < 8:
        return _without_ground(grey)
    white, done = _cleared(grey, around)
    page = without_frame(white) if done else None
    return (white, done) if page is None else (page, f"{done}, {FRAME}")


def strengthened(page: UInt8) -> UInt8:
    """A drawing on white, uint8 [H, W], whose darkest strokes are faint -> the same with dark ones."""
    dark = 1 - page / max(float(np.median(page)), 1.0)
    return _inked(np.asarray(dark, np.float32))


def _cleared(grey: UInt8, around: UInt8 | None) -> tuple[UInt8, str]:
    """`on_white` of a drawing that is not plainly on white; `around`: what `around_sheet` finds."""
    box = _paper(grey)
    if around is not None and _is_outside(around, box):
        around = None  # strips are cut off more closely than a sheet
    if around is not None:  # filled with the sheet's own brightness, which is then the ground there too
        grey = np.where(around > 0, np.uint8(np.median(grey[around == 0])), grey)
        box = _paper(grey)
    whole = box == (0, grey.shape[0], 0, grey.shape[1])
    cut = grey[box.top : box.bottom, box.left : box.right]
    light = _is_light_on_dark(_reduced(cut))
    cut = np.asarray(255 - cut if light else cut, np.uint8)
    ground = _ground(_reduced(cut))
    dark = _darkness(cut, ground)
    unruled = without_lines(dark)
    if around is None and unruled is None and not light and whole and float(ground.min()) >= WHITE:
        return grey, ""
    out = np.full(grey.shape, 255, np.uint8)
    out[box.top : box.bottom, box.left : box.right] = _inked(dark if unruled is None else unruled)
    if around is not None:
        out[around > 0] = 255
    cut_off = around is not None or not whole
    more = (("light on dark", light), ("edges cut off", cut_off), ("lines removed", unruled is not None))
    return out, ", ".join([NOTE, *(what for what, so in more if so)])


def _without_ground(grey: UInt8) -> tuple[UInt8, str]:
    """What is too small or too even for a ground to be found: one level is the paper."""
    if int(grey.max()) - int(grey.min()) < 8:
        return np.full_like(grey, 255), NOTE
    return (grey, "") if float(np.median(grey)) > 127 else (255 - grey, INVERTED)


def _look(grey: UInt8) -> tuple[bool, bool]:
    """Whether the paper is plainly white, and whether there may be a frame around the drawing.

    White: nearly all of the border is, hardly anything is nearly white, and no row or column is inked from side to side.
    """
    height, width = grey.shape
    across, down = _white_pixels(grey)
    least, lowest = int(across.min()) / width, int(down.min()) / height
    rectangle = least < 1 - LONGEST_STROKE and lowest < 1 - LONGEST_STROKE
    small = min(height, width) < SMALLEST_SHEET
    if small:
        across, down = _white_pixels(np.asarray(cv2.dilate(grey, np.ones((5, 5), np.uint8)), np.uint8))
    border = (int(across[0]) + int(across[-1]) + int(down[0]) + int(down[-1])) / (2 * (height + width))
    if small:
        return border > 0.7 and int(across.sum()) > 0.7 * grey.size, rectangle
    if border < 0.9:
        return False, False
    count = int(across.sum())
    if count < 0.75 * grey.size:  # quick, and enough for most; else of what is no ink
        _, light = cv2.threshold(grey, 127, 1, cv2.THRESH_BINARY)
        if count < 0.75 * cv2.countNonZero(light):
            return False, rectangle
    return least > 0.08 and lowest > 0.08, rectangle


def _white_pixels(grey: UInt8) -> tuple[Int32, Int32]:
    """How many pixels of each row and of each column are white."""
    _, white = cv2.threshold(grey, WHITE - 1, 1, cv2.THRESH_BINARY)
    across = cv2.reduce(white, 1, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    down = cv2.reduce(white, 0, cv2.REDUCE_SUM, dtype=cv2.CV_32S)
    return np.asarray(across, np.int32).ravel(), np.asarray(down, np.int32).ravel()


def _is_framed(grey: UInt8, around: UInt8 | None) -> bool:
    """Whether what is dark at the edges is a frame around a drawing on light paper, or a table, not a ground."""
    if around is not None and _holds_strokes(grey, around):
        return True
    box = _paper(grey)
    height, width = grey.shape
    if not (box.top and box.left and box.bottom < height and box.right < width):
        return False
    inside = grey[box.top : box.bottom, box.left : box.right]
    return inside.size > 0 and float(np.median(inside)) > 127 and int(inside.min()) < 127


def _holds_strokes(grey: UInt8, around: UInt8) -> bool:
    """Whether there is something dark on a sheet that is no part of what is around it."""
    dark = cv2.inRange(grey, 0, 126)
    labels = cv2.connectedComponents(dark)[1]
    return bool(np.setdiff1d(labels[around == 0], labels[around > 0]).any())


def _is_outside(around: UInt8, box: _Box) -> bool:
    """Whether all that is around a sheet, but for what its edge is trimmed by, is in the strips around the box."""
    margin = round((EDGE + 2 / SMALL) * max(around.shape))
    height, width = around.shape
    strips = (box.top, box.left, height - box.bottom, width - box.right)
    top, left, bottom, right = (strip + margin if strip else 0 for strip in strips)
    return not around[top : height - bottom, left : width - right].any()


def _reduced(grey: UInt8) -> UInt8:
    scale = SMALL / max(grey.shape)
    if scale < 1:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(cv2.medianBlur(grey, 3), np.uint8)


def _paper(grey: UInt8) -> _Box:
    """The image without the strips at its edges: a scanner's lid, the table, a frame."""
    height, width = grey.shape
    return _Box(_strip(grey), height - _strip(grey[::-1]), _strip(grey.T), width - _strip(grey.T[::-1]))


def _strip(grey: UInt8) -> int:
    """How many rows at the top are no paper: up to the last step that most of the columns share, when all rows
    before it differ from the paper (before a long stroke they do not)."""
    deepest, lag = round(DEEPEST_STRIP * len(grey)), max(2, len(grey) // SMALL)
    every = max(1, grey.shape[1] // SMALL)
    rows = grey[: deepest + 6 * lag, ::every].astype(np.int16)
    steps = np.median(rows[lag:] - rows[:-lag], axis=1)[:deepest]
    for i in np.flatnonzero(np.abs(steps) > STEP)[::-1]:
        inside = np.median(rows[i + lag : i + 5 * lag], axis=0)
        apart = np.median(np.abs(rows - inside), axis=1)
        if apart[: max(1, i)].min() > STEP / 2:
            return int(np.flatnonzero(apart[: i + lag + 1] > STEP / 3).max(initial=-1)) + 1
    return 0


def _is_light_on_dark(small: UInt8) -> bool:
    """Whether what differs from the ground is mostly lighter. The ground is the wide local median, which neither
    shadows nor strokes move."""
    wide = (min(small.shape) // 3) | 1
    padded = cv2.copyMakeBorder(small, wide, wide, wide, wide, cv2.BORDER_REFLECT)
    ground = cv2.medianBlur(padded, wide)[wide:-wide, wide:-wide]
    rest = small.astype(np.float32) - ground
    noise = 3 * 1.4826 * float(np.median(np.abs(rest))) + 2
    light = float(np.maximum(rest - noise, 0).sum())
    return light > float(np.maximum(-rest - noise, 0).sum())


def _ground(small: UInt8) -> Float32:
    """The paper's brightness behind the strokes, on the reduced image: a smooth surface times what is left of
    shadows when the strokes are closed."""
    surface = _surface(small)
    flat = small / surface
    side = min(small.shape)
    narrow, wide = (side // 4) | 1, (side // 2) | 1
    closed = cv2.morphologyEx(flat, cv2.MORPH_CLOSE, _disc(narrow))
    around = cv2.blur(cv2.dilate(flat, _disc(wide)), (wide, wide), borderType=cv2.BORDER_REPLICATE)
    ground = np.maximum(closed, DARKEST_GROUND * around)
    smooth = cv2.GaussianBlur(ground, (0, 0), 0.8, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(smooth * surface, np.float32)


def _surface(small: UInt8) -> Float32:
    """The quadratic surface that most of the paper lies on (least squares, what is far off weighted down); 1
    everywhere when it lies on none, as under a shadow with an edge."""
    height, width = small.shape
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)
    paper = cv2.dilate(small, np.ones((5, 5), np.uint8))[::4, ::4].ravel().astype(np.float64)
    at = terms[::4, ::4].reshape(len(paper), -1)
    weight = np.ones_like(paper)
    for _ in range(8):
        solution = np.linalg.lstsq(at * weight[:, None], paper * weight, rcond=None)[0]
        off = np.abs(paper - at @ solution)
        weight = 1 / (1 + (off / (2 * np.median(off) + 2)) ** 2)
    if float(np.quantile(off, 0.8)) > UNEVEN * float(paper.max()):
        return np.ones((height, width), np.float32)
    return np.asarray(np.maximum(terms @ solution, 0.1 * float(paper.max()) + 1), np.float32)


def _disc(side: int) -> UInt8:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _darkness(grey: UInt8, ground: Float32) -> Float32:
    """How much darker than its ground each pixel is: 0 = paper, 1 = black; negative where the noise is lighter."""
    height, width = grey.shape
    full = cv2.resize(ground, (width, height), interpolation=cv2.INTER_LINEAR)
    ratio = grey / np.maximum(full, 1)
    return np.asarray(1 - ratio / max(float(np.median(ratio)), 0.1), np.float32)


def _inked(dark: Float32) -> UInt8:
    """Darkness -> dark ink on white: the strokes that stand out of the noise, with their soft edges."""
    over = dark[dark > 0]
    noise = 1.4826 * float(np.median(over)) if len(over) else 0.0
    least = max(LEAST_CONTRAST, min(3 * noise, 0.4))
    # on even paper what is darker is no noise, but strokes
    if len(over) and 2 * np.count_nonzero(dark) < dark.size:
        least = max(LEAST_CONTRAST, min(least, 0.5 * float(np.quantile(over, 0.9))))
    inked = dark[dark > least]
    if not len(inked):
        return np.full(dark.shape, 255, np.uint8)
    level = float(np.quantile(inked, 0.9))
    weak = (dark > max(0.6 * least, 0.2 * level)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(weak, connectivity=8)
    strong = np.bincount(labels[dark > max(least, 0.5 * level)].ravel(), minlength=len(stats))
    keep = (strong > 0) & (stats[:, cv2.CC_STAT_AREA] >= _smallest(dark.shape))
    keep[0] = False
    low = 0.5 * least
    shown = np.clip((dark - low) / max(level - low, 1e-3), 0, 1) * keep[labels]
    return np.asarray(np.rint(255 - 255 * shown), np.uint8)


def _smallest(shape: tuple[int, ...]) -> int:
    """Pixels of the smallest dot that is drawn, not grain."""
    return max(3, round((min(shape) / 100) ** 2))
