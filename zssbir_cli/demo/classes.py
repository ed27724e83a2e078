"""The demo's classes: drawings in `classes.txt`, of which each instance varies parts, proportions and form."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

import numpy as np

from zssbir_cli.demo.geometry import Points, box, curve, ellipse, rounded, smooth, symmetric, turn
from zssbir_cli.demo.pieces import Dice, Piece, centred
from zssbir_cli.errors import UsageError
from zssbir_cli.names import listed, suggestion

_LINE = re.compile(
    r"(?P<when>\d+%|and|or)? ?(?P<detail>~)? ?(fill|line (?P<width>\S+)) (?P<tone>\w+) "
    r"(?P<side>both |half )?(?P<form>[a-z]+) (?P<numbers>[^;]+)(; (?P<count>\S+) (?P<copies>.+))?"
)
_TONES = ("main", "second", "dark", "light")
_FORMS: dict[str, Callable[[list[float]], Points]] = {
    "poly": lambda v: _pairs(v),
    "curve": lambda v: curve(_pairs(v)),
    "smooth": lambda v: smooth(_pairs(v)),
    "round": lambda v: rounded(_pairs(v[1:]), v[0]),
    "ellipse": lambda v: ellipse(*v),
    "box": lambda v: box(*v),
}


@dataclass(frozen=True)
class _Row:
    """A line of the table. when: a chance, "and" or "or"; copies: their least and greatest number, and how they lie."""

    piece: Piece
    when: float | str
    mirrored: bool
    count: tuple[int, int]
    copies: tuple[str, float, float]


def _pairs(numbers: list[float]) -> Points:
    return np.reshape(numbers, (-1, 2))


def _row(text: str) -> _Row:
    found = _LINE.fullmatch(text)
    if not found:
        raise ValueError(f"classes.txt: {text!r} is no piece")
    form, numbers = found["form"], [float(n) for n in found["numbers"].replace(",", "").split()]
    points = _FORMS[form](numbers)
    if found["side"] == "half ":
        points = symmetric(points)
    closed = form in ("box", "round", "smooth") or (form == "ellipse" and len(numbers) == 4)
    width = float(found["width"] or 0)
    piece = Piece(points, _TONES.index(found["tone"]), width, closed, found["detail"] is not None)
    when: float | str = found["when"] or "100%"
    if isinstance(when, str) and when.endswith("%"):
        when = float(when[:-1]) / 100
    low, _, high = (found["count"] or "1").partition("-")
    how, x, y = (found["copies"] or "by 0 0").split()
    side = found["side"] == "both "
    return _Row(piece, when, side, (int(low), int(high or low)), (how, float(x), float(y)))


def _table() -> dict[str, list[str]]:
    """The lines of each class."""
    text = resources.files(__package__).joinpath("classes.txt").read_text("utf-8")
    blocks = re.findall(r"^(\w+)\n((?:  .+\n)+)", text, re.MULTILINE)
    return {name: [line.strip() for line in lines.splitlines()] for name, lines in blocks}


_TABLE = _table()
CLASSES: tuple[str, ...] = tuple(sorted(_TABLE))
"""Names of all demo classes, sorted; the position is the class's label in a demo set."""


@cache
def _rows(name: str) -> list[_Row]:
    return [_row(line) for line in _TABLE[name]]


def draw_instance(name: str, rng: np.random.Generator) -> list[Piece]:
    """One random instance of class `name`: parts in painting order, centred, longest half extent 1.

    Raises UsageError for a name that is not in `CLASSES`.
    """
    if name not in _TABLE:
        raise UsageError(
            f"no demo class {name!r}{suggestion(name, CLASSES)}; the demo draws {len(CLASSES)} things: {listed(CLASSES)}"
        )
    d = Dice(rng)
    form, spin, drawn = _random_form(d), d(0, 360), True
    pieces: list[Piece] = []
    for row in _rows(name):
        drawn = d.chance(row.when) if isinstance(row.when, float) else drawn == (row.when == "and")
        if drawn:
            pieces += _copies(row, _varied(row.piece, d), d.count(*row.count), spin)
    return centred([replace(p, points=form(p.points)) for p in pieces])


def _varied(piece: Piece, d: Dice) -> Piece:
    """A piece of its own size; open lines keep their ends, where they join others."""
    points, width = piece.points, piece.width * d(0.75, 1.3)
    if piece.closed or not width:
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        points = (points - centre) * d.rng.uniform(0.87, 1.13, 2) + centre + d.rng.normal(0, 0.02, 2)
    return replace(piece, points=points, width=width)


def _copies(row: _Row, piece: Piece, count: int, spin: float) -> Iterator[Piece]:
    how, x, y = row.copies
    for k in range(count):
        if how == "by":
            points = piece.points + np.array((x, y)) * k
        else:
            points = turn(piece.points, (k + (how == "spin") * spin / 360) * 360 / count, (x, y))
        yield replace(piece, points=points)
        if row.mirrored:
            yield replace(piece, points=points * (-1, 1))


def _random_form(d: Dice) -> Callable[[Points], Points]:
    """A smooth change of the whole shape: slimmer, tapered, bulging, bent, with its weight higher or lower."""
    slim, taper, bulge, bend, skew, weight = d.rng.uniform(-1, 1, 6) * (0.16, 0.18, 0.12, 0.06, 0.07, 0.14)

    def form(points: Points) -> Points:
        x, y = points.T
        across = x * (1 + taper * y + bulge * y * y) * (1 + slim) + bend * y * y + skew * x * x
        return np.stack([across, y + weight * y * y], axis=1)

    return form
