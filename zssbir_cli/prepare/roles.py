"""Which classes are unseen, which are held out for model selection, which are trained on."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np

from zssbir_cli.data.manifest import ClassInfo
from zssbir_cli.errors import UsageError
from zssbir_cli.types import Role


@lru_cache(4096)
def class_key(name: str) -> str:
    """A class name without differences of case, spaces and punctuation: `T-Shirt` and `t_shirt` are one."""
    return re.sub(r"[\W_]+", " ", name.casefold()).strip() or name


def assign_roles(
    names: Sequence[str], *, unseen: str | None, val_classes: int | None, seed: int
) -> tuple[ClassInfo, ...]:
    """Classes with ids in sorted order and roles.

    Args:
        names: class names, without repeats.
        unseen: names separated by commas, a file with one name per line, a number of classes, or a fraction
            like 0.25 (default 0.2). Numbers and fractions draw at random by `seed`.
        val_classes: seen classes held out for model selection (default: a tenth of the seen ones).

    Raises:
        UsageError: unknown names, or too few classes left to train on.
    """
    ordered = sorted(names)
    shuffled = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    test = _unseen(ordered, shuffled, unseen)
    seen = [n for n in shuffled if n not in test]
    held = round(len(seen) / 10) if val_classes is None else val_classes
    if len(seen) - held < 2:
        raise UsageError(
            f"{len(ordered)} classes less {len(test)} unseen and {held} for validation leave "
            f"{len(seen) - held} to train on; at least 2 are needed"
        )
    val = set(seen[:held])
    roles = {n: Role.UNSEEN if n in test else Role.VAL if n in val else Role.SEEN for n in ordered}
    return tuple(ClassInfo(id=i, name=n, role=roles[n]) for i, n in enumerate(ordered))


def _unseen(ordered: list[str], shuffled: list[str], wanted: str | None) -> set[str]:
    text = "0.2" if wanted is None else wanted.strip()
    given = _names(text)
    known = {class_key(n): n for n in ordered}
    if all(class_key(n) in known for n in given):
        return {known[class_key(n)] for n in given}
    number = _number(text, len(ordered))
    if number is None:
        missing = next(n for n in given if class_key(n) not in known)
        close = get_close_matches(class_key(missing), list(known), 1)
        hint = f"; did you mean {known[close[0]]!r}?" if close else f"; the data has {len(ordered)} classes"
        raise UsageError(f"--unseen: {missing!r} is not a class of the data{hint}")
    if not 1 <= number <= len(ordered) - 2:
        raise UsageError(f"--unseen {text}: {number} of {len(ordered)} classes; give 1 to {len(ordered) - 2}")
    return set(shuffled[:number])


def _names(text: str) -> list[str]:
    file = Path(text)
    if text and len(text) < 1000 and file.is_file():
        lines = file.read_text("utf-8", "replace").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    names = [n.strip() for n in text.split(",") if n.strip()]
    if not names:
        raise UsageError("--unseen is empty; give names, a number or a fraction")
    return names


def _number(text: str, total: int) -> int | None:
    if re.fullmatch(r"\d+", text):
        return int(text)
    if re.fullmatch(r"0?\.\d+", text):
        return max(1, round(float(text) * total))
    return None
