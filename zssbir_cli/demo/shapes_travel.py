"""Buildings and things that move. Each function draws one random instance in a free unit frame."""

from collections.abc import Iterator

import numpy as np

from zssbir_cli.demo.geometry import box, curve, ellipse, rounded, smooth, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, area, line


def house(d: Dice) -> Iterator[Piece]:
    """A house: walls, roof, door, windows, often a chimney."""
    w, h, roof = d(0.6, 0.8), d(0.7, 0.95), d(0.45, 0.75)
    top = 0.9 - h
    eave = d(0.08, 0.2)
    if d.chance(0.6):
        x = d(0.25, 0.45) * w * (1 if d.chance(0.5) else -1)
        yield area(box(x - 0.1, top - roof - 0.02, x + 0.12, top - 0.1), 1)
    yield area(box(-w, top, w, 0.9), 0)
    flat = d(0.0, 0.5) if d.chance(0.4) else 0.0
    yield area([(-w - eave, top), (-w * flat, top - roof), (w * flat, top - roof), (w + eave, top)], 1)
    dx = d(-0.25, 0.25) * w
    yield area(box(dx - 0.14, 0.9 - h * 0.55, dx + 0.14, 0.9), 2)
    yield area(ellipse(dx + 0.08, 0.9 - h * 0.25, 0.025, 0.025), 3, detail=True)
    for s in (-1, 1):
        x, y, q = s * w * 0.64, 0.9 - h * 0.68, d(0.12, 0.16)
        yield area(box(x - q, y - q, x + q, y + q), 3)
        yield line([(x - q, y), (x + q, y)], 0.03, 2, detail=True)
        yield line([(x, y - q), (x, y + q)], 0.03, 2, detail=True)
    if d.chance(0.3):
        yield area(ellipse(0, top - roof * 0.35, 0.12, 0.12), 3, detail=True)


def windmill(d: Dice) -> Iterator[Piece]:
    """A tower with a cap and four sails."""
    low, top = d(0.36, 0.46), d(0.2, 0.27)
    y = d(-0.4, -0.28)
    yield area([(-top, y), (top, y), (low, 1.0), (-low, 1.0)], 0)
    yield area(ellipse(0, y + 0.02, top * 1.15, 0.26, 180, 360), 1)
    yield area([*ellipse(0, 0.78, 0.1, 0.1, 180, 360, 9), (0.1, 1.0), (-0.1, 1.0)], 2)
    yield area(ellipse(0, 0.3, 0.08, 0.1), 3, detail=True)
    start, long, wide = d(0, 90), d(0.62, 0.75), d(0.14, 0.2)
    hub = (0.0, y - 0.02)
    for k in range(4):
        a = start + 90 * k
        blade = box(0.02, hub[1] - long, 0.02 + wide, hub[1] - 0.16)
        yield area(turn(blade, a, hub), 3)
        yield line(turn([hub, (0, hub[1] - long)], a, hub), 0.05, 2)
        for f in (0.35, 0.55, 0.75):
            rung = [(0.02, hub[1] - long * f), (0.02 + wide, hub[1] - long * f)]
            yield line(turn(rung, a, hub), 0.025, 2, detail=True)
    yield area(ellipse(*hub, 0.07, 0.07), 2)


def sailboat(d: Dice) -> Iterator[Piece]:
    """A boat with a mast and one or two sails."""
    w, h = d(0.75, 0.95), d(0.24, 0.34)
    y = 0.55
    mast = d(-0.15, 0.15)
    top = d(-1.0, -0.85)
    yield line([(mast, top), (mast, y)], 0.05, 2)
    bulge = d(0.05, 0.18)
    main = curve([(mast + 0.05, top + 0.1), (mast + 0.4 + bulge, y - 0.6), (mast + d(0.55, 0.72), y - 0.12)])
    yield area([*main, (mast + 0.05, y - 0.12)], 0)
    if d.chance(0.75):
        front = d(0.4, 0.6)
        yield area([(mast - 0.05, top + d(0.15, 0.4)), (mast - 0.05, y - 0.12), (mast - front, y - 0.12)], 3)
    if d.chance(0.5):
        yield area([(mast, top), (mast + 0.26, top + 0.09), (mast, top + 0.18)], 1)
    hull = [(-w, y), (w, y), (w * d(0.6, 0.8), y + h), (-w * d(0.55, 0.75), y + h)]
    yield area(rounded(hull, 0.08), 1)
    if d.chance(0.5):
        yield line([(-w * 0.86, y + h * 0.42), (w * 0.86, y + h * 0.42)], 0.05, 3, detail=True)


def car(d: Dice) -> Iterator[Piece]:
    """A car from the side: body, cabin with windows, two wheels, lamps."""
    h, cabin, r = d(0.2, 0.28), d(0.26, 0.4), d(0.18, 0.24)
    a, b = d(-0.75, -0.5), d(0.4, 0.6)
    roof_a, roof_b = a + d(0.18, 0.3), b - d(0.2, 0.35)
    top = -h - cabin
    yield area(rounded([(a, -h + 0.04), (roof_a, top), (roof_b, top), (b + 0.05, -h + 0.04)], 0.1), 0)
    yield area(
        rounded([(-1.0, -h * 0.8), (-0.6, -h), (0.7, -h), (1.0, -h * 0.4), (1.0, h), (-1.0, h)], 0.1), 0
    )
    mid = (roof_a + roof_b) / 2
    yield area(
        rounded(
            [(a + 0.14, -h), (roof_a + 0.04, top + 0.08), (mid - 0.04, top + 0.08), (mid - 0.04, -h)], 0.03
        ),
        3,
    )
    yield area(
        rounded(
            [(mid + 0.04, -h), (mid + 0.04, top + 0.08), (roof_b - 0.04, top + 0.08), (b - 0.1, -h)], 0.03
        ),
        3,
    )
    yield line([(mid, -h), (mid, h * 0.8)], 0.025, 2, detail=True)
    yield line([(mid + 0.08, -h * 0.45), (mid + 0.2, -h * 0.45)], 0.04, 2, detail=True)
    for x in (d(-0.65, -0.55), d(0.52, 0.62)):
        yield area(ellipse(x, h, r, r), 2)
        yield area(ellipse(x, h, r * 0.5, r * 0.5), 3)
    yield area(ellipse(0.94, -h * 0.05, 0.06, 0.08), 3, detail=True)


def bicycle(d: Dice) -> Iterator[Piece]:
    """Two spoked wheels, a diamond frame, saddle and handlebar."""
    r, t = d(0.38, 0.44), d(0.05, 0.08)
    x = d(0.56, 0.62)
    y = 0.35
    for s in (-1, 1):
        start, n = d(0, 60), d.count(3, 5)
        for k in range(n):
            spoke = turn([(s * x, y - r), (s * x, y + r)], start + 180 * k / n, (s * x, y))
            yield line(spoke, 0.018, 3, detail=True)
        yield line(ellipse(s * x, y, r, r), d(0.06, 0.1), 2, closed=True)
    seat, head, crank = (-0.28, -0.28), (d(0.36, 0.44), -0.34), (-0.05, y + 0.04)
    for p, q in (
        ((-x, y), crank),
        (crank, seat),
        ((-x, y), seat),
        (seat, head),
        (crank, head),
        ((x, y), (head[0] - 0.06, head[1] - 0.2)),
    ):
        yield line([p, q], t, 0)
    yield line([seat, (seat[0] - 0.05, seat[1] - 0.16)], t, 0)
    yield area(
        smooth(
            [(seat[0] - 0.24, -0.5), (seat[0] + 0.12, -0.49), (seat[0] + 0.1, -0.42), (seat[0] - 0.2, -0.38)]
        ),
        2,
    )
    grip = head[0] - 0.06
    yield line(
        curve(
            [
                (grip - 0.1, head[1] - 0.22),
                (grip + 0.08, head[1] - 0.24),
                (grip + 0.2, head[1] - d(0.0, 0.15)),
            ]
        ),
        t,
        2,
    )
    yield area(ellipse(*crank, 0.09, 0.09), 1)


def airplane(d: Dice) -> Iterator[Piece]:
    """An airliner from above: fuselage, swept wings, tail, windows."""
    t, sweep, span = d(0.13, 0.18), d(0.2, 0.42), d(0.85, 1.0)
    for s in (-1, 1):
        yield area(
            [(s * t * 0.5, -0.2), (s * span, -0.2 + sweep), (s * span, -0.08 + sweep), (s * t * 0.5, 0.2)], 1
        )
        yield area(
            [
                (s * t * 0.3, 0.68),
                (s * 0.38, 0.78 + sweep * 0.3),
                (s * 0.38, 0.87 + sweep * 0.3),
                (s * t * 0.3, 0.88),
            ],
            1,
        )
        for f in (0.45,) if d.chance(0.5) else (0.38, 0.66):
            x, y = s * span * f, -0.2 + sweep * f
            yield area(ellipse(x, y - 0.02, 0.055, 0.11), 2, detail=True)
    body = curve([(0, -1.0), (t * 0.75, -0.82), (t, -0.5), (t, 0.3), (t * 0.5, 0.85), (0.02, 1.0)])
    yield area(symmetric(body), 0)
    yield area(symmetric([(0.02, -0.86), (t * 0.6, -0.78), (t * 0.62, -0.7), (0.02, -0.73)]), 2, detail=True)
    yield line([(0, 0.55), (0, 0.98)], 0.05, 2)


def rocket(d: Dice) -> Iterator[Piece]:
    """A rocket: pointed hull, portholes, fins, flame."""
    w, low = d(0.24, 0.34), 0.55
    hull = curve([(0, -1.0), (w * 0.7, -0.62), (w, -0.1), (w * 0.9, 0.3), (w * 0.68, low)])
    for s in (-1, 1):
        yield area(
            [(s * w * 0.8, 0.05), (s * (w + d(0.25, 0.4)), 0.5), (s * (w + 0.22), 0.78), (s * w * 0.6, low)],
            1,
        )
    if d.chance(0.7):
        f = d(0.3, 0.45)
        flame = [
            (-w * 0.6, low),
            (-w * 0.55, low + f * 0.6),
            (-w * 0.2, low + f * 0.5),
            (0, low + f),
            (w * 0.25, low + f * 0.5),
            (w * 0.55, low + f * 0.6),
            (w * 0.6, low),
        ]
        yield area(flame, 3)
    yield area(symmetric(hull), 0)
    yield area(symmetric([p for p in hull if p[1] < d(-0.62, -0.5)]), 1)
    for k in range(d.count(1, 2)):
        yield area(ellipse(0, -0.2 + 0.36 * k, 0.14, 0.14), 2)
        yield area(ellipse(0, -0.2 + 0.36 * k, 0.09, 0.09), 3)
    yield area(box(-w * 0.72, low - 0.07, w * 0.72, low + 0.05, 0.02), 2)


def hot_air_balloon(d: Dice) -> Iterator[Piece]:
    """A striped balloon with a basket on ropes."""
    r, low = d(0.66, 0.76), d(0.38, 0.46)
    half = curve([(0, -1.0), (r * 0.6, -0.9), (r, -0.42), (r * 0.75, 0.02), (0.2, low)])
    w = d(0.15, 0.21)
    yield from [line([(s * 0.17, low - 0.04), (s * w * 0.9, 0.75)], 0.03, 2) for s in (-1, 1)]
    yield area(symmetric(half), 0)
    for f in (0.7, 0.28) if d.chance(0.6) else (0.45,):
        yield area(symmetric(half * (f, 1.0)), (1 if f != 0.28 else 0), detail=True)
    yield area(box(-0.2, low - 0.06, 0.2, low + 0.02), 2, detail=True)
    yield area([(-w, 0.72), (w, 0.72), (w * 0.85, 1.0), (-w * 0.85, 1.0)], 1)
    yield line([(-w * 0.95, 0.82), (w * 0.95, 0.82)], 0.03, 2, detail=True)


def tent(d: Dice) -> Iterator[Piece]:
    """A ridge tent, open at the front."""
    h, back = d(0.85, 1.05), d(0.55, 0.75)
    y = 0.55
    ridge = (d(-0.42, -0.3), y - h)
    rear = (ridge[0] + back, y - h + d(0.04, 0.16))
    yield area([ridge, rear, (rear[0] + 0.5, y - 0.12), (ridge[0] + 0.62, y)], 1)
    yield area([ridge, (ridge[0] - 0.62, y), (ridge[0] + 0.62, y)], 0)
    gap = d(0.12, 0.28)
    yield area([(ridge[0], y - h * 0.78), (ridge[0] - gap, y), (ridge[0] + gap, y)], 2)
    yield line([ridge, (ridge[0], ridge[1] - 0.1)], 0.05, 2)
    yield line([(ridge[0] - 0.55, y - 0.1), (ridge[0] - 0.8, y + 0.06)], 0.03, 2, detail=True)
    yield line([(rear[0] + 0.45, y - 0.2), (rear[0] + 0.72, y)], 0.03, 2, detail=True)


def traffic_light(d: Dice) -> Iterator[Piece]:
    """A box with three round lamps, on a pole."""
    w, h = d(0.26, 0.34), d(0.7, 0.8)
    yield line([(0, 0.2), (0, 1.2)], d(0.09, 0.14), 2)
    yield area(box(-w, -0.95, w, -0.95 + 2 * h, d(0.04, 0.16)), 0)
    for k in range(3):
        y = -0.95 + h * (0.37 + 0.63 * k)
        r = w * d(0.52, 0.62)
        yield area(ellipse(0, y, r * 1.15, r * 1.15), 2)
        yield area(ellipse(0, y + 0.02, r, r), (1, 3, 0)[k])
        if d.chance(0.6):
            yield line(ellipse(0, y, r * 1.25, r * 1.2, 190, 350), 0.05, 2, detail=True)
    foot = np.asarray([(-0.3, 1.28), (0.3, 1.28), (0.18, 1.16), (-0.18, 1.16)])
    yield area(foot, 2)
