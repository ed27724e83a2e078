"""Axes in percent, what stands on them, and legends."""

from dataclasses import dataclass

from zssbir_cli.arrays import Floats
from zssbir_cli.viz.drawing import DASHES, INK, RULE, SIZE, SMALL, SOFT, Drawing, label_width

ROW = 17
"""From one line of a legend to the next."""
MARKS = range(0, 101, 20)
KEY = 26
"""Room for the mark before a legend's text."""


@dataclass(frozen=True)
class Plot:
    """A rectangle of a drawing with its corner at (left, top), and the ranges of numbers that it shows."""

    drawing: Drawing
    left: float
    top: float
    width: float
    height: float
    across: tuple[float, float] = (0, 100)
    up: tuple[float, float] = (0, 100)

    def x(self, value: float) -> float:
        """Where a number stands from left to right."""
        low, high = self.across
        return self.left + self.width * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Where a number stands from top to bottom."""
        low, high = self.up
        return self.top + self.height * (high - value) / (high - low)

    def columns(self, title: str) -> None:
        """Vertical lines at round percentages, with these and a title below, and the axis."""
        bottom = self.top + self.height
        for value in MARKS:
            x = self.x(value)
            self.drawing.line([(x, self.top), (x, bottom)], RULE)
            self.drawing.text(x, bottom + 13, str(value), colour=SOFT, anchor="middle")
        self.drawing.line([(self.left, bottom), (self.left + self.width, bottom)], SOFT)
        self.drawing.text(self.left + self.width / 2, bottom + 32, title, anchor="middle")

    def rows(self, title: str) -> None:
        """Horizontal lines at round percentages, with these and a title on the left, and the axis."""
        for value in MARKS:
            y = self.y(value)
            self.drawing.line([(self.left, y), (self.left + self.width, y)], RULE)
            self.drawing.text(self.left - 7, y, str(value), colour=SOFT, anchor="end")
        self.stem()
        x = self.left - 20 - label_width(str(MARKS[-1]), SIZE)
        self.drawing.text(x, self.top + self.height / 2, title, anchor="middle", turned=True)

    def stem(self) -> None:
        """The vertical axis alone."""
        self.drawing.line([(self.left, self.top), (self.left, self.top + self.height)], SOFT)

    def curve(self, xs: Floats, ys: Floats, colour: str, width: float, **style: object) -> None:
        """A line through points."""
        points = [(self.x(a), self.y(b)) for a, b in zip(xs.tolist(), ys.tolist(), strict=True)]
        self.drawing.line(points, colour, width, stroke_linejoin="round", **style)

    def level(self, value: float) -> None:
        """A dashed horizontal line."""
        y = self.y(value)
        self.drawing.line([(self.left, y), (self.left + self.width, y)], SOFT, stroke_dasharray=DASHES)


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend. kind: `line`, `area` or `dot`."""

    kind: str
    colour: str
    text: str
    width: float = 2
    dashes: str = "none"

    @property
    def room(self) -> float:
        """Pixels from the mark to the end of the text."""
        return KEY + label_width(self.text, SMALL)

    def draw(self, drawing: Drawing, x: float, y: float) -> None:
        """With its left end at x and its middle at y."""
        if self.kind == "line":
            drawing.line([(x, y), (x + 20, y)], self.colour, self.width, stroke_dasharray=self.dashes)
        elif self.kind == "area":
            drawing.box(x, y - 4, 20, 8, self.colour)
        else:
            drawing.dots([(x + 12, y)], 4, self.colour)
        drawing.text(x + KEY, y, self.text, SMALL, INK)
