"""The finished blocks of a long pass, so that it can be killed and continued, by one process or several."""

import hashlib
import io
import json
import shutil
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli import files
from zssbir_cli.arrays import Array
from zssbir_cli.errors import DataError

_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def blocks_of(count: int, size: int) -> list[range]:
    """Numbers of `count` rows in blocks of `size`."""
    return [range(a, min(a + size, count)) for a in range(0, count, size)]


class Stage:
    """Blocks in the folder `<target>.<key>.partial/`: one .npz file each, whole or not there.

    The blocks of another key (other weights, other data) are in another folder, so they are neither continued nor
    destroyed. Several processes may put blocks of one key: a block has one content, whoever computed it.
    """

    def __init__(self, target: Path, key: Mapping[str, Any]) -> None:
        tag = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        self.target = target
        self.folder = target.with_name(f"{target.name}.{tag}{files.PARTIAL}")

    def names(self) -> list[str]:
        """Names of the blocks, sorted."""
        return sorted(p.stem for p in self.folder.glob("*.npz"))

    def put(self, name: str, **arrays: Array) -> None:
        """Keep a block. DataError when it cannot be written (disk full); the blocks before it stay."""
        try:
            try:
                self._write(name, arrays)
            except FileNotFoundError:  # another process has just finished, and removed the folder
                self._write(name, arrays)
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({files.reason(error)}); what is there already is kept: {files.remedy(error)} "
                "and run the same command again"
            ) from None

    def _write(self, name: str, arrays: Mapping[str, Array]) -> None:
        block = io.BytesIO()  # on a full disk the archive itself would complain once more when it is deleted
        np.savez(block, **arrays)  # type: ignore[arg-type]
        with files.replacing(self.folder / f"{name}.npz", durable=False) as partial:
            partial.write_bytes(block.getbuffer())

    def load(self, name: str) -> dict[str, Array] | None:
        """The arrays of a block; None when it is missing or damaged (a .npz file has checksums)."""
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as block:
                return {key: block[key] for key in block.files}
        except _DAMAGE:
            return None

    def put_rows(self, block: range, **arrays: Array) -> None:
        """Keep a block of numbered rows."""
        self.put(f"{block.start:09d}", **arrays)

    def rows(self, block: range, *names: str) -> dict[str, Any] | None:
        """The arrays of such a block; None when it is missing or damaged, or has not a row for each number."""
        found = self.load(f"{block.start:09d}")
        whole = found is not None and all(len(found.get(name, ())) == len(block) for name in names)
        return found if whole else None

    def all_rows(self, blocks: Iterable[range], *names: str) -> Iterator[dict[str, Any]]:
        """Block by block. Raises DataError when one is gone."""
        for block in blocks:
            if (found := self.rows(block, *names)) is None:
                raise DataError(
                    f"{self.target}: a finished batch has been removed; run the same command again"
                )
            yield found

    def remove(self) -> None:
        """Delete all blocks of this key, and what passes with other keys left behind more than a day ago."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for other in self.folder.parent.iterdir() if self.folder.parent.is_dir() else ():
            mine = other.name.startswith(f"{self.target.name}.") and other.name.endswith(files.PARTIAL)
            if mine and other.is_dir() and time.time() - other.stat().st_mtime > files.STALE_SECONDS:
                shutil.rmtree(other, ignore_errors=True)
