"""What a prepared set will hold: every image with its class and part, in the order it is written."""

import hashlib
import json
from array import array
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.manifest import ClassInfo, Leak
from zssbir_cli.preparation.sources import Source, packed
from zssbir_cli.types import Modality, Part

# Test parts come first, so that dropping repeated images keeps the test copy.
GROUPS: tuple[tuple[Part, Modality], ...] = tuple(
    (part, modality)
    for part in (Part.TEST, Part.VAL, Part.HOLDOUT, Part.TRAIN)
    for modality in (Modality.PHOTO, Modality.SKETCH)
)
GROUP_OF = {pair: number for number, pair in enumerate(GROUPS)}


@dataclass
class Items:
    """Images to write, as columns (a benchmark has half a million). `paths` are what `/source` will say."""

    paths: list[str] = field(default_factory=list)
    source: "array[int]" = field(default_factory=lambda: array("h"))
    entry: "array[int]" = field(default_factory=lambda: array("i"))
    label: "array[int]" = field(default_factory=lambda: array("i"))
    group: "array[int]" = field(default_factory=lambda: array("b"))
    size: "array[int]" = field(default_factory=lambda: array("q"))
    mask: "array[int]" = field(default_factory=lambda: array("i"))
    """Entry of a photo's object mask, in the photo's source; -1 = none."""

    def __len__(self) -> int:
        return len(self.paths)

    def add(
        self,
        path: str,
        source: int,
        entry: int,
        *,
        label: int,
        part: Part,
        modality: Modality,
        size: int,
        mask: int = -1,
    ) -> None:
        """Append one image: entry `entry` of source number `source`."""
        self.paths.append(path)
        self.source.append(source)
        self.entry.append(entry)
        self.label.append(label)
        self.group.append(GROUP_OF[part, modality])
        self.size.append(size)
        self.mask.append(mask)


@dataclass(frozen=True)
class PreparePlan:
    """All that determines a prepared set's bytes, and the warnings about it."""

    name: str
    split: str
    classes: tuple[ClassInfo, ...]
    sources: tuple[Source, ...]
    items: Items
    options: dict[str, str | int | float | bool | None]
    warnings: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()

    def read_mask(self, item: int) -> bytes | None:
        """The file of a photo's object mask, None when it has none (from any thread). Raises DataError."""
        entry = self.items.mask[item]
        return None if entry < 0 else self.sources[self.items.source[item]].read(entry)

    def order(self) -> Ints:
        """Item numbers in writing order: by group (test first), class and path."""
        items = self.items
        by_path = np.empty(len(items), np.int64)
        by_path[sorted(range(len(items)), key=items.paths.__getitem__)] = np.arange(len(items))
        return np.lexsort((by_path, np.asarray(items.label), np.asarray(items.group)))

    @cached_property
    def state(self) -> str:
        """Digest of the sources' states; another one when a file may have changed."""
        return hashlib.sha256("".join(s.state() for s in self.sources).encode()).hexdigest()

    @cached_property
    def key(self) -> str:
        """16 hex digits of everything that decides the output's bytes; a resumed run must have the same."""
        digest = hashlib.sha256()
        classes = [c.model_dump(exclude=None if c.leaked else {"leaked"}) for c in self.classes]
        facts = [self.name, self.split, classes, self.options]
        digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
        items = self.items
        columns = (items.source, items.entry, items.label, items.group, items.size, *packed(items.paths))
        for column in columns:
            digest.update(column)
        if max(items.mask, default=-1) >= 0:
            digest.update(items.mask)
        return digest.hexdigest()[:16]
