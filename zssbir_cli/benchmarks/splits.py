"""The named splits: unseen classes, papers that use them, published counts. They are listed in `splits.yaml`."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from zssbir_cli.benchmarks.layouts import DATASETS
from zssbir_cli.errors import UsageError
from zssbir_cli.names import class_key, readable, suggestion


@dataclass(frozen=True)
class Counts:
    """Images of a split as published; None = not published."""

    train_sketches: int | None = None
    train_photos: int | None = None
    test_sketches: int | None = None
    test_photos: int | None = None


@dataclass(frozen=True)
class Split:
    """A named split of a data set. `holdout`: sketches per seen class that the papers keep out of training."""

    name: str
    dataset: str
    unseen: tuple[str, ...]
    seen: tuple[str, ...]
    papers: str
    holdout: int = 0
    published: Counts = Counts()
    exact_train: bool = True  # the published training counts are exact, not rounded
    needs_lists: bool = False
    list_order: tuple[str, ...] = ()  # training classes in the order of the published lists (= their ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted."""
        return tuple(sorted(self.unseen + self.seen))


def read_table(name: str) -> Any:
    """A YAML file beside this one."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text("utf-8"))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def _split(name: str, dataset: str, known: tuple[str, ...], entry: dict[str, Any]) -> Split:
    unseen = _names(entry.pop("unseen"))
    seen = _names(entry.pop("seen", "")) or known
    published, order = Counts(**entry.pop("published", {})), _names(entry.pop("list_order", ""))
    rest = tuple(n for n in seen if n not in unseen)
    return Split(name, dataset, unseen, rest, published=published, list_order=order, **entry)


_TABLE = read_table("splits.yaml")
DEFAULT_SPLIT: dict[str, str] = {d: table["default"] for d, table in _TABLE.items()}
_DEFAULTS = {d: table["splits"][table["default"]] for d, table in _TABLE.items()}
CLASSES = {d: _names(split["unseen"]) + _names(split["seen"]) for d, split in _DEFAULTS.items()}
SPLITS: dict[str, Split] = {
    name: _split(name, d, CLASSES[d], entry)
    for d, table in _TABLE.items()
    for name, entry in table["splits"].items()
}


def get_split(dataset: str, name: str | None) -> Split:
    """A split of a data set by name (default: the one most papers use).

    Errors: UsageError: no such split, or a split of another data set.
    """
    name = name or DEFAULT_SPLIT[dataset]
    split = SPLITS.get(name)
    if split is None or split.dataset != dataset:
        own = ", ".join(s.name for s in SPLITS.values() if s.dataset == dataset)
        raise UsageError(
            f"--split {readable(name)}: {dataset} has the splits {own}{suggestion(name, SPLITS)}"
        )
    return split


def _key(name: str) -> str:
    """`names.class_key` without spaces: among these known names, `Hot Air Balloon` and `hotairballoon` can only
    be `hot-air_balloon`."""
    return class_key(readable(name)).replace(" ", "")


_BY_KEY: dict[str, dict[str, str]] = {
    d: {_key(n): n for n in CLASSES[d]} | table["misspelt"] for d, table in _TABLE.items()
}


def repair(dataset: str, folder: str) -> str | None:
    """The class a folder's name stands for, known misspellings included; None for a stranger."""
    return _BY_KEY[dataset].get(_key(folder))


def source_of(name: str) -> str:
    """What to prepare so that data/`name` appears: a data set, a named split of one, or a folder."""
    split = SPLITS.get(name)
    if split is not None:
        return f"{split.dataset} --split {name}"
    return name if name in ("demo", *DATASETS) else f"PICTURES --name {shlex.quote(name)}"
