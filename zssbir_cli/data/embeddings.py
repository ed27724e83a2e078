"""The embeddings file: one HDF5 file per (weights, images), that `embed` writes and `eval` and `search` read.

`/embedding` float16 or float32 [N, D] (contiguous, so that it can be memory-mapped), `/checksum` uint64 [N] (of each
row), `/label` int32 (-1: none), `/modality` uint8, `/source` text; of a folder's photos also `/size`, `/mtime_ns`,
`/ctime_ns` int64 and `/content` uint8 [N, 16], by which the file follows its folder, and `/skipped` text (JSON: files
that cannot be read). Attributes say which weights, recipe, preprocessing and images the rows came from, and `sha256`
covers all of this, so what is altered is noticed when the file is opened.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath, PureWindowsPath

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli import files
from zssbir_cli.arrays import Array, Ints, UInt8, UInt64
from zssbir_cli.data.hdf5 import (
    Summed,
    begins_as_hdf5,
    differing_rows,
    integers,
    new_file,
    reading,
    texts,
    write_rows,
)
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality

FORMAT_VERSION = 2
MAP_ROWS = sys.platform != "win32"
"""Windows cannot replace a file that is mapped; there, rows are read into memory."""
CONTENT_BYTES = 16
LATER = ("model",)
"""Facts that older files do not have: they are written, and covered by `sha256`, only where they say something."""
Rows = npt.NDArray[np.floating]


@dataclass(frozen=True)
class EmbeddingInfo:
    """Where embeddings came from. Empty texts where something does not apply (a folder has no split)."""

    checkpoint: str = ""
    """sha256 of the weights (`checkpoints/*/model.safetensors`, or a tower's file)."""
    run: str = ""
    """Folder of the run that holds them."""
    recipe: str = ""
    method: str = ""
    data_name: str = ""
    data_identity: str = ""
    """Identity of the prepared set, sha256 of a tar shard ("" for a folder of photos)."""
    data_root: str = ""
    """Folder of the prepared set or of the photos."""
    split: str = ""
    part: str = ""
    selection: str = ""
    """Which images of the part ("": all)."""
    classes: tuple[str, ...] = ()
    """Class names; the index is the label."""
    size: int = 0
    """Side of the network input, pixels."""
    precision: str = ""
    model: str = ""
    """The frozen tower, instead of a run: by which name `models.towers.find_tower` finds it again."""
    made: str = ""
    """All else that the rows depend on: preprocessing, method, library versions (JSON)."""


@dataclass(frozen=True)
class FileStamps:
    """By what a folder's files are known again: `size` in bytes, `mtime_ns`, `ctime_ns`, all int64 [N], and
    `content`, the first 16 bytes of the sha256 of each, uint8 [N, 16]."""

    size: Ints
    mtime_ns: Ints
    ctime_ns: Ints
    content: UInt8


@dataclass(frozen=True)
class Skipped:
    """A file that cannot be read: its name, the reason, and what it was like then (see `FileStamps`)."""

    name: str
    reason: str
    size: int = 0
    mtime_ns: int = 0
    ctime_ns: int = 0


@dataclass(frozen=True)
class Embeddings:
    """Embeddings with what they belong to. `embedding` may be a read-only memory map; `checksum` is of its rows;
    `sources`: original relative path of each image, bytes that are no UTF-8 as surrogates."""

    embedding: Rows
    checksum: UInt64
    label: npt.NDArray[np.int32]
    modality: UInt8
    sources: tuple[str, ...]
    info: EmbeddingInfo
    stamps: FileStamps | None = None
    skipped: tuple[Skipped, ...] = ()
    path: Path | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.label)

    def rows_of(self, modality: Modality) -> Ints:
        """Row numbers of the sketches or the photos, ascending."""
        return np.flatnonzero(self.modality == int(modality))

    def file_of(self, row: int) -> Path | None:
        """Where the image of a row lies, by what the file says; None for a name that leads out of `data_root`."""
        name = self.sources[row]
        outside = any(
            kind(name).is_absolute() or kind(name).drive for kind in (PurePosixPath, PureWindowsPath)
        )
        if not self.info.data_root or not name or outside or ".." in name.replace("\\", "/").split("/"):
            return None
        return Path(self.info.data_root) / os.fsdecode(name.encode("utf-8", "surrogateescape"))


def check_target(out: Path) -> None:
    """Refuse, before anything is embedded, a place for an embeddings file where something else lies, or nothing
    can be written. Errors: UsageError, DataError."""
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name a file for the embeddings, e.g. {out / 'photos.h5'}")
    if out.is_file() and not begins_as_hdf5(out):
        raise UsageError(
            f"{out}: this file is no embeddings file and is not overwritten; name another one, or remove it"
        )
    files.check_writable(out)


def write_embeddings(
    path: Path,
    embedding: Rows | Iterable[Rows | Summed],
    label: npt.NDArray[np.integer],
    modality: npt.NDArray[np.integer],
    sources: Sequence[str],
    info: EmbeddingInfo,
    *,
    dtype: type[np.float16] | type[np.float32] = np.float32,
    stamps: FileStamps | None = None,
    skipped: Sequence[Skipped] = (),
) -> Path:
    """Write an embeddings file completely or not at all; `embedding` is [N, D] or blocks of rows of it; `Summed` ones
    come from another embeddings file and are neither checked nor summed again.

    Errors: DataError when it cannot be written (disk full, no permission), when rows are not N, or when one has no
    direction (zero, inf or NaN).
    """
    blocks = [embedding] if isinstance(embedding, np.ndarray) else embedding
    names = [s.encode("utf-8", "surrogateescape") for s in sources]
    arrays: dict[str, Array] = {
        "label": np.asarray(label, np.int32),
        "modality": np.asarray(modality, np.uint8),
    }
    if stamps is not None:
        arrays |= {f.name: getattr(stamps, f.name) for f in fields(FileStamps)}
    facts = {name: _text(value) for name, value in asdict(info).items() if value or name not in LATER}
    lost = json.dumps([asdict(s) for s in skipped])
    try:
        with new_file(path, "embedding") as file:
            rows = _checked(path, blocks, dtype)
            arrays["checksum"] = write_rows(file, "embedding", rows, len(names), dtype)
            for name, array in arrays.items():
                file[name] = array
            file.create_dataset("source", data=np.array(names, object), dtype=h5py.string_dtype())
            file["skipped"] = lost
            file.attrs.update(facts)
            file.attrs["sha256"] = _digest(arrays, names, facts, lost)
            file.attrs["format_version"] = FORMAT_VERSION
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: cannot write the embeddings ({files.reason(error)}); {files.remedy(error)}, or "
            "choose another place"
        ) from None
    return path


def _text(value: object) -> str:
    return json.dumps(value) if isinstance(value, tuple) else files.printable(str(value))


def _checked(
    path: Path, blocks: Iterable[Rows | Summed], dtype: type[np.floating]
) -> Iterator[Rows | Summed]:
    """The blocks as they are stored, each row finite and not zero. Raises DataError."""
    at = 0
    for given in blocks:
        if isinstance(given, Summed):
            yield given
            at += len(given)
            continue
        block = np.asarray(given, dtype)
        most = np.abs(block).max(1)
        bad = np.flatnonzero(~(np.isfinite(most) & (most > 0)))
        if len(bad):
            raise DataError(
                f"{path}: the embedding of image {at + int(bad[0])} is zero or not finite; is the run sound?"
            )
        yield block
        at += len(block)


def _digest(arrays: dict[str, Array], names: Iterable[bytes], facts: dict[str, str], skipped: str) -> str:
    """sha256 of all that an embeddings file holds; of the rows, through their checksums."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(arrays[name]).data)
    digest.update(b"\0".join(names))
    digest.update(skipped.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_embeddings(path: str | Path, *, check_rows: bool = True) -> Embeddings:
    """Open an embeddings file; the rows stay on disk as a memory map.

    `check_rows` compares every row with its checksum, which reads the file once.
    Errors: DataError: missing, damaged, altered, not an embeddings file, or of another format version.
    """
    path = Path(path)
    with reading(path, "an embeddings file", "run `zssbir embed` again") as file:
        found = _read(path, file)
        if check_rows and len(bad := differing_rows(found.embedding, found.checksum)):
            raise DataError(
                f"{path}: damaged, {len(bad)} of {len(found)} rows are not as they were written (the first: row "
                f"{int(bad[0])})"
            )
    return found


def _read(path: Path, file: h5py.File) -> Embeddings:
    version = file.attrs.get("format_version")
    if version is None or not {"embedding", "label", "modality", "source"} <= set(file):
        raise DataError(f"{path}: not an embeddings file of zssbir")
    if int(version) != FORMAT_VERSION:
        raise DataError(f"{path}: format version {version}, not {FORMAT_VERSION}")
    data = file["embedding"]
    if data.ndim != 2 or data.dtype not in (np.float16, np.float32) or not data.shape[1]:
        raise DataError(
            f"{path}: /embedding must be float16 or float32 [N, D], not {data.dtype} {data.shape}"
        )
    optional = [f.name for f in fields(FileStamps) if f.name in file]
    arrays = {name: integers(file[name]) for name in ("label", "modality", "checksum", *optional)}
    names, lost = texts(file["source"]), texts(file["skipped"])[0]
    known = [f.name for f in fields(EmbeddingInfo) if f.name not in LATER or f.name in file.attrs]
    facts = {name: str(file.attrs.get(name, "")) for name in known}
    if {len(names), *(len(a) for a in arrays.values())} != {data.shape[0]}:
        raise DataError(f"{path}: damaged, its fields differ in length")
    if _digest(arrays, names, facts, lost.decode()) != file.attrs["sha256"]:
        raise DataError(f"{path}: damaged or altered, its sha256 differs")
    classes = tuple(str(c) for c in files.parsed(facts.pop("classes") or "[]"))
    info = EmbeddingInfo(classes=classes, size=int(facts.pop("size") or 0), **facts)
    return Embeddings(
        embedding=_mapped(path, data),
        checksum=arrays["checksum"].astype(np.uint64, copy=False),
        label=arrays["label"].astype(np.int32, copy=False),
        modality=arrays["modality"].astype(np.uint8, copy=False),
        sources=tuple(name.decode("utf-8", "surrogateescape") for name in names),
        info=info,
        stamps=FileStamps(**{name: arrays[name] for name in optional}) if optional else None,  # type: ignore[arg-type]
        skipped=tuple(Skipped(**s) for s in files.parsed(lost)),
        path=path,
    )


def _mapped(path: Path, data: h5py.Dataset) -> Rows:
    offset, end = data.id.get_offset(), path.stat().st_size
    if offset is None or not MAP_ROWS:
        return np.asarray(data[()])
    if offset + data.size * data.dtype.itemsize > end:
        raise DataError(f"{path}: cut short")
    return np.memmap(path, data.dtype, "r", offset, data.shape)
