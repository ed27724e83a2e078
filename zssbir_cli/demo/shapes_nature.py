"""Plants and animals. Each function draws one random instance in a free unit frame."""

from collections.abc import Iterator

import numpy as np

from zssbir_cli.demo.geometry import Points, box, curve, ellipse, rounded, smooth, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, area, line


def tree(d: Dice) -> Iterator[Piece]:
    """A broad-leaved tree (bumpy crown) or a fir (stacked triangles)."""
    trunk = d(0.09, 0.16)
    if d.chance(0.35):
        yield area(box(-trunk, 0.5, trunk, 1.0), 1)
        tiers, w = d.count(3, 4), d(0.6, 0.75)
        for k in range(tiers):
            y = 0.65 - 1.25 * k / tiers
            half = w * (1 - 0.62 * k / tiers)
            yield area([(-half, y), (half, y), (0, y - 0.8 + 0.06 * k)], 0)
        return
    r, n = d(0.55, 0.68), d.count(7, 11)
    fork = d(0.25, 0.4)
    yield area(
        [
            (-trunk * 0.8, -0.1),
            (trunk * 0.8, -0.1),
            (trunk, 0.8),
            (trunk * 1.9, 1.0),
            (-trunk * 1.9, 1.0),
            (-trunk, 0.8),
        ],
        1,
    )
    outline = []
    for k in range(n):
        a = 360 * k / n
        c = ellipse(0, -0.35, r * 1.05, r * 0.82, a, a + 1, 1)[0]
        outline.append(ellipse(c[0], c[1], 1.9 * r / n * 1.6, 1.9 * r / n * 1.5, a - 80, a + 80, 9))
    yield area(np.concatenate(outline), 0)
    for s in (-1, 1):
        yield line([(0, 0.3), (s * fork * 0.6, -0.12)], 0.05, 1, detail=True)
    for _ in range(d.count(1, 3)):
        yield line(ellipse(d(-0.3, 0.3), d(-0.6, -0.2), 0.14, 0.1, 20, 160), 0.035, 2, detail=True)


def cactus(d: Dice) -> Iterator[Piece]:
    """A pillar cactus with two arms, in a pot or in the sand."""
    t, top = d(0.2, 0.27), d(-0.98, -0.85)
    for s in (-1, 1):
        y, reach, up = d(-0.25, 0.15), d(0.45, 0.58), d(0.25, 0.5)
        arm = [(0, y), (s * reach * 0.6, y), (s * reach * 0.97, y - 0.1), (s * reach, y - up)]
        yield line(curve(arm), t * 0.85, 0)
    yield area(symmetric([*ellipse(0, top + t, t, t, 270, 360, 8), (t, 0.75)]), 0)
    yield from [line([(x * t, top + 0.25), (x * t, 0.6)], 0.025, 2, detail=True) for x in (-0.4, 0.4)]
    if d.chance(0.7):
        w = d(0.4, 0.5)
        yield area([(-w, 0.55), (w, 0.55), (w * 0.72, 1.0), (-w * 0.72, 1.0)], 1)
        yield area(box(-w - 0.05, 0.45, w + 0.05, 0.6, 0.02), 1)
    else:
        yield area(smooth([(-0.8, 0.8), (-0.3, 0.62), (0.3, 0.64), (0.8, 0.8), (0, 0.88)]), 1)


def flower(d: Dice) -> Iterator[Piece]:
    """A flower: ring of petals, stem, leaves."""
    n, r = d.count(5, 8), d(0.24, 0.32)
    y = -0.5
    bend = d(-0.12, 0.12)
    stem = curve([(0, y), (bend, 0.3), (bend * 0.3, 1.0)])
    yield line(stem, d(0.06, 0.09), 1)
    for s in (-1, 1):
        if d.chance(0.85):
            base = d(0.35, 0.7)
            leaf = smooth(
                [(bend * 0.8, base), (s * 0.22, base - 0.24), (s * 0.5, base - 0.3), (s * 0.3, base - 0.02)]
            )
            yield area(leaf, 1)
    start = d(0, 60)
    long = d(1.0, 1.45)
    for k in range(n):
        petal = ellipse(0, y - r * long * 0.95, r * 3.6 / n + 0.03, r * long * 0.8)
        yield area(turn(petal, start + 360 * k / n, (0, y)), 0)
    yield area(ellipse(0, y, r * 0.72, r * 0.72), 3)


def fish(d: Dice) -> Iterator[Piece]:
    """A fish: body, tail, fins, eye, scales."""
    h, tail = d(0.34, 0.5), d(0.3, 0.45)
    body = smooth(
        [
            (-0.95, 0.02),
            (-0.6, -h * 0.75),
            (-0.05, -h),
            (0.5, -h * 0.4),
            (0.62, 0.0),
            (0.5, h * 0.4),
            (-0.05, h),
            (-0.6, h * 0.75),
        ]
    )
    fin = [(0.5, 0.0), (1.0, -tail), (0.85, 0.0), (1.0, tail)]
    up = d(0.2, 0.36)
    yield area(rounded(fin, 0.08), 1)
    yield area(smooth([(-0.35, -h * 0.85), (0.0, -h - up), (0.32, -h - up * 0.6), (0.3, -h * 0.6)]), 1)
    if d.chance(0.7):
        yield area(smooth([(-0.1, h * 0.9), (0.12, h + up * 0.8), (0.26, h * 0.7)]), 1)
    yield area(body, 0)
    yield line(ellipse(-0.62, 0, 0.2, h * 0.75, -65, 65), 0.035, 2, detail=True)
    if d.chance(0.5):
        yield from [
            line(ellipse(x, 0, 0.1, 0.16, -70, 70), 0.03, 2, detail=True) for x in (-0.18, 0.05, 0.28)
        ]
    else:
        yield area(smooth([(-0.25, 0.02), (0.08, -0.1), (0.1, 0.2)]), 1, detail=True)
    yield area(ellipse(-0.68, -h * 0.25, 0.09, 0.09), 3)
    yield area(ellipse(-0.68, -h * 0.25, 0.045, 0.045), 2)


def butterfly(d: Dice) -> Iterator[Piece]:
    """A butterfly from above: two pairs of wings, body, feelers."""
    up, out = d(0.65, 0.9), d(0.8, 0.95)
    low = d(0.55, 0.85)
    for s in (-1, 1):
        lower = smooth(
            [(s * 0.05, 0.1), (s * 0.6, 0.12), (s * out * 0.75, low * 0.75), (s * 0.35, low), (s * 0.06, 0.4)]
        )
        upper = smooth(
            [
                (s * 0.05, -0.15),
                (s * out * 0.55, -up),
                (s * out, -up * 0.85),
                (s * out * 0.88, -0.05),
                (s * 0.3, 0.15),
                (s * 0.05, 0.12),
            ]
        )
        yield area(lower, 1)
        yield area(upper, 0)
        yield area(ellipse(s * out * 0.62, -up * 0.52, 0.15, 0.13), 3, detail=True)
        yield area(ellipse(s * 0.4, low * 0.55, 0.1, 0.09), 3, detail=True)
    for s in (-1, 1):
        yield line(curve([(0, -0.4), (s * 0.1, -0.7), (s * 0.28, -0.9)]), 0.035, 2)
    yield area(ellipse(0, 0.08, 0.08, 0.46), 2)
    yield area(ellipse(0, -0.42, 0.09, 0.1), 2)


def duck(d: Dice) -> Iterator[Piece]:
    """A swimming duck: body with a raised tail, head, bill, wing."""
    r, neck = d(0.25, 0.31), d(-0.5, -0.38)
    body = smooth(
        [
            (-0.4, 0.0),
            (0.1, 0.05),
            (0.55, -0.02),
            (0.95, -d(0.2, 0.42)),
            (0.85, 0.3),
            (0.45, 0.65),
            (-0.25, 0.68),
            (-0.62, 0.35),
        ]
    )
    throat = [(-0.66, neck), (-0.24, neck), (-0.12, 0.15), (-0.5, 0.25)]
    bill = smooth([(-0.68, neck - 0.1), (-1.02, neck + 0.0), (-0.98, neck + 0.1), (-0.66, neck + 0.09)])
    yield area(bill, 1)
    yield area(body, 0)
    yield area(throat, 0)
    yield area(ellipse(-0.46, neck, r, r), 0)
    yield area(ellipse(-0.53, neck - 0.07, 0.045, 0.05), 2)
    wing = smooth([(-0.1, 0.2), (0.35, 0.1), (0.72, 0.18), (0.4, 0.46), (0.05, 0.44)])
    yield area(wing, 3)
    if d.chance(0.5):
        wave = [(x, 0.72 + 0.04 * (-1) ** k) for k, x in enumerate(np.linspace(-0.95, 1.0, 8))]
        yield line(curve(wave), 0.05, 1, detail=True)


def snail(d: Dice) -> Iterator[Piece]:
    """A snail: spiral shell on a creeping foot, two feelers."""
    r = d(0.5, 0.62)
    cx, cy = 0.18, 0.62 - r
    foot = smooth(
        [
            (0.98, 0.72),
            (0.55, 0.55),
            (-0.3, 0.52),
            (-0.55, 0.2),
            (-0.62, -0.12),
            (-0.86, -0.1),
            (-0.95, 0.2),
            (-0.8, 0.6),
            (-0.45, 0.76),
        ]
    )
    yield line([(-0.66, -0.1), (-0.6 + d(-0.05, 0.05), -0.5)], 0.05, 1)
    yield line([(-0.8, -0.1), (-0.95 + d(-0.05, 0.05), -0.48)], 0.05, 1)
    yield area(ellipse(-0.6, -0.5, 0.06, 0.06), 2)
    yield area(ellipse(-0.95, -0.48, 0.06, 0.06), 2)
    yield area(foot, 1)
    yield area(ellipse(cx, cy, r, r), 0)
    turns = d(1.6, 2.4)
    t = np.linspace(0, 1, 50)
    a = np.radians(150) + t * turns * 2 * np.pi
    spiral: Points = np.stack(
        [cx + r * 0.9 * (1 - t) * np.cos(a), cy + r * 0.9 * (1 - t) * np.sin(a)], axis=1
    )
    yield line(spiral, d(0.05, 0.08), 2)


def snowman(d: Dice) -> Iterator[Piece]:
    """Two or three balls of snow, a nose, buttons, arms, often a hat."""
    three = d.chance(0.65)
    radii = [d(0.2, 0.24), d(0.27, 0.32), d(0.36, 0.42)] if three else [d(0.26, 0.32), d(0.45, 0.52)]
    y, centres = 1.0, list[float]()
    for r in reversed(radii):
        centres.append(y - r)
        y -= 2 * r * 0.9
    body, head = centres[-2], centres[-1]
    for s in (-1, 1):
        hand = (s * d(0.68, 0.85), body - d(0.05, 0.4))
        yield line([(s * 0.2, body), hand], 0.05, 2)
        yield line(
            [(hand[0] * 0.85, hand[1] * 0.85 + body * 0.15), (hand[0] * 0.95, hand[1] - 0.13)],
            0.04,
            2,
            detail=True,
        )
    for c, r in zip(centres, reversed(radii), strict=True):
        yield area(ellipse(0, c, r * 1.05, r), 0)
    r = radii[0]
    yield from [area(ellipse(s * r * 0.4, head - r * 0.25, 0.035, 0.04), 2) for s in (-1, 1)]
    yield area([(0, head - 0.02), (d(0.2, 0.32), head + 0.08), (0, head + 0.09)], 1)
    yield from [area(ellipse(0, body + k * 0.15 - 0.1, 0.035, 0.035), 2, detail=True) for k in range(3)]
    if d.chance(0.65):
        yield area(box(-r * 0.75, head - r * 2.0, r * 0.75, head - r * 0.75), 2)
        yield area(box(-r * 1.25, head - r * 0.95, r * 1.25, head - r * 0.7), 2)
    if d.chance(0.6):
        yield area(box(-r * 0.85, head + r * 0.72, r * 0.85, head + r * 0.98, 0.05), 1)
        yield area(box(r * 0.25, head + r * 0.9, r * 0.6, head + r * 1.7, 0.03), 1, detail=True)


def cat(d: Dice) -> Iterator[Piece]:
    """A cat's face: ears, eyes, nose, whiskers."""
    w, h = d(0.68, 0.8), d(0.58, 0.68)
    ear = d(0.45, 0.62)
    for s in (-1, 1):
        tip = (s * w * d(0.82, 0.98), -h - ear * 0.75)
        yield area([(s * w * 0.98, -0.02), tip, (s * w * 0.2, -h * 0.85)], 0)
        inner = np.asarray([(s * w * 0.88, -0.2), tip, (s * w * 0.36, -h * 0.85)])
        yield area((inner - inner.mean(0)) * 0.62 + inner.mean(0), 1, detail=True)
    yield area(ellipse(0, 0, w, h), 0)
    for s in (-1, 1):
        yield area(ellipse(s * w * 0.42, -0.1, 0.13, d(0.09, 0.15)), 3)
        yield area(ellipse(s * w * 0.42, -0.1, 0.05, 0.1), 2)
        for k in range(d.count(2, 3)):
            y = 0.16 + 0.12 * k
            yield line([(s * 0.3, y), (s * d(0.95, 1.1), y - 0.14 + 0.13 * k)], 0.025, 2, detail=True)
        yield line(ellipse(s * 0.11, 0.27, 0.11, 0.09, 0, 180), 0.035, 2)
    yield area([(-0.09, 0.14), (0.09, 0.14), (0, 0.25)], 2)


def leaf(d: Dice) -> Iterator[Piece]:
    """A leaf with its veins."""
    w, widest = d(0.38, 0.6), d(-0.15, 0.35)
    half = curve(
        [(0, -0.95), (w * 0.65, -0.95 + (widest + 0.95) * 0.5), (w, widest), (w * 0.55, 0.55), (0, 0.72)]
    )
    yield area(symmetric(half), 0)
    yield line([(0, -0.8), (0, 0.6), (d(-0.12, 0.12), 1.0)], 0.05, 2)
    for k in range(d.count(3, 4)):
        y = -0.45 + 0.3 * k
        reach = float(np.interp(y - 0.18, half[:, 1], half[:, 0])) * 0.85
        yield from [line([(0, y), (s * reach, y - 0.2)], 0.03, 2, detail=True) for s in (-1, 1)]
