"""Things of the household. Each function draws one random instance in a free unit frame."""

from collections.abc import Iterator

from zssbir_cli.demo.geometry import box, curve, ellipse, rounded, shift, smooth, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, area, line


def cup(d: Dice) -> Iterator[Piece]:
    """A mug: tapered body, handle at the side, sometimes a saucer, a band or steam."""
    h, top, foot = d(0.55, 0.9), d(0.5, 0.7), d(0.55, 1.0)
    lip = d(0.05, 0.13)
    y = d(-0.1, 0.1)
    handle = curve(
        [
            (top * 0.9, y - h * 0.5),
            (top + d(0.3, 0.5), y - h * 0.45),
            (top + d(0.25, 0.42), y + h * 0.3),
            (top * 0.82, y + h * 0.42),
        ]
    )
    base = top * foot
    body = curve([(top, -h), (top * 0.99, -h * 0.3), (base * 1.03, h * 0.55), (base * 0.9, h)])
    if d.chance(0.35):
        yield area(ellipse(0, h, top * 1.55, 0.14), 1)
    yield line(handle, d(0.1, 0.17), 0)
    yield area(symmetric(body), 0)
    if d.chance(0.5):
        a, b = d(-0.5, 0.1) * h, d(0.2, 0.6) * h
        yield area(
            [(-top * 0.97, a), (top * 0.97, a), ((top + base) / 2, b), (-(top + base) / 2, b)], 1, detail=True
        )
    yield area(ellipse(0, -h, top, lip), 3)
    yield area(ellipse(0, -h + lip * 0.2, top * 0.86, lip * 0.7), 2, detail=True)
    if d.chance(0.3):
        for x in (-0.2, 0.15):
            yield line(
                curve([(x, -h - 0.15), (x + 0.08, -h - 0.3), (x - 0.06, -h - 0.45), (x + 0.04, -h - 0.62)]),
                0.035,
                3,
                detail=True,
            )


def teapot(d: Dice) -> Iterator[Piece]:
    """A round pot with spout, handle and a lid with a knob."""
    w, h = d(0.6, 0.75), d(0.45, 0.65)
    body = smooth([(-w * 0.55, -h), (w * 0.55, -h), (w, 0.0), (w * 0.6, h), (-w * 0.6, h), (-w, 0.0)])
    spout = curve([(w * 0.75, 0.25), (w + 0.2, 0.02), (w + d(0.38, 0.5), -h * d(0.8, 1.1))])
    tip = spout[-1]
    nose = [
        (w * 0.7, h * 0.55),
        (w + 0.25, 0.12),
        (tip[0] + 0.1, tip[1] + 0.02),
        (tip[0] - 0.08, tip[1] - 0.05),
        (w + 0.1, -0.1),
        (w * 0.8, -0.2),
    ]
    if d.chance(0.35):
        handle = ellipse(0, -h, w * 0.85, d(0.5, 0.7), 180, 360)
    else:
        r = d(0.3, 0.42)
        handle = ellipse(-w * 0.92, -0.05, r, h * 0.72, 60, 300)
    yield line(handle, d(0.08, 0.13), 1)
    yield area(rounded(nose, 0.06), 0)
    yield area(body, 0)
    lid = ellipse(0, -h * 0.97, w * 0.58, d(0.14, 0.24), 180, 360)
    yield area(ellipse(0, -h * 1.0 - 0.24, 0.08, 0.09), 1)
    yield area(lid, d.count(0, 1))
    if d.chance(0.5):
        yield area(ellipse(0, 0.02, w * 0.28, h * 0.4), 3, detail=True)
    yield area(box(-w * 0.5, h * 0.93, w * 0.5, h + 0.08, 0.04), 1)


def bottle(d: Dice) -> Iterator[Piece]:
    """A bottle: shoulders, neck, cap, label."""
    w, neck, shoulder = d(0.26, 0.38), d(0.09, 0.13), d(-0.35, -0.05)
    half = [
        (neck, -0.9),
        (neck, shoulder - d(0.22, 0.35)),
        (w * 0.92, shoulder),
        (w, shoulder + 0.2),
        (w, 0.85),
        (w * 0.85, 0.95),
    ]
    yield area(symmetric(curve(half)), 0)
    yield area(box(-neck * 1.25, -1.0, neck * 1.25, -0.84, 0.02), 1)
    a, b = shoulder + d(0.2, 0.35), d(0.55, 0.75)
    yield area(box(-w, a, w, b), 3)
    if d.chance(0.6):
        yield area(ellipse(0, (a + b) / 2, w * 0.5, (b - a) * 0.3), 1, detail=True)
    if d.chance(0.5):
        yield line([(-neck * 1.1, -0.7), (neck * 1.1, -0.7)], 0.04, 1, detail=True)


def wine_glass(d: Dice) -> Iterator[Piece]:
    """A glass on a stem, with or without something in it."""
    w, bowl = d(0.36, 0.55), d(0.55, 0.85)
    belly = w * d(1.0, 1.25)
    top = -0.9
    half = curve([(w, top), (belly, top + bowl * 0.45), (belly * 0.6, top + bowl * 0.86), (0.03, top + bowl)])
    foot = d(0.32, 0.48)
    yield area(ellipse(0, 0.88, foot, 0.09), 0)
    yield line([(0, top + bowl - 0.03), (0, 0.86)], d(0.06, 0.1), 0, closed=False)
    yield area(symmetric(half), 3)
    if d.chance(0.75):
        fill = d(0.3, 0.55)
        yield area(symmetric([p for p in half if p[1] > top + bowl * fill]) * (0.93, 1.0), 0)
    yield line(ellipse(0, top, w, 0.07), 0.03, 1, closed=True)


def chair(d: Dice) -> Iterator[Piece]:
    """A chair seen from the side and a little from the front: back with slats, seat, four legs."""
    w, depth, back = d(0.42, 0.55), d(0.2, 0.34), d(0.75, 1.0)
    t, lean = d(0.06, 0.1), d(-0.12, 0.02)
    seat = [(-w, 0.05), (w, 0.05), (w + depth, 0.05 + depth * 0.7), (-w + depth, 0.05 + depth * 0.7)]
    leg = d(0.75, 0.95)
    yield from [line([(x, 0.08), (x, leg - 0.15)], t, 2) for x in (-w + 0.03, w - 0.03)]
    yield line([(-w, 0.05), (-w + lean, -back)], t, 0)
    yield line([(w, 0.05), (w + lean, -back)], t, 0)
    if d.chance(0.5):
        for k in range(d.count(2, 3)):
            y = -back * (0.95 - 0.27 * k)
            yield line([(-w + lean * 0.8, y), (w + lean * 0.8, y)], t * 1.3, 0)
    else:
        yield line([(-w + lean, -back), (w + lean, -back)], t * 2, 0)
        for k in range(d.count(2, 4)):
            x = -w + (k + 1) * 2 * w / 5.2
            yield line([(x, 0.0), (x + lean, -back)], t * 0.7, 0)
    yield area(rounded(seat, 0.05), 1)
    for x in (-w + depth + 0.03, w + depth - 0.03):
        yield line([(x, 0.07 + depth * 0.7), (x, leg + depth * 0.7)], t, 0)
    if d.chance(0.4):
        yield line([(-w + depth, 0.5 + depth), (w + depth, 0.5 + depth)], t * 0.6, 0, detail=True)


def table_lamp(d: Dice) -> Iterator[Piece]:
    """A lamp shade on a stand."""
    top, low, h = d(0.2, 0.38), d(0.55, 0.72), d(0.55, 0.75)
    shade = [(-top, -0.95), (top, -0.95), (low, -0.95 + h), (-low, -0.95 + h)]
    foot = d(0.32, 0.48)
    if d.chance(0.5):
        belly = d(0.18, 0.32)
        stand = area(symmetric(curve([(0.06, -0.4), (0.08, 0.0), (belly, 0.42), (0.12, 0.82)])), 1)
    else:
        stand = line([(0, -0.5), (0, 0.85)], d(0.06, 0.11), 1)
    base = ellipse(0, 0.9, foot, 0.13, 180, 360) if d.chance(0.5) else box(-foot, 0.82, foot, 0.93, 0.04)
    yield stand
    yield area(base, 1)
    yield area(shade, 0)
    y = -0.95 + h
    if d.chance(0.6):
        yield line([(-low * 0.97, y - 0.08), (low * 0.97, y - 0.08)], 0.05, 3, detail=True)
    if d.chance(0.5):
        yield line([(low * 0.5, y), (low * 0.5, y + 0.3)], 0.025, 2, detail=True)
        yield area(ellipse(low * 0.5, y + 0.33, 0.04, 0.05), 2, detail=True)


def candle(d: Dice) -> Iterator[Piece]:
    """A candle with a flame, on a dish or in a holder."""
    w, h = d(0.16, 0.28), d(0.75, 1.1)
    y = 0.62 - h
    if d.chance(0.6):
        r = d(0.16, 0.22)
        yield line(ellipse(d(0.52, 0.6), 0.66, r, r), 0.07, 1, closed=True)
    dish = d(0.45, 0.6)
    yield area(symmetric(curve([(dish, 0.56), (dish * 0.92, 0.7), (dish * 0.6, 0.82)])), 1)
    yield area(box(-w, y, w, 0.64, 0.03), 0)
    yield area(ellipse(0, y, w, 0.06), 3)
    drip = d(0.15, 0.4)
    yield line([(-w * 0.55, y + 0.03), (-w * 0.55, y + drip)], 0.08, 3, detail=True)
    yield line([(0, y), (d(-0.03, 0.03), y - 0.14)], 0.035, 2)
    f = d(0.3, 0.45)
    flame = smooth(
        [
            (d(-0.04, 0.04), y - 0.1 - f),
            (0.11, y - 0.1 - f * 0.45),
            (0.09, y - 0.12),
            (-0.09, y - 0.12),
            (-0.11, y - 0.1 - f * 0.42),
        ]
    )
    yield area(flame, 3)
    yield area(shift(flame * (0.5, 0.5), 0, (y - 0.13) * 0.5), 1, detail=True)


def alarm_clock(d: Dice) -> Iterator[Piece]:
    """A round clock on two feet, with two bells, hands and marks."""
    r = d(0.6, 0.68)
    yield from [line([(s * 0.3, 0.45), (s * d(0.45, 0.6), 0.88)], d(0.1, 0.15), 2) for s in (-1, 1)]
    for s in (-1, 1):
        bell = shift(ellipse(0, 0, 0.27, 0.24, 180, 360), 0, -r - 0.06)
        yield area(turn(bell, s * d(30, 40)), 1)
    if d.chance(0.6):
        yield line(ellipse(0, -r - 0.05, 0.16, 0.24, 180, 360), 0.05, 2)
    yield area(ellipse(0, 0, r, r), 0)
    yield area(ellipse(0, 0, r * 0.8, r * 0.8), 3)
    marks = 12 if d.chance(0.5) else 4
    for k in range(marks):
        tick = turn([(0, -r * 0.72), (0, -r * 0.62)], k * 360 / marks)
        yield line(tick, 0.035, 2, detail=True)
    yield line(turn([(0, 0.04), (0, -r * 0.58)], d(0, 360)), 0.05, 2)
    yield line(turn([(0, 0.04), (0, -r * 0.38)], d(0, 360)), 0.06, 2)


def lightbulb(d: Dice) -> Iterator[Piece]:
    """A bulb with a screw base and a filament."""
    r, neck = d(0.5, 0.6), d(0.2, 0.26)
    half = curve([(0, -0.95), (r * 0.75, -0.8), (r, -0.38), (r * 0.7, 0.05), (neck, 0.35), (neck, 0.46)])
    yield area(symmetric(half), 3 if d.chance(0.5) else 0)
    wire = [
        (-0.08, 0.42),
        (-0.16, -0.22),
        (-0.07, -0.36),
        (0, -0.2),
        (0.07, -0.36),
        (0.16, -0.22),
        (0.08, 0.42),
    ]
    yield line(wire, 0.03, 2, detail=True)
    yield area(box(-neck, 0.44, neck, 0.82, 0.04), 1)
    for y in (0.53, 0.64, 0.75):
        yield line([(-neck - 0.03, y + 0.02), (neck + 0.03, y - 0.03)], 0.035, 2, detail=True)
    yield area([(-neck * 0.6, 0.82), (neck * 0.6, 0.82), (neck * 0.25, 0.93), (-neck * 0.25, 0.93)], 2)


def envelope(d: Dice) -> Iterator[Piece]:
    """A letter with its flap, a seal or a stamp."""
    w, h = 0.95, d(0.52, 0.68)
    yield area(box(-w, -h, w, h, 0.03), 0)
    tip = d(0.0, 0.22)
    if d.chance(0.7):
        yield line([(-w, h), (-0.12, tip - 0.08)], 0.03, 2, detail=True)
        yield line([(w, h), (0.12, tip - 0.08)], 0.03, 2, detail=True)
    yield area([(-w, -h), (w, -h), (0, tip)], 1)
    if d.chance(0.5):
        yield area(ellipse(0, tip - 0.04, 0.13, 0.13), 3)


def book(d: Dice) -> Iterator[Piece]:
    """An open book with lines of text."""
    w, h, sag = 0.92, d(0.5, 0.66), d(0.1, 0.2)

    def page(s: float) -> list[tuple[float, float]]:
        across = (s * w * 0.4, -h), (s * w, -h + sag * 0.4), (s * w, h), (s * w * 0.4, h - sag * 0.4)
        return [(0, -h + sag), *across, (0, h + sag * 0.6)]

    yield area(
        [
            (-w - 0.06, -h + 0.1),
            (w + 0.06, -h + 0.1),
            (w + 0.06, h + 0.09),
            (0, h + sag * 0.6 + 0.1),
            (-w - 0.06, h + 0.09),
        ],
        0,
    )
    yield area(page(-1), 3)
    yield area(page(1), 3)
    for s in (-1, 1):
        for k in range(d.count(3, 5)):
            y = -h + 0.3 + 0.2 * k
            if y < h - 0.12:
                yield line(
                    [(s * 0.16, y + sag * 0.3), (s * w * 0.45, y - sag * 0.15), (s * w * 0.84, y)],
                    0.035,
                    2,
                    detail=True,
                )
