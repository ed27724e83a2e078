"""Which tar shards there are, and which of them a process embeds. Imports no torch."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from zssbir_cli.errors import DataError, UsageError

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def shard_names(pattern: str | Path) -> list[Path]:
    """`shards-{000..999}.tar` -> all of their paths, a single `.tar` as it is. Errors: UsageError (a range without numbers)."""
    names = [os.fspath(pattern)]
    while found := _RANGE.search(names[0]):
        first, last = found.groups()
        numbers = [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
        names = [_RANGE.sub(number, name, count=1) for name in names for number in numbers]
        if not names:
            raise UsageError(f"--photos {pattern}: {found[0]} holds no number; write the smaller one first")
    return [Path(name) for name in names]


def shard_files(pattern: str | Path) -> list[Path]:
    """`shard_names`, all of which are there. Errors: DataError naming one that is missing."""
    files = shard_names(pattern)
    if missing := [f for f in files if not f.is_file()]:
        raise DataError(f"{missing[0]}: no such shard ({len(missing):,} of {len(files):,} are missing)")
    return files


def share_of(part: str, environment: Mapping[str, str]) -> tuple[int, int]:
    """`2/8` -> (2, 8). `auto`: this process among those of torchrun, and of a Slurm array, else (1, 1). Errors: UsageError."""
    if part != "auto":
        found = re.fullmatch(r"(\d+)/(\d+)", part)
        if not found or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(f"--part {part}: with shards, I/N (1/8 to 8/8) or auto")
        return int(found[1]), int(found[2])
    try:
        number = {name: int(value) for name, value in environment.items() if name in _NUMBERS and value}
    except ValueError as error:
        raise UsageError(
            f"--part auto: the numbers of torchrun or Slurm cannot be read ({error}); give I/N"
        ) from None
    step = max(1, number.get("SLURM_ARRAY_TASK_STEP", 1))
    task = (number.get("SLURM_ARRAY_TASK_ID", 0) - number.get("SLURM_ARRAY_TASK_MIN", 0)) // step
    world = number.get("WORLD_SIZE", 1)
    return task * world + number.get("RANK", 0) + 1, number.get("SLURM_ARRAY_TASK_COUNT", 1) * world


_NUMBERS = ("RANK", "WORLD_SIZE", *(f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "STEP", "COUNT")))
