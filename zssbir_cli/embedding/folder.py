"""An embeddings file that follows a folder of photos: only what is new or changed is embedded."""

import hashlib
import os
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli import files
from zssbir_cli.arrays import Array
from zssbir_cli.compute import distributed
from zssbir_cli.data.embeddings import (
    CONTENT_BYTES,
    Embeddings,
    FileStamps,
    Rows,
    Skipped,
    check_target,
    read_embeddings,
    write_embeddings,
)
from zssbir_cli.data.hdf5 import differing_rows
from zssbir_cli.data.square import resize_photo
from zssbir_cli.data.stage import Stage
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.kept import of_renamed_folder, rows_in_order
from zssbir_cli.embedding.listing import (
    PhotoListing,
    Update,
    content_tag,
    file_content,
    list_photos,
    what_to_embed,
)
from zssbir_cli.embedding.weights import embeddings_file
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.folder import photo_of
from zssbir_cli.names import file_part
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

MAX_TOUCHED = 256
"""So many new time stamps of unchanged photos are not worth a new file."""


@dataclass(frozen=True)
class FolderResult:
    """What following a folder left: the file, what was done, (name, reason) of photos that cannot be read, and which
    other files were passed over (`3 .txt`)."""

    path: Path
    images: int
    new: int
    changed: int
    moved: int
    gone: int
    kept: int
    skipped: tuple[tuple[str, str], ...]
    others: str = ""

    def __str__(self) -> str:
        moved = f"{self.moved:,} moved, " if self.moved else ""
        done = f"{self.new:,} new, {self.changed:,} changed, {moved}{self.gone:,} gone, {self.kept:,} kept"
        unread = f", {len(self.skipped):,} unreadable" if self.skipped else ""
        return done + unread + (f"; passed over {self.others}, which are not pictures" if self.others else "")


def follow_folder(
    embedder: Embedder,
    folder: Path,
    out: Path | None = None,
    *,
    half: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> FolderResult:
    """Bring the embeddings file `out` (default: one in the home of the weights) in line with the photos below `folder`.

    Photos that the file knows by name, size and times, or by content, keep their rows. A pass that is killed continues
    where it was. Unreadable photos are left out, named, and tried again when they change.
    Errors: DataError: no photos, none readable, disk full. UsageError: at `out` lies something else.
    """
    if out is not None:
        check_target(out)
    path = out or folder_file(embedder.weights.home, embedder.weights.which, folder)
    try:
        return _follow(embedder, folder, path, half=half, force=force, progress=progress)
    except _Removed:  # by another process, which has just written the same file
        if distributed.world_size() > 1:
            raise
        return _follow(embedder, folder, path, half=half, force=False, progress=progress)


class _Removed(DataError):
    """Finished batches are not there any more."""


def _follow(
    embedder: Embedder, folder: Path, path: Path, *, half: bool, force: bool, progress: Progress
) -> FolderResult:
    survey = _survey(embedder, folder, path, half=half, force=force) if distributed.is_main() else None
    shared = distributed.from_main(survey and survey[:2])
    assert shared is not None
    key = {"weights": embedder.weights.sha256, "made": embedder.made, "precision": embedder.asked.name}
    job = _Job(embedder, path, half, Stage(path, key), *shared, survey[2] if survey else None)
    if job.plan.todo:
        job.embed(progress)
    distributed.barrier()
    if distributed.is_main():
        job.write()
    distributed.barrier()
    return job.result()


def folder_file(home: Path, which: str, images: Path) -> Path:
    """Where embeddings of a folder of photos are kept, below a run's folder or a tower's."""
    whole = images.resolve()
    tag = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
    return embeddings_file(home, f"{which}-folder-{file_part(whole.name)}-{tag}.h5")


def _survey(
    embedder: Embedder, folder: Path, path: Path, *, half: bool, force: bool
) -> tuple[PhotoListing, Update, Embeddings | None]:
    """The folder as it is, what to do, and the file as it is, if its rows can be kept."""
    listing, old = list_photos(folder), None
    if not force and path.exists():
        try:
            old = read_embeddings(path, check_rows=False)
        except DataError as error:
            print(f"{error.args[0].split(';')[0]}: every photo is embedded again", file=sys.stderr)
    elif not force and path == folder_file(embedder.weights.home, embedder.weights.which, folder):
        old = of_renamed_folder(path, listing.names)
        old = None if old is None or _unfit(embedder, old, half) else old
    if old is not None and (reason := _unfit(embedder, old, half)):
        print(f"{path}: {reason}: every photo is embedded again", file=sys.stderr)
        old = None
    damaged = differing_rows(old.embedding, old.checksum) if old is not None else np.empty(0, np.int64)
    return listing, what_to_embed(listing, old, damaged), old


def _unfit(embedder: Embedder, old: Embeddings, half: bool) -> str:
    """Why the rows of a file cannot be kept; "" when they can."""
    info, weights = old.info, embedder.weights
    if old.stamps is None or info.data_identity:
        return "does not follow a folder"
    if info.checkpoint != weights.sha256:
        return f"made with other weights ({info.model or info.run or info.checkpoint[:12]})"
    if not embedder.accepts(info):
        return "made with another preprocessing, precision or version of a library"
    if not half and old.embedding.dtype == np.float16:
        return "made with --half"  # what was rounded away cannot be had back
    return ""


class PhotoFiles(Dataset[Tensor]):
    """The photos of a listing as uint8 [3, size, size]. Picklable.

    `content` uint8 [N, 16] (sha256 of the bytes that were read, cut) and `failed` uint8 [N] are shared with the loading
    processes; an unreadable photo becomes a grey square.
    """

    def __init__(self, listing: PhotoListing, size: int) -> None:
        self.root, self.names, self.size = listing.root, listing.names, size
        self.content = torch.zeros(len(listing), CONTENT_BYTES, dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]
        self.failed = torch.zeros(len(listing), dtype=torch.uint8).share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Tensor:
        path = self.root / self.names[i]
        try:
            raw = path.read_bytes()
            self.content[i] = torch.frombuffer(bytearray(content_tag(raw)), dtype=torch.uint8)
            return resize_photo(photo_of(raw, path, self.size), self.size)
        except (DataError, OSError):
            self.failed[i] = 1
            return torch.full((3, self.size, self.size), 128, dtype=torch.uint8)


class _Staged:
    """The blocks of a stage, found by a photo's name, size and time of change; the last block of a photo counts."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self._place: dict[tuple[bytes, int, int], tuple[str, int, int]] = {}
        self._open: OrderedDict[str, dict[str, Array]] = OrderedDict()
        for block in stage.names():
            found = stage.load(block)
            if found is None or not {"rows", "content", "failed", "stamps", "names"} <= set(found):
                continue
            stamps = found["stamps"].tolist()
            for row, (name, (size, mtime, ctime)) in enumerate(
                zip(found["names"].tolist(), stamps, strict=True)
            ):
                self._place[name, size, mtime] = block, row, ctime

    def holds(self, listing: PhotoListing, i: int) -> bool:
        """Whether a photo has been embedded as it is now; in doubt, its content is read."""
        place = self._find(listing, i)
        if place is None:
            return False
        if place[2] and place[2] == listing.stamps[i, 2]:
            return True
        block = self._block(place[0])
        content = file_content(listing.root / listing.names[i])
        return block is not None and content == block["content"][place[1]].tobytes()

    def _find(self, listing: PhotoListing, i: int) -> tuple[str, int, int] | None:
        size, mtime, _ = listing.stamps[i].tolist()
        return self._place.get((os.fsencode(listing.names[i]), size, mtime))

    def read(self, listing: PhotoListing, i: int) -> tuple[Rows, Array, bool]:
        """Row, content and failure of a photo."""
        place = self._find(listing, i)
        block = self._block(place[0]) if place else None
        if block is None or place is None:
            raise _Removed(
                f"{self.stage.target}: a finished batch has been removed; run the same command again"
            )
        row = place[1]
        return block["rows"][row], block["content"][row], bool(block["failed"][row])

    def _block(self, name: str) -> dict[str, Array] | None:
        if name not in self._open:
            found = self.stage.load(name)
            if found is None:
                return None
            self._open[name] = found
            if len(self._open) > 8:
                self._open.popitem(last=False)
        return self._open[name]


@dataclass(frozen=True)
class _Job:
    """What is to become of an embeddings file; `old`: the file as it is, on rank 0, if its rows can be kept."""

    embedder: Embedder
    path: Path
    half: bool
    stage: Stage
    listing: PhotoListing
    plan: Update
    old: Embeddings | None

    def embed(self, progress: Progress) -> None:
        """Put this rank's share of the photos to embed on the stage, a batch at a time."""
        listing, have, size = self.listing, _Staged(self.stage), self.embedder.batch
        todo = [i for i in self.plan.todo if not have.holds(listing, i)]
        share = todo[distributed.rank() :: distributed.world_size()]
        batches = [share[a : a + size] for a in range(0, len(share), size)]
        label, total = f"embedding {listing.root.name or listing.root}", len(self.plan.todo)
        done = total - len(todo)
        progress(label, done, total)
        images = PhotoFiles(listing, self.embedder.size)
        for batch, rows in zip(batches, self.embedder.batches(images, Modality.PHOTO, batches), strict=True):
            self.stage.put(
                f"{time.time_ns():020d}-{distributed.rank()}-{os.getpid()}",
                rows=rows.cpu().numpy(),
                content=images.content[batch].numpy(),
                failed=images.failed[batch].numpy(),
                stamps=listing.stamps[batch],
                names=np.array([os.fsencode(listing.names[i]) for i in batch]),
            )
            done += distributed.world_size() * len(batch)
            progress(label, min(done, total), total)

    def write(self) -> None:
        """Write the file anew, unless it is up to date: kept rows come from the old file, new ones from the stage."""
        plan, old = self.plan, self.old
        retyped = old is not None and (old.embedding.dtype == np.float16) != self.half
        elsewhere = old is not None and old.info.data_root != str(self.listing.root.resolve())
        changed = plan.todo or plan.moved or plan.gone or plan.touched > MAX_TOUCHED
        if old is None or retyped or elsewhere or changed:
            self._write_rows()
        self.stage.remove()

    def _write_rows(self) -> None:
        listing, plan, old, staged = self.listing, self.plan, self.old, _Staged(self.stage)
        dtype = np.float16 if self.half else np.float32
        content = np.zeros((len(listing), CONTENT_BYTES), np.uint8)
        if old is not None and old.stamps is not None:
            content[plan.row >= 0] = old.stamps.content[plan.row[plan.row >= 0]]
        for i in plan.todo:
            row, content[i], failed = staged.read(listing, i)
            with np.errstate(over="ignore"):
                row = row.astype(dtype)
            if failed or not (np.isfinite(row).all() and row.any()):
                plan.lost[i] = _skipped(listing, i, failed)
        chosen = np.array([i for i in range(len(listing)) if i not in plan.lost], np.int64)
        if not len(chosen):
            first = plan.lost[0]
            raise DataError(
                f"{listing.root}: none of the {len(listing)} images can be read (the first: {first.name}: {first.reason})"
            )
        size, mtime_ns, ctime_ns = listing.stamps[chosen].T
        used = {old.info.precision if old else "", self.embedder.precision.name if plan.todo else ""}
        folder = listing.root.resolve()
        precision = min(used - {"", "fp32"}, default="fp32")
        info = self.embedder.info(data_name=folder.name, data_root=str(folder), precision=precision)
        write_embeddings(
            self.path,
            rows_in_order(old, plan.row[chosen], lambda i: staged.read(listing, int(chosen[i]))[0], dtype),
            np.full(len(chosen), -1, np.int32),
            np.full(len(chosen), int(Modality.PHOTO), np.uint8),
            [listing.names[i] for i in chosen],
            info,
            dtype=dtype,
            stamps=FileStamps(size, mtime_ns, ctime_ns, content[chosen]),
            skipped=[plan.lost[i] for i in sorted(plan.lost)],
        )

    def result(self) -> FolderResult:
        """What was done."""
        plan, known = self.plan, int((self.plan.row >= 0).sum())
        skipped = tuple((plan.lost[i].name, plan.lost[i].reason) for i in sorted(plan.lost))
        images = known + sum(i not in plan.lost for i in plan.todo)
        return FolderResult(
            self.path, images, plan.new, plan.changed, plan.moved, plan.gone, known - plan.moved, skipped,
            self.listing.others,
        )  # fmt: skip


def _skipped(listing: PhotoListing, i: int, failed: bool) -> Skipped:
    name, reason = listing.names[i], "its embedding is zero or not finite"
    if failed:
        path = listing.root / name
        try:
            photo_of(path.read_bytes(), path)
            reason = "it could not be read during the pass"
        except (DataError, OSError) as error:
            text = str(error) if isinstance(error, DataError) else files.reason(error)
            reason = text.removeprefix(f"{path}: ")
    return Skipped(name, reason, *(int(x) for x in listing.stamps[i]))
