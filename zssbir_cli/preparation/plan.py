"""What a prepared set will hold: every image with its class and part, in the order it is written."""

import hashlib
import json
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.manifest import ClassInfo, Leak, name_fault
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import file_part, listed, readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.layout import PART_OF_ROLE, ClassFiles, find_images
from zssbir_cli.preparation.roles import Unseen, assign_roles, read_unseen
from zssbir_cli.preparation.sources import ARCHIVE_SUFFIXES, Source, packed
from zssbir_cli.types import Modality, Part, Role

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


def plan_own(
    sources: Sequence[Source], name: str, choices: Choices, val: Collection[str] | None = None
) -> PreparePlan:
    """What a set of the user's own scanned pictures will hold. `val`: names of the validation classes, in place of the number
    in `choices`.

    Errors: UsageError: a wrong `--unseen`; DataError: nothing usable; under `strict`, anything that is left out.
    """
    found = find_images(sources)
    files = found.without_lone()
    names = list(files.names.values())
    unseen = read_unseen(choices.unseen, names)
    if found.lone and unseen.draw == len(
        names
    ):  # to evaluate only: nothing is learnt from, so no class needs both
        files, unseen = found, Unseen(draw=len(found.names))
        names = list(files.names.values())
    if choices.strict and files.left_out:
        raise DataError(f"left out: {'; '.join(files.left_out)} (--strict; without it they are reported)")
    held_out = choices.val_classes if val is None else frozenset(val)
    classes = assign_roles(names, unseen, val_classes=held_out, seed=choices.seed)
    if not any(c.role is not Role.UNSEEN for c in classes) and (choices.val_classes or choices.holdout):
        option = (
            f"--val-classes {choices.val_classes}" if choices.val_classes else f"--holdout {choices.holdout}"
        )
        raise UsageError(f"{option} has no effect where all classes are unseen; leave it out")
    if val is None:
        partly = unseen.draw and unseen.draw < len(names)
        choices.check_seed(bool(partly) or any(c.role is Role.VAL for c in classes))
    held = choices.holdout or 0
    items = to_items(files, sources, classes, holdout=held, subset=choices.subset, seed=choices.seed)
    _check_holdout(items, classes, choices)
    number = sum(c.role is Role.UNSEEN for c in classes)
    drawn = f"-seed{choices.seed}" if unseen.draw else ""
    given = None if choices.unseen is None else readable(choices.unseen)
    options = choices.record() | {"unseen": given, "holdout": held}
    told = (*(f"{text}; left out" for text in files.left_out), *files.told_lone(), *files.warnings)
    return PreparePlan(
        name=name,
        split=f"{number}-unseen{drawn}",
        classes=classes,
        sources=tuple(sources),
        items=items,
        options=options,
        warnings=told,
    )


def _check_holdout(items: Items, classes: Sequence[ClassInfo], choices: Choices) -> None:
    """Raises UsageError when `--holdout` leaves a seen class without a sketch to train on."""
    group = GROUP_OF[Part.TRAIN, Modality.SKETCH]
    trained = {label for label, of in zip(items.label, items.group, strict=True) if of == group}
    short = [c.name for c in classes if c.role is Role.SEEN and c.id not in trained]
    if choices.holdout and short:
        each = "" if choices.subset is None else f" (--per-class {choices.subset})"
        raise UsageError(
            f"--holdout {choices.holdout} leaves no sketch of {listed(short, 3)} to train on{each}; give less"
        )


def to_items(
    files: ClassFiles,
    sources: Sequence[Source],
    classes: Sequence[ClassInfo],
    *,
    holdout: int,
    subset: int | None,
    seed: int,
) -> Items:
    """Choose each image's part from its class's role.

    `holdout`: sketches per seen class that are kept out of training. `subset`: at most this many images per
    class and modality. Both draw by `seed`, independently of the order of files.
    """
    items, by_name = Items(), {c.name: c for c in classes}
    for key in sorted(files.entries):
        info = by_name[files.names[key]]
        for modality in Modality:
            rows = _by_path(files, sources, files.entries[key].get(modality, ()))
            order = np.random.default_rng([seed, info.id, int(modality)]).permutation(len(rows))
            for place, i in enumerate(order[:subset]):
                path, source, entry = rows[i]
                held = info.role is Role.SEEN and modality is Modality.SKETCH and place < holdout
                part = Part.HOLDOUT if held else PART_OF_ROLE[info.role]
                size = sources[source].listing.sizes[entry]
                mask = files.masks.get((source, entry), -1) if modality is Modality.PHOTO else -1
                items.add(
                    path, source, entry, label=info.id, part=part, modality=modality, size=size, mask=mask
                )
    return items


def _by_path(
    files: ClassFiles, sources: Sequence[Source], entries: Sequence["array[int]"]
) -> list[tuple[str, int, int]]:
    """(stored path, source, entry) of one class's images, sorted."""
    return sorted(
        (source.listing.paths[entry][files.strip[number] :], number, entry)
        for number, source in enumerate(sources[: len(entries)])
        for entry in entries[number]
    )


def default_name(path: Path) -> str:
    """A data set's name from the file or folder it comes from."""
    name = path.resolve().name
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)]
            break
    name = name.strip() or "own"
    return file_part(name) if name_fault(name) or readable(name) != name else name


def check_given_once(paths: Sequence[Path]) -> None:
    """Raises UsageError when a source is given twice, or lies in another one."""
    real = [path.resolve() for path in paths]
    for i, path in enumerate(real):
        for other in (*real[:i], *real[i + 1 :]):
            if path == other or other in path.parents:
                which = "given twice" if path == other else f"inside {readable(str(other))}, also given"
                raise UsageError(f"{readable(str(paths[i]))} is {which}; give each source once")
