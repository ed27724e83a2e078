"""The embeddings file: one HDF5 file per (weights, images), that `embed` writes and `eval` and `search` read.

`/embedding` float16 or float32 [N, D] (contiguous, so that it can be memory-mapped), `/label` int32 (-1: none),
`/modality` uint8, `/source` text; attributes say which weights, recipe and images it came from.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.errors import DataError
from zssbir_cli.types import Modality

FORMAT_VERSION = 1
Rows = npt.NDArray[np.floating]


@dataclass(frozen=True)
class EmbeddingInfo:
    """Where embeddings came from. Empty texts where something does not apply (a folder has no split)."""

    checkpoint: str = ""
    """sha256 of the weights (`checkpoints/*/model.safetensors`)."""
    run: str = ""
    """Folder of the run that holds them."""
    recipe: str = ""
    method: str = ""
    data_name: str = ""
    data_identity: str = ""
    """Identity of the prepared set, or a digest of a folder's file names and sizes."""
    data_root: str = ""
    """Folder of the prepared set or of the photos."""
    split: str = ""
    part: str = ""
    classes: tuple[str, ...] = ()
    """Class names; the index is the label."""
    size: int = 0
    """Side of the network input, pixels."""
    precision: str = ""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings with what they belong to. `embedding` may be a read-only memory map."""

    embedding: Rows
    label: npt.NDArray[np.int32]
    modality: npt.NDArray[np.uint8]
    info: EmbeddingInfo
    path: Path | None = None
    _sources: tuple[str, ...] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def sources(self) -> tuple[str, ...]:
        """Original relative path of each image (read on first use)."""
        if self._sources is not None:
            return self._sources
        assert self.path is not None
        with h5py.File(self.path, "r") as file:
            return tuple(s.decode("utf-8", "replace") for s in file["source"][()])

    def rows_of(self, modality: Modality) -> npt.NDArray[np.int64]:
        """Row numbers of the sketches or the photos, ascending."""
        return np.flatnonzero(self.modality == int(modality))


def write_embeddings(
    path: Path,
    embedding: Rows | Iterable[Rows],
    label: npt.NDArray[np.integer],
    modality: npt.NDArray[np.integer],
    sources: Iterable[str],
    info: EmbeddingInfo,
    *,
    dtype: type[np.float16] | type[np.float32] = np.float32,
) -> Path:
    """Write an embeddings file completely or not at all; `embedding` is [N, D] or blocks of rows of it.

    Errors: DataError when it cannot be written (disk full, no permission), or when rows are not N.
    """
    partial = path.with_name(path.name + ".partial")
    blocks = [embedding] if isinstance(embedding, np.ndarray) else embedding
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(partial, "w") as file:
            _write(file, blocks, len(label), dtype)
            file["label"] = np.asarray(label, np.int32)
            file["modality"] = np.asarray(modality, np.uint8)
            text = [s.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for s in sources]
            file.create_dataset("source", data=np.array(text, object), dtype=h5py.string_dtype())
            for name, value in asdict(info).items():
                file.attrs[name] = json.dumps(value) if name == "classes" else value
            file.attrs["format_version"] = FORMAT_VERSION
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write the embeddings ({error}); choose another place") from error
    return path


def _write(file: h5py.File, blocks: Iterable[Rows], rows: int, dtype: type[np.floating]) -> None:
    data, at = None, 0
    for block in blocks:
        if data is None:
            data = file.create_dataset("embedding", (rows, block.shape[1]), dtype)
        if at + len(block) > rows:
            raise DataError(f"{file.filename}: more embeddings than the {rows} images")
        data[at : at + len(block)] = block
        at += len(block)
    if at != rows or data is None:
        raise DataError(f"{file.filename}: {at} embeddings for {rows} images")


def read_embeddings(path: str | Path) -> Embeddings:
    """Open an embeddings file; the rows stay on disk as a memory map.

    Errors: DataError: missing, damaged, not an embeddings file, or of another format version.
    """
    path = Path(path)
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except DataError:
        raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; write it with `zssbir embed`") from None
    except Exception as error:  # h5py raises almost any type on a damaged file
        line = " ".join(str(error).split())[:160]
        raise DataError(
            f"{path}: not an embeddings file, or damaged ({line}); run `zssbir embed` again"
        ) from None


def _read(path: Path, file: h5py.File) -> Embeddings:
    version = file.attrs.get("format_version")
    if version is None or not {"embedding", "label", "modality", "source"} <= set(file):
        raise DataError(f"{path}: not an embeddings file of zssbir (`zssbir embed` writes them)")
    if int(version) != FORMAT_VERSION:
        raise DataError(f"{path}: format version {version}, not {FORMAT_VERSION}; run `zssbir embed` again")
    if h5py.check_string_dtype(file["source"].dtype) is None:  # reading it could make the HDF5 library crash
        raise DataError(f"{path}: damaged, /source holds no texts; run `zssbir embed` again")
    data = file["embedding"]
    label = np.asarray(file["label"][()], np.int32)
    modality = np.asarray(file["modality"][()], np.uint8)
    if data.ndim != 2 or data.dtype not in (np.float16, np.float32):
        raise DataError(
            f"{path}: /embedding must be float16 or float32 [N, D], not {data.dtype} {data.shape}"
        )
    if not len(label) == len(modality) == data.shape[0] == file["source"].shape[0] or not data.shape[1]:
        raise DataError(f"{path}: damaged, its fields differ in length; run `zssbir embed` again")
    offset, end = data.id.get_offset(), path.stat().st_size
    if offset is None:
        rows = np.asarray(data[()])
    elif offset + data.size * data.dtype.itemsize > end:
        raise DataError(f"{path}: cut short; run `zssbir embed` again")
    else:
        rows = np.memmap(path, data.dtype, "r", offset, data.shape)
    texts = {f.name: str(file.attrs.get(f.name, "")) for f in fields(EmbeddingInfo)}
    classes = tuple(str(c) for c in json.loads(texts.pop("classes") or "[]"))
    info = EmbeddingInfo(classes=classes, size=int(texts.pop("size") or 0), **texts)
    return Embeddings(rows, label, modality, info, path)
