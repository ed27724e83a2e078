"""Which classes are unseen, which are held out for model selection, which are trained on."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zssbir_cli.data.manifest import ClassInfo
from zssbir_cli.errors import UsageError
from zssbir_cli.files import decoded, reason
from zssbir_cli.names import find_class, listed, readable, suggestion
from zssbir_cli.types import Role

DEFAULT_UNSEEN = "0.2"
_NUMBER = re.compile(r"[+-]?[0-9]*[.]?[0-9]+(e-?[0-9]+)?")


@dataclass(frozen=True)
class Unseen:
    """What `--unseen` says: names of classes, or how many to draw."""

    names: frozenset[str] = frozenset()
    draw: int = 0


def assign_roles(
    names: Sequence[str], unseen: Unseen, *, val_classes: int | frozenset[str] | None, seed: int
) -> tuple[ClassInfo, ...]:
    """Classes with ids in sorted order and roles; what is drawn is drawn by `seed`.

    `val_classes`: seen classes held out for model selection, how many (default: a tenth of the seen ones) or which.
    A set of unseen classes only is for evaluation.

    Errors: UsageError: too few classes left to train on, or a validation class that is not seen.
    """
    ordered = sorted(names)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    test = unseen.names or set(shuffled[: unseen.draw])
    seen = [n for n in shuffled if n not in test]
    if val_classes is None:
        val_classes = round(len(seen) / 10)
    val = frozenset(seen[:val_classes]) if isinstance(val_classes, int) else val_classes
    if val - set(seen):
        raise UsageError(f"validation classes {listed(sorted(val - set(seen)))}: unseen, or not in the data")
    if len(seen) - len(val) < 2 and (seen or val):
        wanted = val_classes if isinstance(val_classes, int) else len(val)
        raise UsageError(
            f"{len(ordered)} classes less {len(test)} unseen and {wanted} for validation leave "
            f"{max(0, len(seen) - wanted)} to train on; at least 2 are needed (or none: --unseen all, to evaluate only)"
        )
    roles = {n: Role.UNSEEN if n in test else Role.VAL if n in val else Role.SEEN for n in ordered}
    return tuple(ClassInfo(id=i, name=n, role=roles[n]) for i, n in enumerate(ordered))


def read_unseen(value: str | None, classes: Sequence[str]) -> Unseen:
    """What a value of `--unseen` means for data with these classes.

    Names separated by commas, `@FILE` or a file with a name per line, a number or a fraction of the classes
    (`n=3`, `n=0.2` or without `n=`), or `all`. A value with two meanings is refused; `name,` is always a name.

    Errors: UsageError: two meanings, unknown names, or a number out of range.
    """
    text = DEFAULT_UNSEEN if value is None else value.strip()
    if not text.strip(", "):
        raise UsageError("--unseen is empty; give names, @FILE, a number, a fraction or all")
    if text.startswith("@") and text not in classes:
        return _named(_names_in(Path(text[1:]), classes), classes)
    if text.startswith("n=") and text not in classes:
        return _drawn(text[2:], text, len(classes))
    meanings = _meanings(text, classes)
    if len(meanings) > 1:
        ways = "; or ".join(f"{spelling} for {what}" for what, spelling in meanings.values())
        raise UsageError(f"--unseen {readable(text)} has {len(meanings)} meanings here: write {ways}")
    if "number" in meanings:
        return _drawn(text, text, len(classes))
    if "file" in meanings:
        return _named(_names_in(Path(text), classes), classes)
    return _named([text] if "class" in meanings else _split(text), classes)


def _meanings(text: str, classes: Sequence[str]) -> dict[str, tuple[str, str]]:
    """How a value may be understood (`class`, `classes`, `number`, `file`): what it means then, and the spelling that
    means nothing else."""
    found: dict[str, tuple[str, str]] = {}
    several = "," in text
    name = None if several and text not in classes else find_class(readable(text), classes)
    if name is not None:
        found["class"] = f"the class {name!r}", "its name in an @FILE" if several else f"'{name},'"
    names = _split(text)
    if several and text in classes and all(find_class(n, classes) for n in names):
        found["classes"] = f"the {len(names)} classes {listed(names)}", "them in an @FILE"
    if text.casefold() == "all":
        found["number"] = "all classes", f"n={text}"
    elif _NUMBER.fullmatch(text):
        found["number"] = f"{text} of the {len(classes)} classes", f"n={text}"
    with suppress(OSError, ValueError):  # too long for a file's name, or holds a NUL
        if Path(text).is_file():
            found["file"] = "the names in that file", f"@{readable(text)}"
    return found


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _drawn(text: str, given: str, total: int) -> Unseen:
    """`text` as a number or fraction of `total` classes."""
    if text.casefold() == "all":
        return Unseen(draw=total)
    try:
        number = float(text)
    except ValueError:
        raise UsageError(f"--unseen {readable(given)}: n= takes a number, a fraction or all") from None
    if text.isdecimal() and 1 <= number <= total - 2:
        return Unseen(draw=int(number))
    if not text.isdecimal() and 0 < number < 1:
        draw = max(1, round(number * total))
        if draw <= total - 2:
            return Unseen(draw=draw)
    raise UsageError(
        f"--unseen {given}: give 1 to {total - 2} of the {total} classes, a fraction between 0 and 1, or all"
    )


def _names_in(path: Path, classes: Sequence[str]) -> list[str]:
    """The names in a file, one a line; empty lines are passed over, and those that begin with # unless they are the name
    of a class."""
    try:
        text = decoded(path.read_bytes(), "surrogateescape")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--unseen @{readable(str(path))}: the file cannot be read: {reason(error)}"
        ) from None
    lines = [line.strip() for line in text.splitlines()]
    names = [line for line in lines if line and (not line.startswith("#") or readable(line) in classes)]
    if not names:
        raise UsageError(f"--unseen @{readable(str(path))}: the file holds no names")
    return names


def _named(names: Sequence[str], classes: Sequence[str]) -> Unseen:
    found = {readable(n): find_class(readable(n), classes) for n in names}
    missing = [n for n, name in found.items() if name is None]
    if missing:
        hint = suggestion(missing[0], classes) or f"; its classes are {listed(sorted(classes))}"
        are = "is not a class" if len(missing) == 1 else "are not classes"
        raise UsageError(f"--unseen: {listed(missing, 4)} {are} of the data{hint}")
    return Unseen(names=frozenset(name for name in found.values() if name is not None))
