"""Text that can be read in any picture: the system's fonts where DejaVu Sans lacks a script, words where no font has it."""

import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

from zssbir_cli.files import printable

_OTHER_STYLES = ("bold", "italic", "oblique", "mono", "serif", "black", "light", "thin", "condensed")
_BOXES = ("lastresort", "coloremoji")
"""Fonts that draw a box for every character, or have pictures instead of outlines."""


@lru_cache(256)
def font(size: int, bold: bool = False, path: str = "") -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that pictures look the same everywhere; or the font at `path`."""
    return ImageFont.truetype(path or _dejavu(bold), size)


def drawable(text: str, spare: str = "") -> str:
    """`text` with only characters that some font here can draw.

    Characters without a glyph become words by their Unicode names (an emoji its description, a letter its sound);
    where they have none, as Chinese characters, the whole text becomes `spare`, or the character an ellipsis.
    """
    parts, last = list[str](), ""
    for c in unicodedata.normalize("NFC", printable(text)):
        if unicodedata.category(c) == "Cc":
            parts.append(" ")
        elif _invisible(c) or (_is_mark(c) and parts and ord(c) not in _characters(last or _dejavu(False))):
            continue  # a mark is drawn in its letter's font, or not at all
        elif (path := _font_of(c)) is not None:
            parts.append(c)
            last = last if _is_mark(c) else path
        elif word := _spelt(c):
            parts.append(word)
        elif spare:
            return spare
        else:
            parts.append("…" if parts[-1:] != ["…"] else "")
    return " ".join("".join(parts).split()) or spare


def text_width(text: str, size: int, bold: bool = False) -> float:
    """Width of a drawable text in pixels."""
    return sum(font(size, bold, path).getlength(run) for run, path in _runs(text))


def draw_text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    size: int,
    colour: tuple[int, int, int],
    *,
    bold: bool = False,
) -> None:
    """Write a drawable text with its top left corner at `at`; every part in the font that has its characters."""
    x, y = at
    base = y + font(size, bold).getmetrics()[0]
    for run, path in _runs(text):
        face = font(size, bold, path)
        draw.text((x, base), run, colour, face, anchor="ls")
        x += face.getlength(run)


def fitted(text: str, room: float, size: int, bold: bool = False, spare: str = "") -> str:
    """`text` on one line, made drawable, cut with an ellipsis where it is wider than `room` pixels."""
    return shortened(drawable(text, spare), lambda part: text_width(part, size, bold) <= room, tail=False)


def shortened(text: str, fits: Callable[[str], bool], *, tail: bool = True) -> str:
    """`text` as it is where it fits, else as much of it as does: of both its ends, which of a path tell more than its
    middle, or without `tail` of its beginning."""
    if fits(text):
        return text
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if fits(_ends(text, middle, middle // 2 if tail else 0)):
            least = middle
        else:
            most = middle - 1
    return _ends(text, least, least // 2 if tail else 0)


def _ends(text: str, count: int, last: int) -> str:
    """`count` characters of both ends together, `last` of them from the end; no accent without its letter."""
    head, tail = count - last, len(text) - last
    while head and _is_mark(text[head : head + 1] or " "):
        head -= 1
    while tail < len(text) and _is_mark(text[tail]):
        tail += 1
    return f"{text[:head].rstrip()}…{text[tail:].lstrip()}"


def wrapped(text: str, room: float, size: int, bold: bool = False, lines: int = 3) -> list[str]:
    """`text` made drawable, in at most `lines` lines of `room` pixels; the last one is cut."""
    words, out = drawable(text).split(), list[str]()
    while words and len(out) < lines - 1:
        count = 1
        while count < len(words) and text_width(" ".join(words[: count + 1]), size, bold) <= room:
            count += 1
        out.append(fitted(" ".join(words[:count]), room, size, bold))
        words = words[count:]
    return [*out, fitted(" ".join(words), room, size, bold)] if words else out


def families(texts: Iterable[str]) -> list[str]:
    """Font families for matplotlib that together have all characters of some texts, DejaVu Sans first."""
    from matplotlib import font_manager

    names = ["DejaVu Sans"]
    for path in sorted({p for c in set("".join(texts)) if (p := _font_of(c))}):
        font_manager.fontManager.addfont(path)
        names.append(font_manager.FontProperties(fname=path).get_name())
    return names


def _runs(text: str) -> Iterator[tuple[str, str]]:
    """Parts of a text with the font of each ("" = DejaVu Sans); marks stay with their letters."""
    last, paths = "", []
    for c in text:
        if not _is_mark(c) and not c.isspace():
            last = _font_of(c) or ""
        paths.append(last)
    for path, group in groupby(zip(text, paths, strict=True), key=lambda pair: pair[1]):
        yield "".join(c for c, _ in group), path


@lru_cache(8192)
def _font_of(c: str) -> str | None:
    """The font that has a character: "" for DejaVu Sans, else a file; None when no font has it."""
    if ord(c) in _characters(_dejavu(False)):
        return ""
    return next((path for path in _system_fonts() if ord(c) in _characters(path)), None)


@lru_cache
def _system_fonts() -> tuple[str, ...]:
    """Font files of this system, plain ones without serifs first."""
    from matplotlib import font_manager

    def rank(path: str) -> tuple[int, str]:
        name = Path(path).stem.lower()
        return sum(style in name.replace("sansserif", "") for style in _OTHER_STYLES), name

    found = [p for p in font_manager.findSystemFonts() if Path(p).suffix.lower() in (".ttf", ".otf", ".ttc")]
    names = {p: Path(p).stem.lower().replace("-", "").replace(" ", "") for p in found}
    return tuple(sorted((p for p in found if not any(b in names[p] for b in _BOXES)), key=rank))


@lru_cache(1024)
def _characters(path: str) -> frozenset[int]:
    """Code points that a font has outlines for (none for a damaged font or one of bitmaps)."""
    from matplotlib.ft2font import FT2Font

    try:
        face = FT2Font(path)
        return frozenset(face.get_charmap()) if face.scalable else frozenset()
    except (OSError, RuntimeError, ValueError):
        return frozenset()


@lru_cache
def _dejavu(bold: bool) -> str:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    found = find_spec("matplotlib")
    assert found is not None
    assert found.origin is not None
    # without importing it, a tenth of a second
    file = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / name
    if file.is_file():
        return str(file)
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name)


def _is_mark(c: str) -> bool:
    return unicodedata.category(c).startswith("M")


def _invisible(c: str) -> bool:
    """Joiners, direction marks, variation selectors, skin tones: nothing to see on their own."""
    return unicodedata.category(c) == "Cf" or "\ufe00" <= c <= "\ufe0f" or "\U0001f3fb" <= c <= "\U0001f3ff"


def _spelt(c: str) -> str:
    """A character in Latin letters: `grinning face` for an emoji, `ka` for the letter; "" when it has no such name."""
    name = unicodedata.name(c, "").lower()
    if unicodedata.category(c) == "So":
        return f" {name} " if name else ""
    for word in (" letter ", " syllable ", " vowel sign "):
        if word in name:
            return name.partition(word)[2].removeprefix("small ").removeprefix("capital ").replace(" ", "")
    return ""
