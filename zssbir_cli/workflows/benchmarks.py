"""`zssbir prepare sketchy|tuberlin|quickdraw`: find or fetch the files, check lists and leaks, build the set."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zssbir_cli.benchmarks.assemble import LEAKED, Choice, find, to_items
from zssbir_cli.benchmarks.lists import Lists, check_same_split, find_faults, read_lists, train_classes
from zssbir_cli.benchmarks.splits import DEFAULT_SPLIT, Split, get_split
from zssbir_cli.data.manifest import ClassInfo, Leak
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.prepare.leaks import refuse
from zssbir_cli.prepare.plan import Plan
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Role
from zssbir_cli.workflows.prepare import Choices, Prepared, Say, carry_out, scan


def prepare_benchmark(
    dataset: str,
    split_name: str | None,
    paths: Sequence[Path],
    list_folders: Sequence[Path],
    name: str | None,
    out: Path | None,
    choices: Choices,
    say: Say = lambda text: None,
    progress: Progress = silent,
) -> Prepared:
    """Prepare a split of a published data set from folders and archives (`paths`), or from what can be
    found in the usual places or downloaded.

    Raises:
        UsageError: no such split, an option that does not apply. DataError: files missing, leaks, bad lists.
    """
    choices.check()
    if choices.unseen is not None:
        raise UsageError(
            f"--unseen does not apply to {dataset}: its splits are named, see `zssbir prepare --list`"
        )
    split = get_split(dataset, split_name)
    name = name or (dataset if split.name == DEFAULT_SPLIT[dataset] else split.name)
    lists, leaks, warnings = _lists(split, list_folders, choices)
    if leaks and not choices.build.allow_leak:
        refuse(leaks)
    sources = scan(_locate(dataset, paths, out or Path("data") / name, say), say)
    try:
        found = find(dataset, sources)
        classes = _classes(split, lists, choices, leaks)
        holdout = split.holdout if choices.holdout is None else choices.holdout
        choice = Choice(holdout, choices.subset, choices.build.dedup, choices.seed)
        items, told = to_items(found, sources, split, classes, lists, choice)
        _check_complete(split, items.group, paths, dataset)
        for line in warnings + told:
            say(f"warning: {line}")
        options: dict[str, str | int | float | bool | None] = {
            "seed": choices.seed,
            "val_classes": choices.val_classes or 0,
            "holdout": holdout,
            "lists": bool(list_folders),
            "subset": choices.subset,
            "size": choices.build.clean.size,
            "square": choices.build.clean.square,
            "dedup": choices.build.dedup,
            "quick": choices.build.clean.quick,
        }
        plan = Plan(
            name, split.name, classes, tuple(sources), items, options, tuple(warnings + told), tuple(leaks)
        )
        return carry_out(plan, out or Path("data") / name, choices.build, say, progress)
    finally:
        for source in sources:
            source.close()


def _locate(dataset: str, paths: Sequence[Path], out: Path, say: Say) -> list[Path]:
    """The sources given, or those in the usual places, or a download."""
    if paths:
        return list(paths)
    from zssbir_cli.benchmarks.fetch import fetch, usual_places

    present = usual_places(dataset)
    if present:
        say("using " + ", ".join(str(p) for p in present))
        return present
    return fetch(dataset, say)


def _lists(
    split: Split, folders: Sequence[Path], choices: Choices
) -> tuple[Lists | None, list[Leak], list[str]]:
    """Lists with their faults: as leaks, or as warnings where the split is the cleaned one."""
    if not folders:
        if split.needs_lists:
            raise UsageError(
                f"{split.name} is defined by the authors' photo list: give the folder that holds "
                f"all_photo_filelist_train.txt and cname_cid.txt with --lists"
            )
        return None, [], []
    lists = read_lists([Path(f) for f in folders], split)
    check_same_split(lists, split)
    faults = find_faults(lists, split)
    if not split.needs_lists:
        return lists, faults, []
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
    return lists, [f for f in faults if f.kind == "image"], told


def _classes(
    split: Split, lists: Lists | None, choices: Choices, leaks: Sequence[Leak]
) -> tuple[ClassInfo, ...]:
    """Classes with roles; a leaked training class that the user allowed becomes a class of its own."""
    seen = list(split.seen)
    if lists is not None and train_classes(lists, split):
        seen = [n for n in seen if n in train_classes(lists, split)]
    held = choices.val_classes or 0
    if len(seen) - held < 2:
        raise UsageError(f"--val-classes {held} leaves {len(seen) - held} of {len(seen)} classes to train on")
    shuffled = [sorted(seen)[i] for i in np.random.default_rng(choices.seed).permutation(len(seen))]
    val = set(shuffled[:held])
    leaked = [leak.what + LEAKED for leak in leaks if leak.kind == "class"]
    roles = {n: Role.VAL if n in val else Role.SEEN for n in [*seen, *leaked]} | dict.fromkeys(
        split.unseen, Role.UNSEEN
    )
    return tuple(ClassInfo(id=i, name=n, role=roles[n]) for i, n in enumerate(sorted(roles)))


def _check_complete(split: Split, groups: Sequence[int], paths: Sequence[Path], dataset: str) -> None:
    """Sketches and photos of both sides must be there at all."""
    from zssbir_cli.benchmarks.layouts import PUBLISHED
    from zssbir_cli.prepare.plan import GROUP_OF
    from zssbir_cli.types import Part

    present = set(groups)
    for part in (Part.TEST, Part.TRAIN):
        for modality in Modality:
            if GROUP_OF[part, modality] not in present:
                places = ", ".join(f"{p}/<class>/*" for p in PUBLISHED[dataset].values())
                where = ", ".join(str(p) for p in paths) or "the files found"
                raise DataError(
                    f"{where}: no {part} {modality.name.lower()} of {split.name}; expected {places} "
                    f"(several --from are taken together)"
                )
