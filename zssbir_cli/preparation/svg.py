"""SVG sketches -> PNG bytes, by resvg (one wheel of 3 MB, no system library, no scripts, no network).

A document is read by expat and written anew before resvg sees it: references to anything but the document itself are
dropped, and documents deeper, larger or more repetitive than a drawing are refused (resvg would overflow its stack). Filter
effects (blur, noise) are left out: some never end, and strokes are what counts.
"""

import gzip
import io
import re
from contextlib import suppress
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

from zssbir_cli.errors import DataError

SIDE = 512
"""The drawing is fitted into a square of this many pixels."""
MAX_BYTES = 16 << 20
MAX_DEPTH = 100
MAX_ELEMENTS = 200_000
MAX_USES = 1_000
"""`use` elements, each of which may repeat others."""
MAX_IMAGE = 4 << 20
LEAST_VIEW = 0.01
"""Sides of the smallest view."""
_PLACES = frozenset(
    ["d", "points", "x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "cx", "cy", "r", "rx", "ry", "width", "height", "viewBox",
     "transform", "gradientTransform", "patternTransform", "stroke-width", "font-size", "style"]
)  # fmt: skip
_HUGE = re.compile(r"(?<![\d.#\w])\d{8,}|\d[eE]\+?0*(?:[3-9]|[1-9]\d)")
"""A number of ten million or more, or with an exponent that no program writes for a smaller one."""
_INSIDE = re.compile(r"\s*(#|data:image/(png|jpe?g|gif|webp);)", re.IGNORECASE)
_URL = re.compile(r"url\(\s*['\"]?\s*(?!#|['\"\s]*#)[^)]*\)|@import[^;]*;?", re.IGNORECASE)
_FILTER = re.compile(r"(?<![\w-])filter\s*:[^;}]*", re.IGNORECASE)
_EFFECT = re.compile(r"filter|fe[A-Z]\w*")


def rasterise(raw: bytes) -> bytes:
    """Draw an SVG on a transparent ground; returns PNG bytes.

    Errors: DataError when it does not parse, is enormous or hostile, or draws nothing that has a size.
    """
    import resvg_py

    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise DataError(f"an SVG of more than {MAX_BYTES >> 20} MiB")
        text = harmless(raw)
        return bytes(resvg_py.svg_to_bytes(svg_string=text, width=SIDE, height=SIDE, skip_system_fonts=True))
    except (ValueError, OSError, EOFError, expat.ExpatError) as error:
        raise DataError(f"not a readable SVG ({' '.join(str(error).split())[:120]})") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust: no Exception, and of no module
            raise
        raise DataError("not a readable SVG: it cannot be drawn") from None


def harmless(raw: bytes) -> str:
    """The same document without references outside itself. Errors: DataError, ExpatError."""
    writer = _Writer()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = writer.start
    parser.EndElementHandler = writer.end
    parser.CharacterDataHandler = writer.text
    parser.EntityDeclHandler = writer.entity
    parser.Parse(raw, True)
    return "".join(writer.parts)


class _Writer:
    """Writes down again what expat reads, as far as it is harmless."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.depth = self.elements = self.uses = 0
        self.effects = 0
        """How many filter effects are open: what is within is left out."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        self.depth, self.elements = self.depth + 1, self.elements + 1
        self.uses += local == "use"
        for count, most, what in (
            (self.depth, MAX_DEPTH, "levels"), (self.elements, MAX_ELEMENTS, "elements"), (self.uses, MAX_USES, "uses"),
        ):  # fmt: skip
            if count > most:
                raise DataError(f"an SVG of more than {most:,} {what}")
        self.effects += _EFFECT.fullmatch(local) is not None
        if self.effects:
            return
        _check_numbers(attributes)
        kept = "".join(
            f" {key}={quoteattr(value if _is_link(key) else _plain(value))}"
            for key, value in attributes.items()
            if key != "filter" and (not _is_link(key) or _allowed(local, value))
        )
        self.parts.append(f"<{name}{kept}>")

    def end(self, name: str) -> None:
        self.depth -= 1
        if not self.effects:
            self.parts.append(f"</{name}>")
        self.effects -= _EFFECT.fullmatch(name.rpartition(":")[2]) is not None

    def text(self, data: str) -> None:
        if not self.effects:
            self.parts.append(escape(_plain(data)))

    def entity(self, name: str, *_: object) -> None:
        raise DataError(f"an SVG that declares the entity {name!r}")


def _check_numbers(attributes: dict[str, str]) -> None:
    """Refuse places so far away that resvg panics, ends the process or never returns. Errors: DataError."""
    for key, value in attributes.items():
        if key in _PLACES and _HUGE.search(value):
            raise DataError(f"an SVG with numbers beyond all drawings ({key})")
    view = attributes.get("viewBox", "").replace(",", " ").split()
    with suppress(ValueError):  # no numbers: resvg goes by the size
        if len(view) == 4 and any(0 < float(side) < LEAST_VIEW for side in view[2:]):
            raise DataError("an SVG whose viewBox is too small")


def _plain(text: str) -> str:
    """A value or a style sheet without addresses outside the document and without filters."""
    return _FILTER.sub("", _URL.sub("none", text))


def _is_link(key: str) -> bool:
    return key.rpartition(":")[2].lower() == "href"


def _allowed(element: str, value: str) -> bool:
    """Links within the document, and pictures that are part of it and no further SVG."""
    return _INSIDE.match(value) is not None and (element != "image" or len(value) <= MAX_IMAGE)
