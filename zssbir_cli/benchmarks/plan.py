"""The plan for a named split of a published data set: lists and their faults, classes, images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zssbir_cli.benchmarks.assemble import benchmark_items, find
from zssbir_cli.benchmarks.layouts import PUBLISHED, Kind
from zssbir_cli.benchmarks.lists import TRAIN, Lists, check_same_split, find_faults, read_lists, train_classes
from zssbir_cli.benchmarks.splits import Split
from zssbir_cli.data.manifest import OLD_MARK, ClassInfo, Leak
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.leaks import refuse
from zssbir_cli.preparation.plan import GROUP_OF, PreparePlan
from zssbir_cli.preparation.sources import Source
from zssbir_cli.types import Modality, Part, Role


@dataclass(frozen=True)
class Listed:
    """The published lists that a user gave, with their faults."""

    lists: Lists | None = None
    leaks: tuple[Leak, ...] = ()
    warnings: tuple[str, ...] = ()


def read_published(split: Split, folders: Sequence[Path], choices: Choices) -> Listed:
    """The lists in `folders`; faults are leaks, or warnings where the split is the cleaned one.

    Errors: UsageError: the split needs lists; DataError: damaged lists, or those of another split; leaks.
    """
    listed = _listed(split, folders)
    if listed.leaks and not choices.allow_leak:
        refuse(listed.leaks)
    return listed


def plan_benchmark(
    split: Split, sources: Sequence[Source], listed: Listed, name: str, choices: Choices
) -> PreparePlan:
    """What a set of the split will hold, from the scanned sources.

    Errors: UsageError: too many validation classes; DataError: sketches or photos of a side are missing.
    """
    found = find(split.dataset, sources)
    classes = _classes(split, listed, choices)
    holdout = split.holdout if choices.holdout is None else choices.holdout
    choices.check_seed(bool(choices.val_classes or holdout))
    if choices.holdout is not None and listed.lists is not None and listed.lists.lists(TRAIN, Kind.SKETCH):
        raise UsageError(
            f"--holdout {choices.holdout} has no effect with --lists, which say which sketches are held out; leave it out"
        )
    items, told = benchmark_items(
        found, sources, split, classes, lists=listed.lists, choices=choices, holdout=holdout
    )
    _check_complete(split, items.group, sources)
    options = choices.record() | {
        "val_classes": choices.val_classes or 0,
        "holdout": holdout,
        "lists": listed.lists is not None,
    }
    warnings = (*listed.warnings, *told)
    return PreparePlan(
        name=name,
        split=split.name,
        classes=classes,
        sources=tuple(sources),
        items=items,
        options=options,
        warnings=warnings,
        leaks=listed.leaks,
    )


def _listed(split: Split, folders: Sequence[Path]) -> Listed:
    if not folders:
        if split.needs_lists:
            raise UsageError(
                f"{split.name} is defined by the authors' photo list: give the folder that holds "
                f"all_photo_filelist_train.txt and cname_cid.txt with --lists"
            )
        return Listed()
    lists = read_lists([Path(f) for f in folders], split)
    check_same_split(lists, split)
    faults = find_faults(lists, split)
    if not split.needs_lists:
        return Listed(lists, tuple(faults))
    if not lists.files["train"]:
        raise DataError(
            f"--lists {folders[0]}: no photo list for {split.name} (all_photo_filelist_train.txt)"
        )
    told = []
    for kind, what in (
        ("class", "test classes are in the training list; left out"),
        ("id", "classes have contradictory ids; names are used"),
    ):
        names = [f.what for f in faults if f.kind == kind]
        if names:
            told.append(f"{len(names)} {what}: {', '.join(names)}")
    return Listed(lists, tuple(f for f in faults if f.kind == "image"), tuple(told))


def _classes(split: Split, listed: Listed, choices: Choices) -> tuple[ClassInfo, ...]:
    """Classes with roles; a leaked training class that the user allowed becomes a separate class."""
    seen = list(split.seen)
    if listed.lists is not None and train_classes(listed.lists, split):
        seen = [n for n in seen if n in train_classes(listed.lists, split)]
    held = choices.val_classes or 0
    if len(seen) - held < 2:
        raise UsageError(f"--val-classes {held} leaves {len(seen) - held} of {len(seen)} classes to train on")
    shuffled = [sorted(seen)[i] for i in np.random.default_rng(choices.seed).permutation(len(seen))]
    val = set(shuffled[:held])
    roles = {(n, False): Role.VAL if n in val else Role.SEEN for n in seen}
    roles |= {(leak.what, True): Role.SEEN for leak in listed.leaks if leak.kind == "class"}
    roles |= {(n, False): Role.UNSEEN for n in split.unseen}
    ordered = sorted(roles, key=lambda c: c[0] + OLD_MARK * c[1])
    return tuple(
        ClassInfo(id=i, name=name, role=roles[name, leaked], leaked=leaked)
        for i, (name, leaked) in enumerate(ordered)
    )


def _check_complete(split: Split, groups: Sequence[int], sources: Sequence[Source]) -> None:
    """Sketches and photos of both sides must be there at all."""
    present = set(groups)
    for part in (Part.TEST, Part.TRAIN):
        for modality in Modality:
            if GROUP_OF[part, modality] not in present:
                places = ", ".join(f"{p}/<class>/*" for p in PUBLISHED[split.dataset].values())
                where = ", ".join(readable(str(s.path)) for s in sources)
                raise DataError(
                    f"{where}: no {part} {modality.word} of {split.name}; expected {places} "
                    f"(several --from are taken together)"
                )
