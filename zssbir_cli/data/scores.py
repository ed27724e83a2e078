"""Files of patch scores: one float16 map per training photo, beside the shards.

Layout of a file: `/scores` float16 [N, h, w] in the order of the data set's training photos, higher = more
like the photo's class; `/checksum` uint64 [N] (of each map); attributes `format_version`, `data` (identity of the
data set), `facts` (JSON: what made the scores) and `sha256` (of the checksums and the facts). Chunks that are computed
lie in a `Stage`, so several processes can share the work and a killed run continues where it stopped.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zssbir_cli import files
from zssbir_cli.arrays import Float32, UInt64
from zssbir_cli.data.hdf5 import differing_rows, new_file, reading, write_rows
from zssbir_cli.data.stage import Stage, blocks_of
from zssbir_cli.errors import DataError

FORMAT_VERSION = 2
AGAIN = "write it again with `zssbir_cli.data.scores.write_scores`, or use method.masks=cached, which computes the scores"
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

    @property
    def maps(self) -> Float16:
        """All maps, float16 [N, h, w], a read-only memory map."""
        if self._map is None:
            self._map = np.memmap(self.path, np.float16, "r", self._at, self._shape)
        return self._map

    def read(self, i: int) -> Float32:
        """The map of training photo `i`, float32 [h, w]."""
        return np.asarray(self.maps[i], np.float32)

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
        self.data, self.facts, self.count = data, dict(facts), count
        key = [FORMAT_VERSION, data, sorted(self.facts.items()), count]
        self.path = root / f"masks-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.h5"
        self.stage, self.blocks = Stage(self.path, {"chunk": chunk}), blocks_of(count, chunk)

    @property
    def complete(self) -> bool:
        """Whether the file is there, and sound; a damaged one is computed again."""
        try:
            read_scores(self.path, data=self.data, count=self.count)
        except DataError:
            return False
        return True

    def missing(self, rank: int = 0, world: int = 1) -> list[range]:
        """Photos still to be scored by process `rank` of `world`, as ranges of at most `chunk`."""
        return [block for block in self.blocks[rank::world] if self.stage.rows(block, "scores") is None]

    def put(self, photos: range, scores: Float16) -> None:
        """Store the maps [len(photos), h, w] of one range from `missing`."""
        if len(scores) != len(photos):
            raise ValueError(f"{len(scores)} maps for {len(photos)} photos")
        self.stage.put_rows(photos, scores=np.asarray(scores, np.float16))

    def finish(self) -> Path:
        """Join all chunks into the file and remove them; every range must have been put, by this process or by
        others that work on the same masks (one of which may have finished already)."""
        found = (block["scores"] for block in self.stage.all_rows(self.blocks, "scores"))
        try:
            if lacking := len(self.missing()):
                raise DataError(f"{self.path}: {lacking} of {len(self.blocks)} chunks are missing: run again")
            write_scores(self.path, found, data=self.data, facts=self.facts, count=self.count)
        except DataError:
            if not self.complete:
                raise
        self.stage.remove()
        return self.path


def write_scores(
    path: Path,
    scores: npt.NDArray[Any] | Iterable[npt.NDArray[Any]],
    *,
    data: str,
    facts: Mapping[str, str],
    count: int | None = None,
) -> Path:
    """Write score maps [N, h, w] (stored as float16) completely or not at all.

    Args:
        scores: all maps, or blocks of them of `count` maps in all.
        data: identity of the prepared data set (`PreparedSet.identity`); the maps follow its training
            photos in order. facts: what made the scores, for the record.
    """
    blocks = [scores] if isinstance(scores, np.ndarray) else scores
    total = len(scores) if isinstance(scores, np.ndarray) else int(count or 0)
    text = json.dumps(dict(facts), sort_keys=True)
    try:
        with new_file(path, "scores") as file:
            maps = (np.ascontiguousarray(block, np.float16) for block in blocks)
            sums = write_rows(file, "scores", _checked(path, maps), total, np.float16)
            file["checksum"] = sums
            file.attrs.update(
                format_version=FORMAT_VERSION, data=data, facts=text, sha256=_digest(sums, data, text)
            )
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    except (OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be written: {files.reason(error)}") from None
    return path


def _checked(path: Path, blocks: Iterable[npt.NDArray[Any]]) -> Iterator[npt.NDArray[Any]]:
    for block in blocks:
        if block.ndim != 3 or not np.isfinite(block).all():
            raise DataError(f"{path}: scores must be finite float16 maps [photos, rows, columns]")
        yield block


def _digest(sums: UInt64, data: str, facts: str) -> str:
    return hashlib.sha256(sums.tobytes() + f"{data}\n{facts}".encode()).hexdigest()


def read_scores(path: Path, *, data: str, count: int) -> Scores:
    """Open a file of scores for the data set `data` with `count` training photos, and compare its checksums.

    Errors: DataError: missing, damaged, altered, or made for another data set.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing: method.masks must be cached, online, none or a file of scores")
    with reading(path, "a file of mask scores", AGAIN) as file:
        version, made_for = int(file.attrs["format_version"]), str(file.attrs["data"])
        if version != FORMAT_VERSION:
            raise DataError(f"{path} has format version {version}, not {FORMAT_VERSION}")
        text, dataset = str(file.attrs["facts"]), file["scores"]
        shape, at = tuple(dataset.shape), dataset.id.get_offset()
        end = (at or 0) + 2 * int(np.prod(shape))
        if dataset.dtype != np.float16 or len(shape) != 3 or at is None or end > path.stat().st_size:
            raise DataError(f"{path} is damaged: its scores are not contiguous float16 maps")
        facts = {str(k): str(v) for k, v in files.parsed(text).items()}
        found = Scores(path, int(at), (shape[0], shape[1], shape[2]), facts)
        sums = np.asarray(file["checksum"][()], np.uint64)
        proved = len(sums) == len(found) and _digest(sums, made_for, text) == str(file.attrs["sha256"])
        if not proved or len(differing_rows(found.maps, sums)):
            raise DataError(f"{path} is damaged or altered: its checksums do not fit")
    if made_for != data or shape[0] != count:
        raise DataError(
            f"{path} holds {shape[0]} masks made for data set {made_for}, not for {data} with {count} "
            "training photos: make it again for this data set"
        )
    return found
