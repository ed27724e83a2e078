"""Names as keys: when two class names are the same class, and how any name becomes part of a file's name."""

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import lru_cache

from zssbir_cli.errors import UsageError

_SPACES = {"Zs", "Zl", "Zp", "Cc", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf"}
_SPACING = set(".,;:/\\'\"")
_NO_CHANGE = {"\ufe0e", "\ufe0f", "\ufeff"}  # emoji or text presentation, byte order mark
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


def find_class(wanted: str, known: Sequence[str]) -> str | None:
    """The class that is meant: the name itself, else the only one with its key; None when there is none.

    Raises:
        UsageError: several classes have that key and none is spelt like this.
    """
    if wanted in known:
        return wanted
    key = class_key(wanted)
    found = sorted({name for name in known if class_key(name) == key})
    if len(found) > 1:
        raise UsageError(f"{wanted!r} may be any of {', '.join(map(repr, found))}: give the exact name")
    return found[0] if found else None


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


def suggestion(wanted: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, else an empty text."""
    spelling = {class_key(name): name for name in known}
    close = get_close_matches(class_key(wanted), list(spelling), 1)
    return f"; did you mean {spelling[close[0]]!r}?" if close else ""


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
