"""HDF5 shards of encoded images: the writer and the index reader.

Layout: `/blob` uint8 (all images, contiguous), `/offsets` int64 [n + 1], `/label` int32 [n], `/modality`
uint8 [n], `/source` str [n], `/digest` uint8 [n, 32] (sha256 of the image file as it was found), `/crc32` uint32
[n] (of the stored bytes; since format 2), optionally `/mask_blob`, `/mask_offsets` and `/mask_crc32` (1-bit PNG
object masks). Attributes: format_version, dataset, split, part, sha256 (of all of the above but the checksums).
"""

import hashlib
import io
import zlib
from array import array
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Array, Ints, UInt8
from zssbir_cli.data.hdf5 import integers, reading, texts
from zssbir_cli.data.manifest import FORMAT_VERSION, READABLE_VERSIONS, ShardInfo
from zssbir_cli.data.seal import seal
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason, write_bytes
from zssbir_cli.names import readable
from zssbir_cli.types import Modality, Part

SHARD_BYTES = 32 << 20
SHARD_IMAGES = 16384
CHECKSUMS = ("crc32", "mask_crc32")
UInt32 = npt.NDArray[np.uint32]


class _Blobs:
    """Encoded images as one run of bytes, where each ends, and its checksum."""

    def __init__(self) -> None:
        self.bytes, self.ends, self.crc32 = bytearray(), array("q", [0]), array("I")

    def add(self, data: bytes) -> None:
        self.bytes += data
        self.ends.append(len(self.bytes))
        self.crc32.append(zlib.crc32(data))

    def arrays(self, prefix: str = "") -> dict[str, Array]:
        return {
            f"{prefix}blob": np.frombuffer(self.bytes, np.uint8),
            f"{prefix}offsets": np.asarray(self.ends, np.int64),
            f"{prefix}crc32": np.asarray(self.crc32, np.uint32),
        }


class Shard:
    """The images of one shard, in memory until `write`."""

    def __init__(self, path: Path, *, dataset: str, split: str, part: Part, modality: Modality) -> None:
        self.path, self.dataset, self.split, self.part, self.modality = path, dataset, split, part, modality
        self._images, self._masks = _Blobs(), _Blobs()
        self._labels, self._sources, self._digests = array("i"), list[str](), bytearray()

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def size(self) -> int:
        """Bytes of its images."""
        return len(self._images.bytes)

    def add(
        self, data: bytes, label: int, source: str, *, digest: bytes | None = None, mask: bytes | None = None
    ) -> None:
        """Append one encoded image; see `ShardWriter.add`."""
        self._images.add(data)
        self._labels.append(label)
        self._sources.append(readable(source))
        self._digests += digest if digest is not None else hashlib.sha256(data).digest()
        self._masks.add(mask or b"")

    def write(self) -> ShardInfo:
        """Write the file whole or not at all (from any thread); returns its record. Raises DataError."""
        n = len(self)
        arrays = self._images.arrays() | {
            "label": np.asarray(self._labels, np.int32),
            "modality": np.full(n, int(self.modality), np.uint8),
            "digest": np.frombuffer(self._digests, np.uint8).reshape(n, 32),
        }
        if self._masks.bytes:
            arrays |= self._masks.arrays("mask_")
        digest = _digest(arrays, self._sources)
        image = self._file_image(arrays, digest)
        try:
            write_bytes(self.path, image)
        except OSError as error:
            raise DataError(f"{readable(str(self.path))} cannot be written: {reason(error)}") from None
        return ShardInfo(
            file=self.path.name,
            part=self.part,
            modality=self.modality,
            count=n,
            bytes=len(image),
            sha256=digest,
            file_sha256=hashlib.sha256(image).hexdigest(),
        )

    def _file_image(self, arrays: dict[str, Array], digest: str) -> bytes:
        """The HDF5 file's bytes, made in memory: the library crashes the process when it cannot write to disk."""
        room = self.size + len(self._masks.bytes) + 256 * len(self) + (1 << 16)
        with h5py.File(self.path.name, "w", driver="core", backing_store=False, block_size=room) as file:
            for name, values in arrays.items():
                file.create_dataset(name, data=values)
            file.create_dataset("source", data=self._sources, dtype=h5py.string_dtype("utf-8"))
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["dataset"], file.attrs["split"] = self.dataset, self.split
            file.attrs["part"], file.attrs["sha256"] = str(self.part), digest
            file.flush()
            start = int(file["blob"].id.get_offset())
            image = io.BytesIO(file.id.get_file_image())
        seal(image, (start, start + self.size))
        return image.getvalue()


class ShardWriter:
    """Collects one part of one modality in numbered shards of at most `max_bytes` of image data.

    A full shard goes to `store`; by default it is written at once, and its record added to `shards`. Use as a
    context manager: leaving it normally stores the last shard, leaving it by an exception stores nothing more.
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
        store: Callable[[Shard], None] | None = None,
    ) -> None:
        self.folder, self.dataset, self.split = folder, dataset, split
        self.part, self.modality = part, modality
        self.shards: list[ShardInfo] = []
        self._next, self._max_bytes, self._max_images = first, max_bytes, max_images
        self._store = store or (lambda shard: self.shards.append(shard.write()))
        self._shard = self._begin()

    def add(
        self, data: bytes, label: int, source: str, *, digest: bytes | None = None, mask: bytes | None = None
    ) -> None:
        """Append one encoded image, and store the shard when it is full.

        `digest`: sha256 of the original file (default: of `data`). `mask`: a PNG of the object mask, if
        there is one.
        """
        self._shard.add(data, label, source, digest=digest, mask=mask)
        if self._shard.size >= self._max_bytes or len(self._shard) >= self._max_images:
            self.finish()

    def finish(self) -> None:
        """Store the begun shard, if it holds any image."""
        if len(self._shard):
            full, self._shard = self._shard, self._begin()
            self._store(full)

    def _begin(self) -> Shard:
        path = self.folder / f"{self.part}-{self.modality.word}-{self._next:05d}.h5"
        self._next += 1
        return Shard(path, dataset=self.dataset, split=self.split, part=self.part, modality=self.modality)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()


def _digest(arrays: dict[str, Array], sources: list[str]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays.keys() - set(CHECKSUMS)):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.data)
    digest.update("\n".join(sources).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class ShardIndex:
    """What is needed to read a shard's images from the file itself. Format 1 has no checksums (None)."""

    path: Path
    blob_at: int
    offsets: Ints
    labels: npt.NDArray[np.int32]
    modality: UInt8
    part: str
    sha256: str
    crc32: UInt32 | None
    mask_at: int
    mask_offsets: Ints | None
    mask_crc32: UInt32 | None


def _opened(path: Path) -> AbstractContextManager[h5py.File]:
    return reading(path, "a shard", "run the same `zssbir prepare` command again", sealed=False)


def read_index(path: Path) -> ShardIndex:
    """Read and check the index of a shard (not its images).

    Errors: DataError: not a shard, damaged, or of another format version.
    """
    with _opened(path) as file:
        return _read_index(path, file)


def _read_index(path: Path, file: h5py.File) -> ShardIndex:
    version = file.attrs["format_version"]
    if int(version) not in READABLE_VERSIONS:
        raise DataError(f"{path} has format version {version}, not {FORMAT_VERSION}")
    blob_at, blob_size = _contiguous(path, file["blob"])
    labels = np.asarray(integers(file["label"]), np.int32)
    offsets = _checked_offsets(path, integers(file["offsets"]), len(labels), blob_size)
    modality = np.asarray(integers(file["modality"]), np.uint8)
    if modality.shape != labels.shape or file["source"].shape != labels.shape:
        raise DataError(f"{path} is damaged: its fields differ in length")
    checked = {name: _checksums(path, file, name, len(labels)) for name in CHECKSUMS}
    if checked["crc32"] is None and int(version) > 1:
        raise DataError(f"{path} is damaged: its checksums are missing")
    mask_at, mask_offsets = 0, None
    if "mask_blob" in file:
        mask_at, mask_size = _contiguous(path, file["mask_blob"])
        mask_offsets = _checked_offsets(
            path, integers(file["mask_offsets"]), len(labels), mask_size, shortest=0
        )
    part, sha256 = str(file.attrs["part"]), str(file.attrs["sha256"])
    return ShardIndex(
        path=path, blob_at=blob_at, offsets=offsets, labels=labels, modality=modality, part=part, sha256=sha256,
        crc32=checked["crc32"], mask_at=mask_at, mask_offsets=mask_offsets, mask_crc32=checked["mask_crc32"],
    )  # fmt: skip


def _checksums(path: Path, file: h5py.File, name: str, n: int) -> UInt32 | None:
    if name not in file:
        return None
    values = np.asarray(integers(file[name]), np.uint32)
    if values.shape != (n,):
        raise DataError(f"{path} is damaged: its fields differ in length")
    return values


def _contiguous(path: Path, dataset: h5py.Dataset) -> tuple[int, int]:
    """Position and size in bytes of a dataset that lies in one piece."""
    at, size = dataset.id.get_offset(), dataset.shape[0] if dataset.ndim == 1 else -1
    if at is None or dataset.dtype != np.uint8 or size < 0 or at + size > path.stat().st_size:
        raise DataError(f"{path} is damaged: {dataset.name} is not contiguous bytes inside the file")
    return int(at), int(size)


def _checked_offsets(path: Path, raw: Array, n: int, size: int, shortest: int = 1) -> Ints:
    offsets = np.asarray(raw, np.int64)
    good = offsets.shape == (n + 1,) and n > 0 and offsets[0] == 0 and offsets[-1] == size
    if not good or bool((np.diff(offsets) < shortest).any()):
        raise DataError(f"{path} is damaged: its offsets do not fit its images")
    return offsets


def read_sources(path: Path) -> list[str]:
    """The original relative path of each image of a shard. Raises DataError."""
    with _opened(path) as file:
        return [s.decode("utf-8", "replace") for s in texts(file["source"])]


def read_digests(path: Path) -> UInt8:
    """uint8 [n, 32]: the sha256 of each image file as it was found. Raises DataError."""
    with _opened(path) as file:
        digests = np.asarray(integers(file["digest"]), np.uint8)
    if digests.ndim != 2 or digests.shape[1] != 32:
        raise DataError(f"{path} is damaged: its digests are not 32 bytes each")
    return digests


def content_digest(path: Path) -> str:
    """Recompute the content digest of a shard from what it holds (reads all of it). Raises DataError."""
    with _opened(path) as file:
        arrays = {k: integers(file[k]) for k in file if k != "source"}
        return _digest(arrays, [s.decode("utf-8") for s in texts(file["source"])])
