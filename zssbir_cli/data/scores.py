"""Files of patch scores: one float16 map per training photo, beside the shards.

Layout of a file: `/scores` float16 [N, h, w] in the order of the data set's training photos, higher = more
like the photo's class; attributes `format_version`, `data` (identity of the data set) and `facts` (JSON: what
made the scores). While a file is being computed its chunks lie in `<name>.partial/`, each written whole or
not at all, so several processes can share the work and a killed run goes on where it stopped.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.errors import DataError

FORMAT_VERSION = 1
CHUNK = 256
Float16 = npt.NDArray[np.float16]


class Scores:
    """Score maps of a data set's training photos, memory-mapped; can be pickled and survives fork.

    `grid` is (h, w), `facts` what made them.
    """

    def __init__(self, path: Path, at: int, shape: tuple[int, int, int], facts: dict[str, str]) -> None:
        self.path, self._at, self._shape, self.facts = path, at, shape, facts
        self._map: Float16 | None = None

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a map."""
        return self._shape[1], self._shape[2]

    def read(self, i: int) -> npt.NDArray[np.float32]:
        """The map of training photo `i`, float32 [h, w]."""
        if self._map is None:
            self._map = np.memmap(self.path, np.float16, "r", self._at, self._shape)
        return np.asarray(self._map[i], np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_map": None}


class ScoreCache:
    """The cache of one set of facts: `<root>/masks-<key>.h5`, the key being a hash of the facts and the data.

    Args:
        root: folder of the prepared data set. data: its identity. count: number of training photos.
        facts: all that the scores depend on (model, weights, prompt, ...).
    """

    def __init__(
        self, root: Path, data: str, facts: Mapping[str, str], count: int, chunk: int = CHUNK
    ) -> None:
        self.data, self.facts, self.count, self.chunk = data, dict(facts), count, chunk
        named = json.dumps([FORMAT_VERSION, data, sorted(self.facts.items()), count, chunk])
        self.path = root / f"masks-{hashlib.sha256(named.encode()).hexdigest()[:16]}.h5"
        self.parts = self.path.with_name(self.path.name + ".partial")

    @property
    def complete(self) -> bool:
        """Whether the file is there (it is only renamed to its name when it is whole)."""
        return self.path.is_file()

    def missing(self, rank: int = 0, world: int = 1) -> list[range]:
        """Photos still to be scored by process `rank` of `world`, as ranges of at most `chunk`."""
        starts = list(range(0, self.count, self.chunk))[rank::world]
        return [range(s, min(s + self.chunk, self.count)) for s in starts if self._load(s) is None]

    def put(self, photos: range, scores: Float16) -> None:
        """Store the maps [len(photos), h, w] of one range from `missing`."""
        if len(scores) != len(photos):
            raise ValueError(f"{len(scores)} maps for {len(photos)} photos")
        try:
            self.parts.mkdir(parents=True, exist_ok=True)
            partial = self.parts / f"{photos.start:09d}.{os.getpid()}.tmp"
            with partial.open("wb") as file:
                np.save(file, np.asarray(scores, np.float16))
            partial.replace(self._part(photos.start))
        except OSError as error:
            raise DataError(f"{self.parts} cannot be written: {error.strerror or error}") from None

    def finish(self) -> Path:
        """Join all chunks into the file and remove them; every range must have been put."""
        chunks = [self._load(s) for s in range(0, self.count, self.chunk)]
        done = [c for c in chunks if c is not None]
        if len(done) != len(chunks):
            raise DataError(
                f"{self.parts} lacks {len(chunks) - len(done)} of {len(chunks)} chunks: run again"
            )
        write_scores(self.path, np.concatenate(done), data=self.data, facts=self.facts)
        shutil.rmtree(self.parts, ignore_errors=True)
        return self.path

    def _part(self, start: int) -> Path:
        return self.parts / f"{start:09d}.npy"

    def _load(self, start: int) -> Float16 | None:
        """A chunk, or None when it is missing or damaged (it is then computed again)."""
        try:
            chunk = np.load(self._part(start), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        good = chunk.dtype == np.float16 and chunk.ndim == 3
        return chunk if good and len(chunk) == min(self.chunk, self.count - start) else None


def write_scores(path: Path, scores: npt.NDArray[Any], *, data: str, facts: Mapping[str, str]) -> Path:
    """Write score maps [N, h, w] (stored as float16) completely or not at all.

    Args:
        data: identity of the prepared data set (`PreparedSet.identity`); the maps follow its training
            photos in order. facts: what made the scores, for the record.
    """
    array = np.ascontiguousarray(scores, np.float16)
    if array.ndim != 3 or not np.isfinite(array).all():
        raise DataError(f"{path}: scores must be finite float16 maps [photos, rows, columns]")
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(partial, "w") as file:
            file.create_dataset("scores", data=array)
            file.attrs["format_version"] = FORMAT_VERSION
            file.attrs["data"] = data
            file.attrs["facts"] = json.dumps(dict(facts), sort_keys=True)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def read_scores(path: Path, *, data: str, count: int) -> Scores:
    """Open a file of scores for the data set `data` with `count` training photos.

    Raises:
        DataError: missing, damaged, or made for another data set.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: method.masks must be cached, online, none or a file of scores")
    try:
        with h5py.File(path, "r") as file:
            version, made_for = int(file.attrs["format_version"]), str(file.attrs["data"])
            facts = {str(k): str(v) for k, v in json.loads(str(file.attrs["facts"])).items()}
            dataset = file["scores"]
            shape, dtype, at = tuple(dataset.shape), dataset.dtype, dataset.id.get_offset()
    except Exception as error:  # h5py raises almost any type on a damaged file
        line = " ".join(str(error).split())[:160]
        raise DataError(f"{path} is damaged or not a file of mask scores ({line}); delete it") from None
    if version != FORMAT_VERSION:
        raise DataError(f"{path} has format version {version}, not {FORMAT_VERSION}; delete it")
    if (
        dtype != np.float16
        or len(shape) != 3
        or at is None
        or at + 2 * int(np.prod(shape)) > path.stat().st_size
    ):
        raise DataError(f"{path} is damaged: its scores are not contiguous float16 maps; delete it")
    if made_for != data or shape[0] != count:
        raise DataError(
            f"{path} holds {shape[0]} masks made for data set {made_for}, not for {data} with {count} "
            "training photos: make it again for this data set"
        )
    return Scores(path, int(at), (shape[0], shape[1], shape[2]), facts)
