"""The plan for a user's own pictures."""

from collections.abc import Collection, Sequence
from pathlib import Path

from zssbir_cli.data.manifest import name_fault
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import file_part, readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.layout import find_images, to_items
from zssbir_cli.preparation.plan import PreparePlan
from zssbir_cli.preparation.roles import Unseen, assign_roles, read_unseen
from zssbir_cli.preparation.sources import ARCHIVE_SUFFIXES, Source
from zssbir_cli.types import Role


def plan_own(
    sources: Sequence[Source], name: str, choices: Choices, val: Collection[str] | None = None
) -> PreparePlan:
    """What a set of the scanned sources will hold. `val`: names of the validation classes, in place of the number
    in `choices`.

    Raises:
        UsageError: a wrong `--unseen`. DataError: nothing usable; under `strict`, anything that is left out.
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
