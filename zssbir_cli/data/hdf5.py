"""HDF5 files written whole or not at all, on a full disk too, and sealed; checksums of their rows."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, cast

import h5py
import numpy as np

from zssbir_cli import files
from zssbir_cli.arrays import Array, Ints, UInt64
from zssbir_cli.data.seal import check_seal, seal
from zssbir_cli.errors import DataError


@contextmanager
def new_file(path: Path, bulk: str) -> Iterator[h5py.File]:
    """An HDF5 file to fill, which is sealed and becomes `path` when the block ends well.

    Rows go straight to the disk, a block at a time. `bulk` names the dataset that has checksums of its own, which the
    seal therefore leaves out. Raises OSError when the disk is full or the place cannot be written; `path` is then as
    it was.
    """
    with files.replacing(path) as partial:
        target = _Target(partial)
        try:
            with h5py.File(target, "w") as file:
                yield file
                start, size = file[bulk].id.get_offset() or 0, file[bulk].id.get_storage_size()
            if target.error is None:
                seal(cast(BinaryIO, target), (start, start + size if start else 0))
        finally:
            target.close()
        if target.error is not None:
            raise target.error


@contextmanager
def reading(path: Path, kind: str, again: str, *, sealed: bool = True) -> Iterator[h5py.File]:
    """A file of `new_file`, opened for reading once its seal is whole: the library never sees damaged bytes.

    Without HDF5's own lock, which some file systems lack. kind: what the file should be; again: how it is made again;
    sealed: whether one without a seal is refused (older versions wrote none).
    Raises DataError, with `again`, for a file that is missing or damaged and for what is found wrong within the block.
    """
    try:
        if not check_seal(path) and sealed:
            raise DataError(f"{path} was cut short, or written by an older version or another program")
        with h5py.File(path, "r", locking=False) as file:
            yield file
    except FileNotFoundError:
        raise DataError(f"{path} is missing (no such file); {again}") from None
    except DataError as error:
        raise DataError(f"{error}; {again}") from None
    except Exception as error:  # h5py raises almost any type on a damaged file
        raise DataError(f"{path} is damaged or not {kind} ({files.reason(error)}); {again}") from None


def begins_as_hdf5(path: Path) -> bool:
    """Whether a file can be HDF5, by its first bytes; True for one that cannot be opened: reading it later says why."""
    try:
        with path.open("rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return True


PATIENCE = 20.0
"""Seconds after which reading a foreign file has no end, and for each of its megabytes a tenth of a second more."""
_TRIAL = """
import sys, h5py
with h5py.File(sys.argv[1], "r", locking=False) as file:
    for name in [*file, *sys.argv[2:]]:
        if name in sys.argv[2:] and isinstance(file.get(name), h5py.Dataset):
            file[name][()]
"""


def try_foreign(path: Path, names: Iterable[str]) -> None:
    """Read datasets of a file without a seal in a process of its own, as on damaged bytes the HDF5 library can crash or
    never return.

    Raises DataError when it does; whatever else is wrong, reading the file in this process says.
    """
    limit = PATIENCE + path.stat().st_size / 10e6
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL, os.fspath(path), *names],
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DataError(
            f"{path} is damaged: the HDF5 library does not finish reading it (stopped after {limit:.0f} seconds)"
        ) from None
    if done.returncode < 0:
        raise DataError(f"{path} is damaged: the HDF5 library crashes when it reads it")


def integers(dataset: h5py.Dataset) -> Array:
    """All of a dataset of integers. Raises ValueError for any other type: reading that from a damaged file can crash
    the HDF5 library."""
    if dataset.dtype.kind not in "iu":
        raise ValueError(f"{dataset.name} holds no integers")
    return np.asarray(dataset[()])


def texts(dataset: h5py.Dataset) -> list[bytes]:
    """The texts of a dataset of strings, or its only one. Raises ValueError for any other type, as `integers` does."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        raise ValueError(f"{dataset.name} holds no texts")
    value = dataset[()]
    return [value] if isinstance(value, bytes) else list(value)


@dataclass(frozen=True)
class Summed:
    """Rows [N, ...] as they are to be stored, with the checksums that they have, uint64 [N]: neither is computed anew, so
    damage to rows of an older file is not taken for their contents."""

    rows: Array
    sums: UInt64

    def __len__(self) -> int:
        return len(self.rows)


def write_rows(
    file: h5py.File, name: str, blocks: Iterable[Array | Summed], count: int, dtype: type[np.floating]
) -> UInt64:
    """Write blocks of `count` rows in all to a dataset; their checksums, uint64 [N].

    Raises ValueError when the rows are not `count`, or `Summed` ones not of this `dtype`.
    """
    stored, at, sums = None, 0, np.zeros(count, np.uint64)
    for block in blocks:
        if isinstance(block, Summed):
            rows, known = block.rows, block.sums
            if rows.dtype != dtype or len(known) != len(rows):
                raise ValueError(f"{len(known)} checksums of {len(rows)} rows of {rows.dtype}")
        else:
            rows = np.ascontiguousarray(block, dtype)
            known = row_sums(rows)
        end = at + len(rows)
        if stored is None:
            stored = file.create_dataset(name, (count, *rows.shape[1:]), dtype)
        if end <= count:
            stored[at:end] = rows
            sums[at:end] = known
        at = end
    if at != count or stored is None:
        raise ValueError(f"{at} rows for {count} images")
    return sums


class _Target:
    """The file as the HDF5 library sees it: writing never fails.

    The library cannot close a file whose disk is full, and ends the process with a segmentation fault when it
    tries again at exit. So the first failure is kept in `error`, and from then on nothing is written.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self.error is None:
            try:
                files.write_all(self._file, data)
            except OSError as error:
                self.error = error
        return len(data)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        view, done = memoryview(buffer).cast("B"), 0
        while done < len(view) and (count := self._file.readinto(view[done:])):
            done += count
        view[done:] = bytes(len(view) - done)  # what could not be written
        return len(view)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size) or b""

    def seek(self, position: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def truncate(self, size: int) -> int:
        with suppress(OSError):
            self._file.truncate(size)
        return size

    def flush(self) -> None:
        """Nothing is buffered."""

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


def row_sums(rows: Array) -> UInt64:
    """A checksum of each row [N, ...], uint64 [N]: the sum of its 64-bit words, each times a fixed odd number.

    Any change within one word changes the sum. Several times as fast as crc32 or sha256 for many short rows.
    """
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1)
    width = flat.shape[1] * flat.dtype.itemsize
    word = next(size for size in (8, 4, 2, 1) if width % size == 0)
    words = flat.view(np.dtype(f"u{word}"))
    sums: UInt64 = words @ _weights(words.shape[1])
    return sums


@lru_cache(8)
def _weights(count: int) -> UInt64:
    """Fixed odd numbers (splitmix64 of 1, 2, 3 ...)."""
    z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))) | np.uint64(1)


def differing_rows(rows: Array, sums: UInt64, block: int = 4096) -> Ints:
    """Numbers of the rows that are not what their checksums say; reads each row once."""
    bad = [
        a + np.flatnonzero(row_sums(rows[a : a + block]) != sums[a : a + block])
        for a in range(0, len(rows), block)
    ]
    return np.concatenate(bad).astype(np.int64) if bad else np.empty(0, np.int64)
