"""A drawing of lines, shapes and texts, as an SVG document.

Places and sizes are pixels from the top left corner. Texts are measured in DejaVu Sans, so that a figure knows what room its labels
need; a browser takes the same font or Verdana, which is as wide, or another one, which is hardly ever wider.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from xml.sax.saxutils import escape, quoteattr

from zssbir_cli.files import printable
from zssbir_cli.viz.fonts import font, shortened

INK, SOFT, RULE, PAPER, BLUE, ORANGE = "#1c2330", "#5d6778", "#dde2ea", "#ffffff", "#2b5fb3", "#e07b20"
SIZE, SMALL = 12, 11
"""Of texts: titles of axes and numbers; names and legends."""
DASHES = "5 4"
_FAMILY = "DejaVu Sans, Verdana, sans-serif"
_WIDE = 1.2
"""Width of a character as wide as it is high (Chinese, emoji), which DejaVu Sans lacks, in units of its size."""

Point = tuple[float, float]


class Drawing:
    """A white sheet of `width` x `height` pixels; what is drawn later lies on top."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def box(self, x: float, y: float, width: float, height: float, fill: str, **style: object) -> None:
        """A rectangle."""
        self._add("rect", x=x, y=y, width=width, height=height, fill=fill, **style)

    def line(self, points: Iterable[Point], colour: str, width: float = 1, **style: object) -> None:
        """A stroke through some points."""
        self._add("polyline", points=_places(points), fill="none", stroke=colour, stroke_width=width, **style)

    def area(self, points: Iterable[Point], fill: str, **style: object) -> None:
        """A filled outline."""
        self._add("polygon", points=_places(points), fill=fill, **style)

    def path(self, steps: str, **style: object) -> None:
        """A path in SVG's own letters: many shapes of one style at once."""
        self._add("path", d=steps, **style)

    def dots(self, places: Iterable[Point], radius: float, fill: str, **style: object) -> None:
        """Filled circles."""
        r = _number(radius)
        step = f"a{r} {r} 0 1 0 {_number(2 * radius)} 0a{r} {r} 0 1 0 {_number(-2 * radius)} 0z"
        self.path(
            "".join(f"M{_number(x - radius)} {_number(y)}{step}" for x, y in places), fill=fill, **style
        )

    def text(self, x: float, y: float, text: str, size: int = SIZE, colour: str = INK, *, anchor: str = "start",
             turned: bool = False) -> None:  # fmt: skip
        """A line of text, its middle at height y.

        anchor: which end of it is at x, `start`, `middle` or `end`. turned: read from below, with its middle at x.
        """
        drop = 0.36 * size
        x, y = (x + drop, y) if turned else (x, y + drop)
        turn = {"transform": f"rotate(-90 {_number(x)} {_number(y)})"} if turned else {}
        ends = {} if anchor == "start" else {"text_anchor": anchor}
        self._add("text", escape(text), x=x, y=y, font_size=size, fill=colour, **ends, **turn)

    def svg(self) -> str:
        """The document."""
        w, h = _number(self.width), _number(self.height)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" '
            f'font-family="{_FAMILY}"><rect width="{w}" height="{h}" fill="{PAPER}"/>'
        )
        return head + "".join(self._parts) + "</svg>\n"

    def _add(self, element: str, inside: str = "", /, **attributes: object) -> None:
        texts = (
            f" {name.replace('_', '-')}={quoteattr(_number(v) if isinstance(v, float) else str(v))}"
            for name, v in attributes.items()
        )
        self._parts.append(
            f"<{element}{''.join(texts)}" + (f">{inside}</{element}>" if inside else "/>") + "\n"
        )


def label_width(text: str, size: int) -> float:
    """Pixels that a text takes."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    narrow = "".join(c for c in text if unicodedata.east_asian_width(c) not in "WF")
    return font(size).getlength(narrow) + wide * _WIDE * size


def widest(texts: Sequence[str], size: int) -> float:
    """Pixels that the widest of some texts takes; 0 for none."""
    return max((label_width(text, size) for text in texts), default=0.0)


def label_text(text: str, room: float, size: int) -> str:
    """Any text as one that can stand in a document, without its middle where it is wider than `room` pixels."""
    clean = "".join(
        " " if unicodedata.category(c) == "Cc" or c in "\ufffe\uffff" else c for c in printable(text)
    )
    clean = unicodedata.normalize("NFC", " ".join(clean.split()))
    return shortened(clean, lambda part: label_width(part, size) <= room)


def _places(points: Iterable[Point]) -> str:
    return " ".join(f"{_number(x)},{_number(y)}" for x, y in points)


def _number(value: float) -> str:
    """At most two decimals: a two-hundredth of a pixel is not seen."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
