"""Tools and instruments. Each function draws one random instance in a free unit frame."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from zssbir_cli.demo.geometry import box, curve, ellipse, rounded, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, area, line


def key(d: Dice) -> Iterator[Piece]:
    """A key: ring, shaft, bit."""
    r = d(0.24, 0.34)
    ring = (
        ellipse(0, -0.65, r, r * d(0.8, 1.1))
        if d.chance(0.65)
        else rounded(turn(box(-r, -0.65 - r, r, -0.65 + r), 45, (0, -0.65)), 0.1)
    )
    yield line([(0, -0.65 + r), (0, 0.95)], d(0.09, 0.13), 0)
    yield line(ring, d(0.1, 0.15), 0, closed=True)
    teeth, depth = d.count(2, 3), d(0.2, 0.32)
    for k in range(teeth):
        y = 0.87 - 0.2 * k
        yield area(box(0.0, y - 0.06, depth * d(0.7, 1.15), y + 0.07), 0)
    if d.chance(0.6):
        yield line([(-0.1, -0.65 + r + 0.14), (0.1, -0.65 + r + 0.14)], 0.07, 1, detail=True)


def scissors(d: Dice) -> Iterator[Piece]:
    """Two blades that cross at a screw, each with a ring for the fingers."""
    spread = d(9, 22)
    w, ring = d(0.09, 0.13), d(0.2, 0.27)
    for s in (-1, 1):
        blade = [(s * -w, 0.12), (s * -0.02, -0.98), (s * w * 0.6, -0.7), (s * w, 0.1)]
        handle = line([(0, 0.05), (s * -0.16, 0.5)], 0.1, 0)
        loop = line(
            turn(ellipse(s * -0.25, 0.7, ring * 0.8, ring), s * 15, (s * -0.25, 0.7)),
            d(0.09, 0.12),
            0,
            closed=True,
        )
        yield from [
            Piece(turn(p.points, s * spread), p.tone, p.width, p.closed)
            for p in (area(blade, 3), handle, loop)
        ]
    yield area(ellipse(0, 0.0, 0.06, 0.06), 2)


def hammer(d: Dice) -> Iterator[Piece]:
    """A claw hammer or a mallet."""
    t, grip = d(0.08, 0.12), d(0.35, 0.65)
    h = d(0.16, 0.22)
    yield area([(-t, -0.6), (t, -0.6), (t * 1.1, 0.95), (-t * 1.1, 0.95)], 1)
    yield area(box(-t * 1.4, 0.95 - grip, t * 1.4, 1.0, 0.06), 2)
    if d.chance(0.7):
        claw = curve(
            [
                (-0.1, -0.6 - h),
                (-0.45, -0.6 - h * 0.95),
                (-0.78, -0.6 + h * 1.1),
                (-0.5, -0.6 + h * 0.1),
                (-0.1, -0.6 + h),
            ]
        )
        yield area(claw, 0)
        yield area(box(-0.15, -0.6 - h, 0.36, -0.6 + h), 0)
        yield area(box(0.33, -0.6 - h * 1.15, 0.6, -0.6 + h * 1.15, 0.04), 0)
    else:
        w = d(0.5, 0.65)
        yield area(box(-w, -0.62 - h * 1.5, w, -0.6 + h * 1.3, 0.07), 0)
        yield from [
            line([(s * w * 0.75, -0.62 - h * 1.5), (s * w * 0.75, -0.6 + h * 1.3)], 0.04, 2, detail=True)
            for s in (-1, 1)
        ]


def pencil(d: Dice) -> Iterator[Piece]:
    """A pencil: eraser, band, barrel, sharpened tip."""
    w, tip = d(0.12, 0.19), d(0.28, 0.42)
    yield area(box(-w, -1.0, w, -0.78, 0.07), 1)
    yield area(box(-w, -0.82, w, -0.66), 3)
    yield area(box(-w, -0.67, w, 0.98 - tip), 0)
    yield from [line([(x * w, -0.66), (x * w, 0.97 - tip)], 0.025, 2, detail=True) for x in (-0.35, 0.35)]
    yield area([(-w, 0.98 - tip), (w, 0.98 - tip), (0, 1.0)], 3)
    yield area([(-w * 0.36, 1.0 - tip * 0.34), (w * 0.36, 1.0 - tip * 0.34), (0, 1.0)], 2)


def umbrella(d: Dice) -> Iterator[Piece]:
    """An open umbrella with ribs and a hooked stick."""
    h, n = d(0.6, 0.85), d.count(3, 5)
    y = d(-0.05, 0.1)
    s = 1 if d.chance(0.5) else -1
    hook = [(0, y - 0.1), (0, 0.78), (s * 0.03, 0.9), (s * 0.14, 0.95), (s * 0.25, 0.9), (s * 0.28, 0.78)]
    yield line([(0, y - h - 0.1), (0, y - h + 0.1)], 0.06, 2)
    yield line(curve(hook), d(0.05, 0.08), 2)
    canopy = [tuple(p) for p in ellipse(0, y, 0.95, h, 180, 360, 30)]
    xs = np.linspace(0.95, -0.95, n + 1)
    for a, b in pairwise(xs):
        canopy += [tuple(p) for p in ellipse((a + b) / 2, y, (a - b) / 2, 0.11, 360, 180, 9)]
    yield area(canopy, 0)
    for x in xs[1:-1]:
        yield line(curve([(0, y - h), (x * 0.75, y - h * 0.6), (x, y)]), 0.03, 1, detail=True)


def camera(d: Dice) -> Iterator[Piece]:
    """A camera with a lens, a viewfinder hump and buttons."""
    w, h, r = 0.95, d(0.52, 0.62), d(0.36, 0.46)
    x = d(-0.15, 0.15)
    hump = [(x - 0.36, -h + 0.05), (x - 0.24, -h - 0.22), (x + 0.24, -h - 0.22), (x + 0.36, -h + 0.05)]
    yield area(rounded(hump, 0.06), 1 if d.chance(0.5) else 0)
    yield area(box(0.52, -h - 0.1, 0.8, -h + 0.05, 0.03), 2)
    yield area(box(-w, -h, w, h, d(0.06, 0.16)), 0)
    if d.chance(0.6):
        yield area(box(-w, -h * 0.45, w, h * 0.6), 1, detail=True)
    yield area(ellipse(x, 0.08, r, r), 2)
    yield area(ellipse(x, 0.08, r * 0.72, r * 0.72), 3)
    yield area(ellipse(x, 0.08, r * 0.42, r * 0.42), 2)
    yield area(box(-0.82, -h + 0.1, -0.56, -h + 0.27, 0.02), 3, detail=True)


def anchor(d: Dice) -> Iterator[Piece]:
    """A ship's anchor: ring, stock, shank and two flukes."""
    t, w = d(0.1, 0.15), d(0.62, 0.8)
    low = d(0.1, 0.3)
    arms = ellipse(0, low, w, 0.93 - low, 8, 172)
    yield line(ellipse(0, -0.82, 0.14, 0.14), t * 0.8, 0, closed=True)
    yield line([(0, -0.68), (0, 0.9)], t, 0)
    yield line([(-d(0.32, 0.45), -0.45), (d(0.32, 0.45), -0.45)], t, 0)
    yield line(arms, t, 0)
    for s in (-1, 1):
        fluke = [(s * (w + 0.16), low + 0.2), (s * (w + 0.02), low - 0.24), (s * (w - 0.24), low + 0.14)]
        yield area(fluke, 0)


def guitar(d: Dice) -> Iterator[Piece]:
    """A guitar: waisted body, sound hole, neck, head with pegs, strings."""
    w, upper, waist = d(0.42, 0.52), d(0.3, 0.38), d(0.2, 0.28)
    half = curve(
        [
            (0, -0.08),
            (upper * 0.8, -0.03),
            (upper, 0.16),
            (waist, 0.38),
            (w * 0.98, 0.62),
            (w * 0.85, 0.92),
            (0, 1.0),
        ]
    )
    neck = d(0.06, 0.085)
    yield area([(-neck * 1.7, -1.25), (neck * 1.7, -1.25), (neck * 1.2, -0.95), (-neck * 1.2, -0.95)], 2)
    for s in (-1, 1):
        yield from [area(ellipse(s * neck * 2.1, y, 0.045, 0.035), 3, detail=True) for y in (-1.19, -1.08)]
    yield area(symmetric(half), 0)
    yield area(box(-neck, -1.0, neck, 0.25), 1)
    yield area(ellipse(0, 0.32, 0.14, 0.14), 2)
    yield area(box(-0.18, 0.68, 0.18, 0.75), 2)
    for k in range(d.count(2, 3)):
        x = (k - 1) * neck * 0.6
        yield line([(x, -0.95), (x, 0.7)], 0.015, 3, detail=True)


def bell(d: Dice) -> Iterator[Piece]:
    """A hand bell or church bell with its clapper."""
    top, low = d(0.28, 0.4), d(0.66, 0.82)
    half = curve(
        [(0, -0.72), (top * 0.8, -0.66), (top, -0.4), (top * 1.15, 0.1), (low * 0.82, 0.42), (low, 0.6)]
    )
    yield line(ellipse(0, -0.82, 0.13, 0.13), 0.08, 1, closed=True)
    yield area(ellipse(d(-0.12, 0.12), 0.7, 0.15, 0.16), 2)
    yield area(symmetric(half), 0)
    yield area(box(-low - 0.04, 0.54, low + 0.04, 0.68, 0.05), 1)
    if d.chance(0.5):
        yield line(ellipse(0, 0.05, top * 1.12, 0.1, 0, 180), 0.05, 3, detail=True)


def ladder(d: Dice) -> Iterator[Piece]:
    """Two rails and their rungs."""
    top, low, n = d(0.22, 0.3), d(0.28, 0.42), d.count(5, 8)
    t = d(0.07, 0.11)
    for k in range(n):
        f = (k + 0.6) / n
        x = top + (low - top) * f
        yield line([(-x, -1 + 2 * f), (x, -1 + 2 * f)], t * 0.85, 1)
    yield from (line([(s * top, -1), (s * low, 1)], t, 0) for s in (-1, 1))


def magnifier(d: Dice) -> Iterator[Piece]:
    """A magnifying glass."""
    r, t = d(0.48, 0.6), d(0.1, 0.14)
    turned = d(-50, 50)
    parts = [line([(0, r - 0.42), (0, 0.5)], t * 0.9, 3), line([(0, 0.36), (0, 1.0)], t * 1.7, 1)]
    parts += [area(ellipse(0, -0.42, r, r), 3), line(ellipse(0, -0.42, r, r), t, 0, closed=True)]
    parts.append(line(ellipse(0, -0.42, r * 0.68, r * 0.68, 190, 250), 0.04, 0, detail=True))
    yield from (replace(p, points=turn(p.points, turned)) for p in parts)
