"""What differs between two recipes, or two of any nested mappings. Imports no torch."""

from collections.abc import Mapping
from typing import Any, NamedTuple

FREE_KEYS = (
    "name", "description", "data.root", "data.workers", "train.checkpoint_every", "train.keep_every",
    "train.validate_every", "train.compile",
)  # fmt: skip
"""Keys of a recipe that may differ between a run and its continuation: they do not change what is learnt."""


class Change(NamedTuple):
    """A value that differs between two nested mappings, by its dotted key; None where it is absent."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        old, new = ("(absent)" if v is ABSENT else v for v in (self.old, self.new))
        return f"{self.key}: {old} -> {new}"


ABSENT = object()


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Each value that differs between two nested mappings, by key; a side that lacks it has `ABSENT`."""
    a, b = _flat(old), _flat(new)
    pairs = ((key, a.get(key, ABSENT), b.get(key, ABSENT)) for key in sorted(a.keys() | b.keys()))
    return [Change(*pair) for pair in pairs if pair[1] != pair[2]]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            result |= _flat(item, f"{prefix}{key}.")
        else:
            result[prefix + key] = list(item) if isinstance(item, tuple) else item
    return result
