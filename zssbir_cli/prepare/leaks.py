"""Leaks: training classes or images that are also test classes or images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zssbir_cli.data.manifest import Leak, ShardInfo
from zssbir_cli.data.shards import read_digests, read_sources
from zssbir_cli.errors import DataError
from zssbir_cli.types import Modality, Part

Keys = npt.NDArray[np.void]
MAX_NAMED = 50
_KINDS = {
    "class": "training classes are test classes",
    "image": "training images are test images",
    "id": "classes have contradictory ids",
}


def find_image_leaks(folder: Path, shards: Sequence[ShardInfo]) -> list[Leak]:
    """Images whose file is, byte for byte, both a test image and a training, hold-out or validation image."""
    leaks: list[Leak] = []
    for modality in Modality:
        mine = [s for s in shards if s.modality is modality]
        test = [(s, _keys(folder / s.file)) for s in mine if s.part is Part.TEST]
        if not test:
            continue
        known = np.unique(np.concatenate([keys for _, keys in test]))
        for shard in mine:
            if shard.part is not Part.TEST:
                leaks += _repeated(folder, shard, known, test)
    return leaks


def _keys(path: Path) -> Keys:
    """The first 16 bytes of each image's digest, as one comparable value each."""
    digests = np.ascontiguousarray(read_digests(path)[:, :16])
    return digests.view([("a", ">u8"), ("b", ">u8")]).reshape(-1)


def _repeated(folder: Path, shard: ShardInfo, known: Keys, test: list[tuple[ShardInfo, Keys]]) -> list[Leak]:
    keys = _keys(folder / shard.file)
    rows = np.flatnonzero(np.isin(keys, known))
    if not len(rows):
        return []
    sources, leaks = read_sources(folder / shard.file), []
    for row in rows:
        twin = _find(folder, keys[row], test)
        leaks.append(Leak(kind="image", what=sources[row], where=f"{shard.part}, and test as {twin}"))
    return leaks


def _find(folder: Path, key: np.void, test: list[tuple[ShardInfo, Keys]]) -> str:
    for shard, keys in test:
        at = np.flatnonzero(keys == key)
        if len(at):
            return read_sources(folder / shard.file)[int(at[0])]
    return "?"


def refuse(leaks: Sequence[Leak]) -> None:
    """Raise the error that names the leaks and the ways out.

    Raises:
        DataError: always.
    """
    parts = []
    for kind, what in _KINDS.items():
        mine = [leak for leak in leaks if leak.kind == kind]
        if mine:
            shown = ", ".join(leak.what for leak in mine[:MAX_NAMED])
            more = f" and {len(mine) - MAX_NAMED:,} more" if len(mine) > MAX_NAMED else ""
            parts.append(f"{len(mine):,} {what}: {shown}{more} (first: {mine[0].what} is in {mine[0].where})")
    drop = "--dedup to drop the training copies, or with " if all(k.kind == "image" for k in leaks) else ""
    raise DataError(f"{'; '.join(parts)}. Run again with {drop}--allow-leak to keep them on record")
