"""Things to wear, things to eat and signs. Each function draws one random instance in a free unit frame."""

from collections.abc import Iterator

import numpy as np

from zssbir_cli.demo.geometry import box, curve, ellipse, rounded, smooth, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, area, line


def eyeglasses(d: Dice) -> Iterator[Piece]:
    """Two rims, a bridge and the temples."""
    r, t = d(0.34, 0.42), d(0.06, 0.1)
    tall = d(0.65, 1.05)
    square = d.chance(0.4)
    for s in (-1, 1):
        rim = (
            box(s * 0.5 - r, -r * tall, s * 0.5 + r, r * tall, 0.14)
            if square
            else ellipse(s * 0.5, 0, r, r * tall)
        )
        arm = curve(
            [(s * (0.5 + r), -r * tall * 0.5), (s * 1.02, -r * tall * 0.6), (s * 1.08, -d(0.5, 0.75))]
        )
        yield line(arm, t, 0)
        yield area(rim, 3)
        yield line(rim, t, 0, closed=True)
        yield line([(s * 0.5 - 0.1, 0.08), (s * 0.5 + 0.06, -0.1)], 0.03, 1, detail=True)
    bridge = ellipse(0, -0.02, max(0.06, 0.5 - r), d(0.06, 0.15), 180, 360)
    yield line(bridge, t, 0)


def hat(d: Dice) -> Iterator[Piece]:
    """A hat with a brim and a band."""
    w, h, brim = d(0.42, 0.56), d(0.6, 1.0), d(0.08, 0.16)
    dent = d(0.0, 0.16)
    crown = curve(
        [
            (-w, 0.3),
            (-w * 0.95, -h * 0.5),
            (-w * 0.75, 0.3 - h),
            (0, 0.3 - h + dent),
            (w * 0.75, 0.3 - h),
            (w * 0.95, -h * 0.5),
            (w, 0.3),
        ]
    )
    curl = d(-0.12, 0.12)
    edge = smooth(
        [
            (-0.98, 0.32 - curl),
            (-0.4, 0.32 - brim * 0.6),
            (0.4, 0.32 - brim * 0.6),
            (0.98, 0.32 - curl),
            (0.5, 0.36 + brim),
            (-0.5, 0.36 + brim),
        ]
    )
    yield area(edge, 0)
    yield area(crown, 0)
    band = [(-w * 1.0, 0.12), (0, 0.19), (w * 1.0, 0.12), (w * 1.01, 0.3), (0, 0.38), (-w * 1.01, 0.3)]
    yield area(curve(band[:3]).tolist() + curve(band[3:]).tolist(), 1)


def t_shirt(d: Dice) -> Iterator[Piece]:
    """A shirt with short sleeves, a collar, sometimes a print."""
    w, sleeve, drop = d(0.45, 0.58), d(0.28, 0.42), d(0.35, 0.55)
    neck = d(0.16, 0.24)
    half = [
        (neck, -0.85),
        (w, -0.72),
        (w + sleeve, -0.72 + drop),
        (w + sleeve * 0.45, -0.5 + drop),
        (w * 0.98, -0.25),
        (w * d(0.95, 1.1), 0.9),
    ]
    yield area(rounded(symmetric(half), 0.06), 0)
    yield line(ellipse(0, -0.85, neck, d(0.12, 0.25), 0, 180), 0.07, 1)
    for s in (-1, 1):
        yield line([(s * w * 0.98, -0.25), (s * w * 0.93, -0.6)], 0.03, 2, detail=True)
        yield line(
            [(s * (w + sleeve) * 0.96, -0.76 + drop), (s * (w + sleeve * 0.45) * 0.97, -0.56 + drop)],
            0.04,
            1,
            detail=True,
        )
    kind = d.count(0, 3)
    if kind == 0:
        yield area(ellipse(0, -0.05, 0.24, 0.24), 1, detail=True)
    elif kind == 1:
        yield from [area(box(-w * 0.94, y, w * 0.94, y + 0.12), 1, detail=True) for y in (-0.15, 0.15, 0.45)]
    elif kind == 2:
        yield area(box(0.12, -0.4, 0.38, -0.12, 0.02), 3, detail=True)


def boot(d: Dice) -> Iterator[Piece]:
    """A boot with sole, cuff and laces."""
    w, toe, h = d(0.3, 0.4), d(0.6, 0.8), d(0.8, 1.0)
    upper = [
        (-w, -h),
        (w, -h),
        (w * 0.95, 0.1),
        (toe * 0.8, 0.3),
        (toe + 0.05, 0.52),
        (toe + 0.05, 0.75),
        (-w - 0.03, 0.75),
        (-w * 0.95, 0.1),
    ]
    heel = d(0.05, 0.2)
    sole = [
        (-w - 0.06, 0.72),
        (toe + 0.1, 0.72),
        (toe + 0.08, 0.86),
        (0.12, 0.86),
        (0.06, 0.86 + heel),
        (-w - 0.05, 0.86 + heel),
    ]
    yield area(rounded(upper, 0.16), 0)
    yield area(sole, 2)
    yield area(box(-w - 0.05, -h - 0.04, w + 0.05, -h + d(0.1, 0.24), 0.03), 1)
    for k in range(d.count(2, 4)):
        y = -0.45 + 0.2 * k
        yield line([(w * 0.25, y + 0.04), (w * 0.98, y - 0.05)], 0.04, 3, detail=True)
    yield line(curve([(w * 0.2, 0.05), (0.25, 0.4), (0.28, 0.72)]), 0.03, 2, detail=True)


def crown(d: Dice) -> Iterator[Piece]:
    """A king's crown: points with balls, a band with stones."""
    n, h = d.count(3, 5), d(0.55, 0.85)
    flare, valley = d(1.0, 1.25), d(0.35, 0.6)
    w = 0.78
    xs = np.linspace(-1, 1, 2 * n - 1)
    top = [
        (x * w * flare, 0.5 - h - (0.15 if k == n - 1 else 0))
        if k % 2 == 0
        else (x * w * 1.05, 0.5 - h * valley)
        for k, x in enumerate(xs)
    ]
    yield area([*top, (w, 0.65), (-w, 0.65)], 0)
    yield from [area(ellipse(x, y - 0.04, 0.09, 0.09), 1) for x, y in top[::2]]
    yield area(box(-w, 0.42, w, 0.7, 0.03), 3 if d.chance(0.5) else 1)
    stones = d.count(3, 5)
    yield from [
        area(ellipse(x, 0.56, 0.07, 0.08), 2, detail=True) for x in np.linspace(-w * 0.75, w * 0.75, stones)
    ]


def star(d: Dice) -> Iterator[Piece]:
    """A five-pointed star, sometimes with a smaller one inside or creases."""
    inner, bend = d(0.38, 0.52), d(0.0, 0.14)
    spikes = [turn([(0, -1 if k % 2 == 0 else -inner)], 36 * k)[0] for k in range(10)]
    yield area(rounded(spikes, bend) if bend > 0.04 else spikes, 0)
    kind = d.count(0, 2)
    if kind == 0:
        yield area(np.asarray(spikes) * 0.55, 1, detail=True)
    elif kind == 1:
        yield from [line([(0, 0), tuple(spikes[k] * 0.93)], 0.03, 2, detail=True) for k in range(0, 10, 2)]


def heart(d: Dice) -> Iterator[Piece]:
    """A heart, sometimes with a second one inside, a ribbon or a crack."""
    w, dip = d(0.8, 1.0), d(0.22, 0.42)
    half = curve(
        [(0, -0.75 + dip), (w * 0.25, -0.78), (w * 0.7, -0.78), (w, -0.38), (w * 0.72, 0.2), (0, 0.9)]
    )
    whole = symmetric(half)
    yield area(whole, 0)
    kind = d.count(0, 3)
    if kind == 0:
        yield area(whole * 0.6 + (0, -0.04), 1, detail=True)
    elif kind == 1:
        yield line([(0.0, -0.4), (-0.12, -0.1), (0.1, 0.1), (-0.04, 0.42)], 0.05, 2, detail=True)
    elif kind == 2:
        yield line(ellipse(-w * 0.4, -0.38, 0.24, 0.22, 170, 260), 0.06, 3, detail=True)


def ice_cream(d: Dice) -> Iterator[Piece]:
    """A cone with one to three scoops."""
    w, h = d(0.34, 0.44), d(0.85, 1.05)
    cone = [(-w, 0), (w, 0), (0, h)]
    yield area(cone, 1)
    for f in (0.3, 0.65):  # a lattice of crossing lines, each from the rim to the other side
        t = 0.65 * (1 - f)
        for s in (-1, 1):
            start, end = (s * w * (1 - 2 * f), 0.02), (-s * w * (1 - t), h * t)
            yield line([start, end], 0.03, 2, detail=True)
    n = d.count(1, 3)
    r = w * d(1.0, 1.15)
    one, two = [(0.0, -0.22)], [(0.0, -0.75), (0.0, -0.2)]
    centres = (one, two, [(0.0, -0.72), (-w * 0.72, -0.18), (w * 0.72, -0.18)])[n - 1]
    for k, (x, y) in enumerate(centres):
        yield area(ellipse(x, y, r, r * 0.95), (0, 3, 0)[k] if n > 1 else 0)
    if d.chance(0.5):
        x, y = centres[0]
        yield area(ellipse(x, y - r - 0.06, 0.11, 0.11), 2)
    drip = smooth(
        [
            (-w * 1.1, -0.06),
            (-w * 0.6, 0.14),
            (-w * 0.2, 0.0),
            (w * 0.25, 0.18),
            (w * 0.65, 0.02),
            (w * 1.1, -0.06),
            (0, -0.2),
        ]
    )
    yield area(drip, 0)


def apple(d: Dice) -> Iterator[Piece]:
    """An apple with a stalk and a leaf, sometimes bitten."""
    w, dip = d(0.72, 0.85), d(0.08, 0.2)
    half = curve([(0, -0.58 + dip), (w * 0.5, -0.66), (w, -0.2), (w * 0.8, 0.5), (w * 0.35, 0.85), (0, 0.78)])
    bend = d(-0.15, 0.2)
    yield area(symmetric(half), 0)
    yield line(curve([(0, -0.5), (bend * 0.4, -0.75), (bend, -0.98)]), d(0.06, 0.09), 2)
    if d.chance(0.85):
        s = 1 if bend < 0.05 else -1
        leaf = smooth([(s * 0.05, -0.68), (s * 0.3, -0.95), (s * 0.62, -0.92), (s * 0.36, -0.68)])
        yield area(leaf, 1)
        yield line([(s * 0.05, -0.68), (s * 0.45, -0.87)], 0.025, 2, detail=True)
    if d.chance(0.5):
        yield line(ellipse(-w * 0.45, -0.1, 0.2, 0.34, 150, 240), 0.05, 3, detail=True)


def mushroom(d: Dice) -> Iterator[Piece]:
    """A mushroom: spotted cap on a stem."""
    w, h, stem = d(0.78, 0.98), d(0.65, 0.95), d(0.2, 0.34)
    low = d(0.0, 0.12)
    stalk = curve([(stem * 0.85, 0.0), (stem * 0.8, 0.5), (stem * d(1.0, 1.4), 0.92)])
    yield area(symmetric(stalk), 3)
    cap = [*ellipse(0, low, w, h, 180, 360, 26), *ellipse(0, low, w, d(0.08, 0.18), 0, 180, 16)]
    yield area(np.asarray(cap), 0)
    for _ in range(d.count(2, 5)):
        a, f = d(200, 340), d(0.3, 0.75)
        spot = ellipse(0, low, w * f, h * f, a, a + 1, 1)[0]
        yield area(ellipse(spot[0], spot[1], d(0.08, 0.14), d(0.07, 0.12)), 1, detail=True)
    if d.chance(0.4):
        yield line(ellipse(0, 0.3, stem, 0.08, 0, 180), 0.05, 1, detail=True)
