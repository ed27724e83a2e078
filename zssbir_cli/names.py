"""Names as keys: when two class names are the same class, and how any name becomes part of a file's name."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from zssbir_cli.errors import UsageError

_SPACES = {"Zs", "Zl", "Zp", "Cc", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf"}
_SPACING = set(".,;:/\\'\"")
_NO_CHANGE = set(
    "\ufe0e\ufe0f\ufeff\u00ad\u200b\u200e\u200f\u2060\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""Characters that show nothing: variants of presentation, byte order mark, soft hyphen, zero-width space and joiner of
words, direction marks. (The zero-width joiner tells letters and emoji apart and counts.)"""
_PLAIN = str.maketrans(
    {"æ": "ae", "œ": "oe", "ø": "o", "å": "a", "ł": "l", "đ": "d", "ı": "i", "þ": "th", "ð": "d"}
)
LONGEST_PART = 80
"""Most bytes of a name that becomes part of a file's name."""


@lru_cache(8192)
def class_key(name: str) -> str:
    """A class name without differences of case, Unicode form and separators: `T-Shirt` and `t_shirt` are one.

    Letters, digits, combining marks and symbols all count: `C`, `C++` and `C#` are three classes, and so are
    Hindi names that differ in a vowel sign. A name of separators alone is its own key.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    spaced = (
        " " if c in _SPACING or unicodedata.category(c) in _SPACES else c
        for c in folded
        if c not in _NO_CHANGE
    )
    return " ".join("".join(spaced).split()) or folded


def same_class(names: Iterable[str]) -> list[list[str]]:
    """Groups of different names that have one key, each sorted; [] when every name is a class of its own."""
    groups: dict[str, set[str]] = {}
    for name in names:
        groups.setdefault(class_key(name), set()).add(name)
    return [sorted(group) for group in groups.values() if len(group) > 1]


def side_by_side(names: Iterable[str]) -> str:
    """`'Cat' and 'cat'`; escaped where they would look alike."""
    names = sorted(names)
    shown = {
        "".join(c for c in unicodedata.normalize("NFC", n) if c not in _NO_CHANGE).strip() for n in names
    }
    return " and ".join(ascii(n) if len(shown) < len(names) else repr(readable(n)) for n in names)


def find_class(wanted: str, known: Sequence[str]) -> str | None:
    """The class that is meant: the name itself, else the only one with its key; None when there is none.

    Errors: UsageError: several classes have that key and none is spelt like this.
    """
    wanted = readable(wanted)  # as class names are stored
    if wanted in known:
        return wanted
    key = class_key(wanted)
    found = sorted({name for name in known if class_key(name) == key})
    if len(found) > 1:
        raise UsageError(f"{wanted!r} may be any of {', '.join(map(repr, found))}: give the exact name")
    return found[0] if found else None


def split_names(text: str, known: Sequence[str]) -> list[str]:
    """The names in a text that separates them by commas; the text itself where it is a class with a comma in its name.

    Raises UsageError when it can be read in both ways.
    """
    parts = [name.strip() for name in text.split(",") if name.strip()]
    if "," not in text or text.strip() not in known:
        return parts
    if len(parts) > 1 and all(find_class(name, known) for name in parts):
        raise UsageError(
            f"{text!r} is a class and a list of classes: rename the class, or give one name at a time"
        )
    return [text.strip()]


def named_classes(texts: Sequence[str], known: Sequence[str], place: str) -> list[int]:
    """Numbers of the classes of `place` that texts name, alone or separated by commas, each once. Errors: UsageError."""
    found: list[int] = []
    for name in [name for text in texts for name in split_names(text, known)]:
        spelt = find_class(name, known)
        if spelt is None:
            hint = suggestion(name, known) or f"; it has {listed(known, 8)}"
            raise UsageError(f"--classes {name}: no such class in {place}{hint}")
        found += [i for i, other in enumerate(known) if other == spelt]  # two where it is leaked
    return list(dict.fromkeys(found))


def readable(text: str) -> str:
    """A name or path as text that prints and stores anywhere: bytes that are no UTF-8 become `\\xNN`, line breaks
    and other control characters likewise."""
    if text.isascii() and text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def counted(number: int, thing: str) -> str:
    """`1 file`, `2,000 files`, `3 classes`, `4 queries`."""
    if number == 1:
        return f"1 {thing}"
    if thing.endswith("ry"):
        return f"{number:,} {thing[:-1]}ies"
    return f"{number:,} {thing}{'es' if thing.endswith(('s', 'ch')) else 's'}"


def listed(names: Sequence[str], most: int = 10) -> str:
    """`'a', 'b' and 3 more`."""
    shown = ", ".join(f"'{readable(name)}'" for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def nearest(wanted: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6) -> list[str]:
    """The known names that a word may be a misspelling of, the closest first; accents, and ae, oe, ue for umlauts, count
    little: `Baer` is near to `Bär`."""
    spelling = {_without_accents(name): name for name in known}
    return [
        spelling[key] for key in get_close_matches(_without_accents(wanted), list(spelling), most, cutoff)
    ]


def did_you_mean(names: Iterable[str]) -> str:
    """`; did you mean x or y?`, an empty text for no names."""
    return f"; did you mean {shown}?" if (shown := " or ".join(names)) else ""


def suggestion(wanted: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """`; did you mean 'x'?` for the nearest known name, else an empty text."""
    return did_you_mean(map(repr, nearest(wanted, known, 1, cutoff)))


def _without_accents(name: str) -> str:
    """A class's key in plain letters, as one types it who has no such keys; both ways to write an umlaut are one."""
    letters = unicodedata.normalize("NFKD", class_key(name).translate(_PLAIN))
    plain = "".join(c for c in letters if not unicodedata.combining(c))
    for pair in ("ae", "oe", "ue"):
        plain = plain.replace(pair, pair[0])
    return plain


def file_part(name: str) -> str:
    """`name` as part of a file's name on any system: what is not a letter, digit, mark, `.`, `-` or `_` becomes
    `_`, long names are cut, and where anything changed eight digits of a hash keep two names apart."""
    kept = "".join(
        c if c in ".-_" or unicodedata.category(c)[0] in "LNM" else "_"
        for c in unicodedata.normalize("NFC", name)
    )
    kept = kept.strip(". ") or "_"
    while len(kept.encode("utf-8", "replace")) > LONGEST_PART:
        kept = kept[:-1]
    if kept.split(".")[0].upper() in _RESERVED:
        kept = "_" + kept
    if kept == name:
        return kept
    return f"{kept}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"COM{i}" for i in range(10)), *(f"LPT{i}" for i in range(10))}


TABLE_SUFFIX = ".lance"


def table_address(place: str | Path) -> str | None:
    """The address of the table that is meant; None for other places, whose names do not end with `.lance`."""
    text = os.fspath(place).rstrip("/\\")
    return re.sub(r"^([a-z][a-z0-9]+):/+", r"\1://", text) if text.endswith(TABLE_SUFFIX) else None
