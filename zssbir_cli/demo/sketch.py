"""Sketches of the demo shapes as a hand draws them: wobbling, overshooting, broken, forgotten strokes."""

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from zssbir_cli.arrays import Floats, UInt8
from zssbir_cli.demo.classes import draw_instance
from zssbir_cli.demo.geometry import Points, resample, tube
from zssbir_cli.demo.pieces import Dice, Piece

_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Hand:
    """How one person draws. Lengths are in units of the shape's half extent."""

    wobble: float
    """Amplitude of the slow drift of a line."""
    misfit: float
    """How far whole parts are misplaced."""
    overshoot: float
    """Spread of how much too long or too short strokes end."""
    skip: float
    """Chance that a stroke is forgotten."""
    detail: float
    """Chance that an inner detail is drawn at all."""
    retrace: float
    """Chance that a stroke is drawn twice."""
    lift: float
    """Chance that the pen is lifted at a corner."""
    short: bool
    """Whether long lines are built from short strokes."""
    width: float
    """Pen width in pixels of a 128 pixel picture."""
    taper: float
    """How much a stroke thins out at its ends, 0-1."""
    ink: int
    """Grey level of the ink, 0 = black."""
    grain: float
    """How rough the ink is (pencil), 0-1."""


def random_hand(d: Dice) -> Hand:
    """Someone with a pencil, a pen, a brush or a marker, careful or careless."""
    care = d(0.0, 1.0) ** 1.3
    tool = d.count(0, 3)
    width, ink, grain = (
        (d(1.0, 1.7), d.count(35, 95), d(0.15, 0.5)),
        (d(1.0, 1.7), d.count(0, 50), 0.0),
        (d(1.7, 2.8), d.count(0, 40), 0.0),
        (d(2.6, 3.8), d.count(0, 30), 0.0),
    )[tool]
    return Hand(
        wobble=0.008 + 0.022 * care,
        misfit=0.006 + 0.03 * care,
        overshoot=0.015 + 0.05 * care,
        skip=0.05 * care,
        detail=1.0 - 0.55 * d(0, 1) ** 1.5,
        retrace=d(0.2, 0.6) if tool == 0 and d.chance(0.5) else (0.15 if d.chance(0.2) else 0.0),
        lift=d(0.3, 1.0),
        short=d.chance(0.18),
        width=width,
        taper=d(0.0, 0.6),
        ink=ink,
        grain=grain,
    )


def draw_sketch(name: str, rng: np.random.Generator, size: int = 128) -> UInt8:
    """A sketch of a new random instance of class `name`: uint8 [size, size], dark ink on white (255).

    All ink lies inside the frame with a margin. Raises UsageError for an unknown class.
    """
    d = Dice(rng)
    hand = random_hand(d)
    parts = _posed(draw_instance(name, rng), d)
    jobs: list[_Job] = []
    for part in parts:
        if part.detail and not d.chance(hand.detail):
            continue
        jobs += _draw_part(part, hand, d)
    if not any(job.ink for job in jobs):
        return draw_sketch(name, rng, size)
    return _paint(_fit(jobs, hand, d, size), hand, rng, size)


@dataclass(frozen=True)
class _Job:
    """A white area that hides what lies behind (ink False) or a stroke with its widths (ink True)."""

    points: Points
    ink: bool
    width: Floats | float = 0.0


def _posed(parts: list[Piece], d: Dice) -> list[Piece]:
    """The instance as the person imagines it: maybe mirrored, a little tilted and stretched."""
    mirror = -1.0 if d.chance(0.5) else 1.0
    tilt, stretch = np.radians(d(-9, 9)), d(0.88, 1.13)
    matrix = np.array([[mirror * stretch, 0], [0, 1 / stretch]]) @ np.array(
        [[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]]
    )
    return [replace(p, points=p.points @ matrix) for p in parts]


def _draw_part(part: Piece, hand: Hand, d: Dice) -> list[_Job]:
    """White underlay and strokes of one part, slightly misplaced as a whole."""
    centre = part.points.mean(axis=0)
    angle, grow = np.radians(d(-60, 60)) * hand.misfit, 1 + d(-1, 1) * hand.misfit
    spin = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * grow
    points = (part.points - centre) @ spin + centre + d.rng.normal(0, hand.misfit * 0.5, 2)
    thin = part.width > 0 and part.width < 0.075
    if thin:
        return [job for piece in _pieces(points, part.closed, hand, d) for job in _strokes(piece, hand, d)]
    outlines = [points] if part.width == 0 else tube(points, part.width, part.closed)
    jobs = []
    if part.width == 0:
        jobs.append(_Job(points, ink=False))
    else:
        jobs.append(_Job(resample(points, 0.05, part.closed), ink=False, width=part.width))
    for outline in outlines:
        for piece in _pieces(outline, True, hand, d):
            jobs += _strokes(piece, hand, d)
    return jobs


def _pieces(points: Points, closed: bool, hand: Hand, d: Dice) -> list[Points]:
    """A path cut into the strokes it is drawn with: at some corners, and in short dashes for some hands."""
    if closed:
        start = _first_corner(points, d)
        points = np.concatenate([points[start:], points[: start + 1]])
    step = np.diff(points, axis=0)
    heading = np.arctan2(step[:, 1], step[:, 0])
    bend = np.abs((np.diff(heading) + np.pi) % (2 * np.pi) - np.pi)
    cuts = [int(i) + 1 for i in np.flatnonzero(bend > 0.7) if d.chance(hand.lift)]
    pieces = [points[a : b + 1] for a, b in zip([0, *cuts], [*cuts, len(points) - 1], strict=True)]
    fine = [resample(p, 0.035, False) for p in pieces]
    if not hand.short:
        return fine
    dashes = []
    for piece in fine:
        a = 0
        while a < len(piece) - 2:
            b = a + d.count(7, 16)
            dashes.append(piece[a : b + 2])
            a = b - d.count(0, 2)
    return dashes or fine


def _first_corner(points: Points, d: Dice) -> int:
    """Where the pen is put down on a closed outline: at its sharpest corner, else anywhere."""
    a, b = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    bend = np.abs((np.arctan2(b[:, 1], b[:, 0]) - np.arctan2(a[:, 1], a[:, 0]) + np.pi) % (2 * np.pi) - np.pi)
    return int(bend.argmax()) if bend.max() > 0.7 else d.count(0, len(points) - 1)


def _strokes(piece: Points, hand: Hand, d: Dice) -> list[_Job]:
    """The strokes for one piece: none if forgotten, two if retraced."""
    if len(piece) < 2 or d.chance(hand.skip if len(piece) < 16 else hand.skip * 0.25):
        return []
    return [_stroke(piece, hand, d) for _ in range(2 if d.chance(hand.retrace) else 1)]


def _stroke(piece: Points, hand: Hand, d: Dice) -> _Job:
    """One pen stroke: drift, ends too long or too short, width that breathes."""
    points = piece
    loop = len(piece) > 20 and float(np.hypot(*(piece[0] - piece[-1]))) < 0.06
    if loop and d.chance(0.75):
        points = np.concatenate([piece, piece[1 : d.count(2, 6)]])
    else:
        points = _end(
            _end(points, d.rng.normal(0.01, hand.overshoot))[::-1], d.rng.normal(0.01, hand.overshoot)
        )[::-1]
    n = len(points)
    knots = max(3, n // 7)
    at = np.linspace(0, knots - 1, n)
    drift = np.stack([_curve(at, d.rng.normal(0, 1, knots + 1)) for _ in range(2)], axis=1)
    tremor = d.rng.normal(0, 0.12, (n, 2))
    points = (
        points + (drift + tremor) * hand.wobble * min(1.0, n / 12) + d.rng.normal(0, hand.wobble * 0.5, 2)
    )
    ramp = np.minimum(np.arange(n), np.arange(n)[::-1]) / max(1.0, min(8.0, n / 3))
    pressure = 1 + 0.14 * _curve(at, d.rng.normal(0, 1, knots + 1))
    width = hand.width * np.clip(pressure, 0.6, 1.35) * (1 - hand.taper * (1 - np.minimum(ramp, 1)))
    return _Job(points, ink=True, width=width)


def _curve(at: Floats, knots: Floats) -> Floats:
    """Smooth interpolation (cosine) of values at integer knots."""
    low = np.minimum(at.astype(int), len(knots) - 2)
    t = (1 - np.cos((at - low) * np.pi)) / 2
    return np.asarray(knots[low] * (1 - t) + knots[low + 1] * t)


def _end(points: Points, extra: float) -> Points:
    """The end of a stroke made longer (along its direction) or shorter by `extra`."""
    if extra >= 0:
        direction = points[-1] - points[max(0, len(points) - 4)]
        length = float(np.hypot(direction[0], direction[1]))
        return np.concatenate([points, [points[-1] + direction / max(length, 1e-6) * extra]])
    drop = min(int(-extra / 0.035), max(0, len(points) - 4))
    return points[: len(points) - drop]


def _fit(jobs: list[_Job], hand: Hand, d: Dice, size: int) -> list[_Job]:
    """Strokes moved into the frame, in supersampled pixels; the ink never touches the border."""
    ink = np.concatenate([job.points for job in jobs if job.ink])
    low, high = ink.min(axis=0), ink.max(axis=0)
    side = size * _SUPERSAMPLE
    pen = hand.width * size / 128 * _SUPERSAMPLE
    room = side - 2 * (side * 0.03 + pen)
    scale = room * d(0.82, 1.0) / float((high - low).max())
    slack = (room - (high - low) * scale) / 2
    centre = side / 2 + slack * d.rng.uniform(-0.8, 0.8, 2)
    unit = size / 128 * _SUPERSAMPLE

    def moved(job: _Job) -> _Job:
        width = job.width * unit if job.ink else job.width * scale
        return _Job((job.points - (low + high) / 2) * scale + centre, job.ink, width)

    return [moved(job) for job in jobs]


def _paint(jobs: list[_Job], hand: Hand, rng: np.random.Generator, size: int) -> UInt8:
    side = size * _SUPERSAMPLE
    canvas = Image.new("L", (side, side), 255)
    draw = ImageDraw.Draw(canvas)
    for job in jobs:
        if job.ink:
            _pen(draw, job.points, np.asarray(job.width))
        elif isinstance(job.width, float) and job.width > 0:
            _pen(draw, job.points, np.full(len(job.points), job.width), 255)
        else:
            draw.polygon([tuple(p) for p in job.points.tolist()], fill=255)
    cover = 1 - np.asarray(canvas.reduce(_SUPERSAMPLE), dtype=np.float32) / 255
    if hand.grain > 0:
        noise = Image.fromarray(rng.integers(0, 256, (size, size), dtype=np.uint8)).filter(
            ImageFilter.BoxBlur(0.6)
        )
        rough = np.asarray(noise, dtype=np.float32) / 255
        cover = cover * (1 - hand.grain * np.clip(rough * 1.6 - 0.3, 0, 1))
    return np.asarray(np.rint(255 - cover * (255 - hand.ink)), dtype=np.uint8)


def _pen(draw: ImageDraw.ImageDraw, points: Points, width: Floats, tone: int = 0) -> None:
    """A line of varying width with round joints and ends."""
    p, r = points.tolist(), (width / 2).tolist()
    for a, b, ra, rb in zip(p, p[1:], r, r[1:], strict=False):
        draw.line((*a, *b), fill=tone, width=max(1, round(ra + rb)))
    for (x, y), q in zip(p, r, strict=True):
        draw.ellipse((x - q, y - q, x + q, y + q), fill=tone)
