"""HDF5 shards of encoded images: the writer (partial, verified, renamed) and the index reader.

Layout: `/blob` uint8 (all images, contiguous), `/offsets` int64 [n + 1], `/label` int32 [n], `/modality`
uint8 [n], `/source` str [n], `/digest` uint8 [n, 32] (sha256 of the image file as it was found), optionally
`/mask_blob` and `/mask_offsets` (1-bit PNG object masks). Attributes: format_version, dataset, split, part,
sha256 (of all of the above).
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.data.manifest import FORMAT_VERSION, ShardInfo
from zssbir_cli.errors import DataError
from zssbir_cli.files import file_sha256
from zssbir_cli.names import readable
from zssbir_cli.types import Modality, Part

SHARD_BYTES = 32 << 20
SHARD_IMAGES = 16384
UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@dataclass
class _Pending:
    """Images of the shard being filled; images, masks and digests each as one run of bytes."""

    blob: bytearray = field(default_factory=bytearray)
    offsets: list[int] = field(default_factory=lambda: [0])
    mask_blob: bytearray = field(default_factory=bytearray)
    mask_offsets: list[int] = field(default_factory=lambda: [0])
    digests: bytearray = field(default_factory=bytearray)
    labels: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)


class ShardWriter:
    """Writes one part of one modality as numbered shards of at most `max_bytes` of image data.

    Images are kept in memory until a shard is full, so memory is bounded by `max_bytes`. Use as a context
    manager: leaving it normally writes the last shard, leaving it by an exception writes nothing more.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dataset: str,
        split: str,
        part: Part,
        modality: Modality,
        first: int = 0,
        max_bytes: int = SHARD_BYTES,
        max_images: int = SHARD_IMAGES,
    ) -> None:
        self.folder, self.dataset, self.split, self.part, self.modality = (
            folder,
            dataset,
            split,
            part,
            modality,
        )
        self.shards: list[ShardInfo] = []
        self._next, self._max_bytes, self._max_images = first, max_bytes, max_images
        self._pending = _Pending()

    def add(
        self, data: bytes, label: int, source: str, *, digest: bytes | None = None, mask: bytes | None = None
    ) -> ShardInfo | None:
        """`put`, and write the shard when this image completed one; returns its record then."""
        return self.flush() if self.put(data, label, source, digest=digest, mask=mask) else None

    def put(
        self, data: bytes, label: int, source: str, *, digest: bytes | None = None, mask: bytes | None = None
    ) -> bool:
        """Append one encoded image; whether it completed a shard, which then waits for `seal`.

        `digest`: sha256 of the original file (default: of `data`). `mask`: a PNG of the object mask; give it
        for all images or for none.
        """
        p = self._pending
        if bool(p.mask_blob) != (mask is not None) and p.labels:
            raise ValueError("masks must be given for all images of a shard or for none")
        p.blob += data
        p.offsets.append(len(p.blob))
        p.labels.append(label)
        p.sources.append(source)
        p.digests += digest if digest is not None else hashlib.sha256(data).digest()
        if mask is not None:
            p.mask_blob += mask
            p.mask_offsets.append(len(p.mask_blob))
        return len(p.blob) >= self._max_bytes or len(p.labels) >= self._max_images

    @property
    def waiting(self) -> int:
        """Images not yet on disk."""
        return len(self._pending.labels)

    def flush(self) -> ShardInfo | None:
        """Write the images that wait as a shard; returns its record, or None when none wait."""
        write = self.seal()
        if write is None:
            return None
        self.shards.append(write())
        return self.shards[-1]

    def seal(self) -> Callable[[], ShardInfo] | None:
        """End the shard being filled; returns what writes it (from any thread), or None when no image waits."""
        if not self._pending.labels:
            return None
        path = self.folder / f"{self.part}-{self.modality.name.lower()}-{self._next:05d}.h5"
        write = partial(_write_shard, self, self._pending, path)
        self._pending = _Pending()
        self._next += 1
        return write

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()


def _write_shard(writer: ShardWriter, p: _Pending, path: Path) -> ShardInfo:
    n = len(p.labels)
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "blob": np.frombuffer(p.blob, np.uint8),
        "offsets": np.asarray(p.offsets, np.int64),
        "label": np.asarray(p.labels, np.int32),
        "modality": np.full(n, int(writer.modality), np.uint8),
        "digest": np.frombuffer(p.digests, np.uint8).reshape(n, 32),
    }
    if p.mask_blob:
        arrays["mask_blob"] = np.frombuffer(p.mask_blob, np.uint8)
        arrays["mask_offsets"] = np.asarray(p.mask_offsets, np.int64)
    sources = [readable(s) for s in p.sources]
    digest = _digest(arrays, sources)
    unfinished = path.with_name(path.name + ".partial")
    try:
        with h5py.File(unfinished, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            file.create_dataset("source", data=sources, dtype=h5py.string_dtype("utf-8"))
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["dataset"], file.attrs["split"] = writer.dataset, writer.split
            file.attrs["part"], file.attrs["sha256"] = str(writer.part), digest
        size = _sync(unfinished)
        file_digest = file_sha256(unfinished)
        index = read_index(unfinished)
        if index.sha256 != digest or len(index.labels) != n:
            raise DataError(f"{unfinished} does not read back as written (a failing disk?)")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return ShardInfo(
        file=path.name,
        part=writer.part,
        modality=writer.modality,
        count=n,
        bytes=size,
        sha256=digest,
        file_sha256=file_digest,
    )


def _digest(arrays: dict[str, npt.NDArray[np.generic]], sources: list[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    digest.update("\n".join(sources).encode())
    return digest.hexdigest()


def _sync(path: Path) -> int:
    """Force a file to the disk; returns its size."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size


@dataclass(frozen=True)
class ShardIndex:
    """What is needed to read a shard's images from the file itself."""

    path: Path
    blob_at: int
    offsets: Int64
    labels: npt.NDArray[np.int32]
    modality: npt.NDArray[np.uint8]
    part: str
    sha256: str
    mask_at: int
    mask_offsets: Int64 | None


def read_index(path: Path) -> ShardIndex:
    """Read and check the index of a shard (not its images).

    Raises:
        DataError: not a shard, damaged, or of another format version.
    """
    try:
        with h5py.File(path, "r") as file:
            return _read_index(path, file)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path} is missing; run the same `zssbir prepare` command again") from None
    except Exception as error:  # h5py raises almost any type on a damaged file
        raise DataError(f"{path} is damaged or not a shard ({_line(error)}); prepare the set again") from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_index(path: Path, file: h5py.File) -> ShardIndex:
    version = file.attrs["format_version"]
    if int(version) != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}, not {FORMAT_VERSION}; prepare the set again")
    blob_at, blob_size = _contiguous(path, file["blob"])
    labels = np.asarray(_numbers(file["label"]), np.int32)
    offsets = _checked_offsets(path, _numbers(file["offsets"]), len(labels), blob_size)
    modality = np.asarray(_numbers(file["modality"]), np.uint8)
    if modality.shape != labels.shape or file["source"].shape != labels.shape:
        raise DataError(f"{path} is damaged: its fields differ in length")
    mask_at, mask_offsets = 0, None
    if "mask_blob" in file:
        mask_at, mask_size = _contiguous(path, file["mask_blob"])
        mask_offsets = _checked_offsets(path, _numbers(file["mask_offsets"]), len(labels), mask_size)
    part, sha256 = str(file.attrs["part"]), str(file.attrs["sha256"])
    return ShardIndex(path, blob_at, offsets, labels, modality, part, sha256, mask_at, mask_offsets)


def _contiguous(path: Path, dataset: h5py.Dataset) -> tuple[int, int]:
    """Position and size in bytes of a dataset that lies in one piece."""
    at, size = dataset.id.get_offset(), dataset.shape[0] if dataset.ndim == 1 else -1
    if at is None or dataset.dtype != np.uint8 or size < 0 or at + size > path.stat().st_size:
        raise DataError(f"{path} is damaged: {dataset.name} is not contiguous bytes inside the file")
    return int(at), int(size)


def _checked_offsets(path: Path, raw: npt.NDArray[np.generic], n: int, size: int) -> Int64:
    offsets = np.asarray(raw, np.int64)
    good = offsets.shape == (n + 1,) and n > 0 and offsets[0] == 0 and offsets[-1] == size
    if not good or bool((np.diff(offsets) <= 0).any()):
        raise DataError(f"{path} is damaged: its offsets do not fit its images")
    return offsets


def read_texts(dataset: h5py.Dataset) -> list[bytes]:
    """The texts of a dataset of strings. Raises ValueError for any other type, which in a damaged file can make
    the HDF5 library itself crash on reading."""
    if h5py.check_string_dtype(dataset.dtype) is None:
        raise ValueError(f"{dataset.name} holds no texts")
    return list(dataset[()])


def _numbers(dataset: h5py.Dataset) -> npt.NDArray[np.generic]:
    """All of a dataset of integers. Raises ValueError for any other type, as `read_texts` does."""
    if dataset.dtype.kind not in "iu":
        raise ValueError(f"{dataset.name} holds no integers")
    return np.asarray(dataset[()])


def read_sources(path: Path) -> list[str]:
    """The original relative path of each image of a shard."""
    try:
        with h5py.File(path, "r") as file:
            return [s.decode("utf-8", "replace") for s in read_texts(file["source"])]
    except Exception as error:
        raise DataError(f"{path} is damaged ({_line(error)}); prepare the set again") from None


def read_digests(path: Path) -> UInt8:
    """uint8 [n, 32]: the sha256 of each image file as it was found."""
    try:
        with h5py.File(path, "r") as file:
            digests = np.asarray(_numbers(file["digest"]), np.uint8)
    except Exception as error:
        raise DataError(f"{path} is damaged ({_line(error)}); prepare the set again") from None
    if digests.ndim != 2 or digests.shape[1] != 32:
        raise DataError(f"{path} is damaged: its digests are not 32 bytes each")
    return digests


def content_digest(path: Path) -> str:
    """Recompute the content digest of a shard from what it holds (reads all of it)."""
    try:
        with h5py.File(path, "r") as file:
            arrays = {k: _numbers(file[k]) for k in file if k != "source"}
            return _digest(arrays, [s.decode("utf-8") for s in read_texts(file["source"])])
    except Exception as error:
        raise DataError(f"{path} is damaged ({_line(error)}); prepare the set again") from None
