"""What a demo shape is made of: filled areas and lines, and the dice that vary them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zssbir_cli.demo.geometry import Points


@dataclass(frozen=True)
class Piece:
    """One piece of a shape. Parts are painted in order, later ones cover earlier ones.

    points: [N, 2]; width: 0 for a filled polygon, else the thickness of a line along `points`;
    tone: which colour of the instance (0 main, 1 second, 2 dark, 3 light); closed: whether the line
    returns to its start; detail: whether a hurried hand may leave it out of a sketch.
    """

    points: Points
    tone: int = 0
    width: float = 0.0
    closed: bool = True
    detail: bool = False


class Dice:
    """Short names for the random choices of a shape; all randomness comes from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def __call__(self, low: float, high: float) -> float:
        """A uniform number in [low, high)."""
        return float(self.rng.uniform(low, high))

    def count(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, p: float) -> bool:
        """True with probability p."""
        return bool(self.rng.random() < p)


def centred(parts: Sequence[Piece]) -> list[Piece]:
    """The parts moved and scaled (aspect kept) so that their bounding box is centred with longest half 1."""
    low, high = extent(parts)
    centre, half = (low + high) / 2, float((high - low).max()) / 2
    return [replace(p, points=(p.points - centre) / half, width=p.width / half) for p in parts]


def extent(parts: Sequence[Piece]) -> tuple[Points, Points]:
    """The corners (least, greatest x and y) of the parts' bounding box."""
    low = np.min([p.points.min(axis=0) - p.width / 2 for p in parts], axis=0)
    return low, np.max([p.points.max(axis=0) + p.width / 2 for p in parts], axis=0)
