"""Photos in tar shards, as webdataset writes them: one embeddings file per shard, so that many machines share the work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.data.embeddings import (
    CONTENT_BYTES,
    Embeddings,
    FileStamps,
    Rows,
    Skipped,
    read_embeddings,
    write_embeddings,
)
from zssbir_cli.data.square import resize_photo
from zssbir_cli.data.stage import Stage, blocks_of
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.listing import content_tag
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import file_sha256, reason
from zssbir_cli.inputs.folder import photo_of
from zssbir_cli.names import counted
from zssbir_cli.preparation.archives import TarSource
from zssbir_cli.preparation.kinds import is_picture_name
from zssbir_cli.preparation.sources import MAX_FILE_BYTES
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality


@dataclass(frozen=True)
class ShardsResult:
    """The embeddings files of a share of the shards, how many were made now, and (shard/member, reason) of photos that
    cannot be read."""

    files: tuple[Path, ...]
    made: int
    photos: int
    skipped: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        unread = f", {counted(len(self.skipped), 'unreadable photo')}" if self.skipped else ""
        kept = len(self.files) - self.made
        return f"{counted(self.photos, 'photo')} in {counted(len(self.files), 'shard')}: {self.made:,} new, {kept:,} kept{unread}"


def embed_shards(
    embedder: Embedder,
    shards: Sequence[Path],
    out: Path,
    share: tuple[int, int] = (1, 1),
    *,
    half: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> ShardsResult:
    """Write `out/<shard>.h5` for each shard of a share: number i of n takes every n-th one.

    A finished file is kept when it was made of the very bytes of the shard, by these weights; a pass that is killed
    continues within the shard. Errors: DataError: damaged shards, named once all others are done; disk full.
    """
    mine = shards[share[0] - 1 :: share[1]]
    doubled = {s.name for s in shards if sum(t.name == s.name for t in mine) > 1}
    if doubled:
        raise UsageError(
            f"--photos: two shards are called {min(doubled)}; embed them into folders of their own"
        )
    made, files, damaged, skipped, photos = 0, list[Path](), list[str](), list[tuple[str, str]](), 0
    for number, shard in enumerate(mine, start=1):
        try:
            job = _Shard(embedder, shard, out / f"{shard.stem}.h5", half)
        except DataError as error:
            damaged.append(str(error))
            continue
        stored = None if force else job.fresh()
        if stored is None:
            stored = job.embed(f"embedding {shard.name} ({number:,} of {len(mine):,})", progress)
            made += 1
        files.append(job.path)
        photos += len(stored)
        skipped += [(s.name, s.reason) for s in stored.skipped]
    if damaged:
        more = f"; and {len(damaged) - 3:,} more" if len(damaged) > 3 else ""
        raise DataError(
            f"{counted(len(files), 'shard')} of {len(mine):,} done; {'; '.join(damaged[:3])}{more}"
        )
    return ShardsResult(tuple(files), made, photos, tuple(skipped))


class _Shard:
    """One shard and its embeddings file."""

    KEPT = ("rows", "failed", "content")
    """Arrays of a finished batch."""

    def __init__(self, embedder: Embedder, shard: Path, path: Path, half: bool) -> None:
        self.embedder, self.shard, self.path = embedder, shard, path
        self.dtype: type[np.float16] | type[np.float32] = np.float16 if half else np.float32
        self.sha256 = file_sha256(shard)
        source = TarSource(shard)
        source.scan()
        chosen = [i for i, name in enumerate(source.listing.paths) if is_picture_name(name)]
        if not chosen:
            raise DataError(f"{shard}: holds no pictures")
        self.names = [f"{shard.name}/{source.listing.paths[i]}" for i in chosen]
        self.images = TarPhotos(
            shard,
            np.array([source.offset(i) for i in chosen], np.int64),
            np.array([source.listing.sizes[i] for i in chosen], np.int64),
            embedder.size,
        )

    def fresh(self) -> Embeddings | None:
        """The file, where it is whole and of these bytes and weights."""
        try:
            found = read_embeddings(self.path)
        except DataError:
            return None
        same = found.info.data_identity == self.sha256 and found.embedding.dtype == self.dtype
        return found if same and self.embedder.accepts(found.info) else None

    def embed(self, label: str, progress: Progress) -> Embeddings:
        """Embed what is not on the stage yet, and write the file."""
        key = {"weights": self.embedder.weights.sha256, "made": self.embedder.made, "data": self.sha256}
        stage = Stage(
            self.path, key | {"precision": self.embedder.precision.name, "batch": self.embedder.batch}
        )
        total, batches = len(self.names), blocks_of(len(self.names), self.embedder.batch)
        todo = [b for b in batches if stage.rows(b, *self.KEPT) is None]
        done = total - sum(map(len, todo))
        progress(label, done, total)
        for batch, rows in zip(todo, self.embedder.batches(self.images, Modality.PHOTO, todo), strict=True):
            failed, content = (x[list(batch)].numpy() for x in (self.images.failed, self.images.content))
            stage.put_rows(batch, rows=rows.cpu().numpy(), failed=failed, content=content)
            done += len(batch)
            progress(label, done, total)
        try:
            self._write(list(stage.all_rows(batches, *self.KEPT)))
        except DataError:
            if self.fresh() is None:  # unless another process has just written the same
                raise
        stage.remove()
        return read_embeddings(self.path, check_rows=False)

    def _write(self, whole: Sequence[Mapping[str, Rows]]) -> None:
        good = [np.isfinite(b["rows"]).all(1) & b["rows"].any(1) & (b["failed"] == 0) for b in whole]
        keep = np.concatenate(good)
        if not keep.any():
            raise DataError(f"{self.shard}: none of its {len(keep):,} pictures can be read")
        kept = np.flatnonzero(keep)
        info = self.embedder.info(
            data_name=self.shard.stem, data_identity=self.sha256, data_root=str(self.shard.parent.resolve())
        )
        content = np.concatenate([b["content"] for b in whole])[kept]
        never = np.zeros(len(kept), np.int64)
        write_embeddings(
            self.path, (b["rows"][mask] for b, mask in zip(whole, good, strict=True) if mask.any()),
            np.full(len(kept), -1), np.full(len(kept), int(Modality.PHOTO)), [self.names[i] for i in kept], info,
            dtype=self.dtype, stamps=FileStamps(self.images.sizes[kept], never, never, content), skipped=[self._skipped(int(i)) for i in np.flatnonzero(~keep)],
        )  # fmt: skip

    def _skipped(self, i: int) -> Skipped:
        return Skipped(self.names[i], self.images.fault(i) or "its embedding is zero or not finite")


class TarPhotos(Dataset[Tensor]):
    """Pictures of a tar file as uint8 [3, size, size], by where their bytes lie. Picklable.

    `failed` uint8 [N] and `content` uint8 [N, 16] (sha256 of the bytes that were read, cut) are shared with the loading
    processes; an unreadable picture becomes a grey square. A file that cannot be read any more is a DataError.
    """

    def __init__(self, path: Path, offsets: np.ndarray, sizes: np.ndarray, size: int) -> None:
        self.path, self.offsets, self.sizes, self.size = path, offsets, sizes, size
        self.failed = torch.zeros(len(offsets), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self.content = torch.zeros(len(offsets), CONTENT_BYTES, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, i: int) -> Tensor:
        raw = self._read(i)
        self.content[i] = torch.frombuffer(bytearray(content_tag(raw)), dtype=torch.uint8)
        try:
            return resize_photo(photo_of(raw, self.path, self.size), self.size)
        except DataError:
            self.failed[i] = 1
            return torch.full((3, self.size, self.size), 128, dtype=torch.uint8)

    def fault(self, i: int) -> str:
        """Why a picture cannot be read ("" = it can)."""
        try:
            photo_of(self._read(i), self.path)
        except DataError as error:
            return str(error).removeprefix(f"{self.path}: ")
        return ""

    def _read(self, i: int) -> bytes:
        try:
            with self.path.open("rb") as file:
                file.seek(int(self.offsets[i]))
                return file.read(min(int(self.sizes[i]), MAX_FILE_BYTES + 1))
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read: {reason(error)}; run the same command again"
            ) from None
