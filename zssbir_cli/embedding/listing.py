"""What a folder of photos holds now, and what of it an embeddings file already knows."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import file_digest, sha256
from pathlib import Path

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.embeddings import CONTENT_BYTES, Embeddings, FileStamps, Skipped
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.folder import pictures_below
from zssbir_cli.preparation.archives import read_member

UNSURE_NS = 2_000_000_000
"""A file that changed so shortly before it was listed may change again without another time stamp."""


@dataclass(frozen=True)
class PhotoListing:
    """The photos below a folder, in sorted order: names, and int64 [N, 3]: size, mtime_ns, ctime_ns of each; and what
    else lies there (`3 .txt`)."""

    root: Path
    names: tuple[str, ...]
    stamps: Ints
    others: str = ""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Update:
    """What becomes of each photo of a listing.

    `row`: int64 [N], its row in the embeddings file, or -1; `lost`: those known to be unreadable, by number;
    `todo`: numbers of those to embed. Counts are for the user.
    """

    row: Ints
    lost: dict[int, Skipped]
    todo: tuple[int, ...]
    new: int
    changed: int
    moved: int
    gone: int
    touched: int
    """Photos whose time stamps are others, but not their content."""


def list_photos(root: Path) -> PhotoListing:
    """Every picture below a folder. DataError when there is none."""
    if not root.is_dir():
        raise DataError(f"{root}: not a folder of photos (unpack archives first)")
    names, others = pictures_below(root)
    sure = time.time_ns() - UNSURE_NS
    stamps = np.zeros((len(names), 3), np.int64)
    for i, name in enumerate(names):
        stamps[i] = _stamp(f"{root}/{name}", sure)
    return PhotoListing(root, tuple(names), stamps, others)


def _stamp(path: str, sure: int) -> tuple[int, int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 (as Path.stat, in half the time)
    except OSError:
        return 0, 0, 0
    if max(status.st_mtime_ns, status.st_ctime_ns) > sure:
        return status.st_size, status.st_mtime_ns, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def stamps_of(found: FileStamps | Sequence[Skipped]) -> Ints:
    """size, mtime_ns and ctime_ns, int64 [N, 3]."""
    if isinstance(found, FileStamps):
        return np.stack([found.size, found.mtime_ns, found.ctime_ns], 1)
    return np.array([(s.size, s.mtime_ns, s.ctime_ns) for s in found], np.int64).reshape(-1, 3)


def content_tag(raw: bytes) -> bytes:
    """By what a file's bytes are known again: the first 16 of their sha256."""
    return sha256(raw).digest()[:CONTENT_BYTES]


def file_content(path: Path) -> bytes:
    """The same of a file, or of a member of a tar (`shard.tar/cat.jpg`); b"" when it cannot be read."""
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").digest()[:CONTENT_BYTES]
    except OSError:
        with suppress(DataError):
            raw = read_member(path)
            return b"" if raw is None else content_tag(raw)
        return b""


def what_to_embed(listing: PhotoListing, old: Embeddings | None, damaged: Ints) -> Update:
    """What to keep of `old` (rows in `damaged` are not kept) and what to embed.

    A photo is known by name, size and times; where these differ, by its content, which is read only if a file of that
    size is known.
    """
    if old is None or old.stamps is None:
        everything = tuple(range(len(listing)))
        return Update(np.full(len(listing), -1), {}, everything, len(listing), 0, 0, 0, 0)
    known = {name: i for i, name in enumerate(old.sources)}
    for i in damaged:
        known.pop(old.sources[i], None)
    by_name = np.array([known.get(name, -1) for name in listing.names], np.int64)
    same = (stamps_of(old.stamps)[by_name] == listing.stamps).all(1) & (listing.stamps[:, 2] > 0)
    row = np.where((by_name >= 0) & same, by_name, -1)
    lost = _still_lost(listing, old.skipped)
    free = np.ones(len(old), bool)
    free[row[row >= 0]] = False
    free[damaged] = False
    moved, touched = _by_content(listing, old.stamps, np.flatnonzero(free), by_name, row, lost)
    todo = tuple(int(i) for i in np.flatnonzero(row < 0) if i not in lost)
    present = set(listing.names)
    was = {*old.sources, *(s.name for s in old.skipped)}
    used = set(row.tolist())
    gone = sum(name not in present and i not in used for i, name in enumerate(old.sources))
    changed = sum(listing.names[i] in was for i in todo)
    return Update(row, lost, todo, len(todo) - changed, changed, moved, gone, touched)


def _still_lost(listing: PhotoListing, skipped: Sequence[Skipped]) -> dict[int, Skipped]:
    known = {s.name: (s, stamp) for s, stamp in zip(skipped, stamps_of(skipped).tolist(), strict=True)}
    lost = {}
    for i, name in enumerate(listing.names if known else ()):
        found = known.get(name)
        if found and found[1] == listing.stamps[i].tolist() and found[1][2]:
            lost[i] = found[0]
    return lost


def _by_content(
    listing: PhotoListing, stamps: FileStamps, free: Ints, by_name: Ints, row: Ints, lost: dict[int, Skipped]
) -> tuple[int, int]:
    """Fill `row` for photos that have the content of a free row; how many were moved, and how many only touched."""
    contents: dict[bytes, list[int]] = {}
    for i in free:
        contents.setdefault(stamps.content[i].tobytes(), []).append(int(i))
    sizes = set(stamps.size[free].tolist())
    moved = touched = 0
    for i in np.flatnonzero(row < 0):
        if i in lost or int(listing.stamps[i, 0]) not in sizes:
            continue
        rows = contents.get(file_content(listing.root / listing.names[i]), [])
        if not rows:
            continue
        own = int(by_name[i]) in rows
        row[i] = int(by_name[i]) if own else rows[0]
        rows.remove(int(row[i]))
        moved, touched = moved + (not own), touched + own
    return moved, touched
