"""Where images come from: a folder or an archive, listed once and then read without unpacking.

A `Source` is scanned once (paths and sizes); after that entries are read by number from any thread.
"""

import hashlib
import io
import os
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path

from zssbir_cli.data.manifest import SourceInfo
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.names import readable
from zssbir_cli.preparation.kinds import is_junk

MAX_FILE_BYTES = 256 << 20
PIECE = 1 << 20
UNREADABLE = b"\0" * 32
"""Stands for the digest of a file that cannot be read."""
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".7z")


def packed(texts: Sequence[str]) -> tuple[bytearray, "array[int]"]:
    """A list of texts for a digest: all bytes, and where each text ends."""
    together, ends = bytearray(), array("q", [0])
    for text in texts:
        together += text.encode("utf-8", "surrogatepass")
        ends.append(len(together))
    return together, ends


@dataclass
class Listing:
    """The files of a source: relative paths with `/`, and sizes in bytes. `times`: what changes when a file is
    written or replaced (mtime + ctime in ns; 0 in archives). `remarks`: what is there and not listed, a sentence each;
    `hidden`: folders that are not looked into because of their names."""

    paths: list[str] = field(default_factory=list)
    sizes: "array[int]" = field(default_factory=lambda: array("q"))
    times: "array[int]" = field(default_factory=lambda: array("q"))
    remarks: list[str] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)

    def add(self, path: str, size: int, time: int = 0) -> None:
        """Append one file."""
        self.paths.append(path)
        self.sizes.append(size)
        self.times.append(time)


class Source(ABC):
    """A folder or archive. `listing` is filled by `scan`."""

    kind = "source"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.listing = Listing()

    @abstractmethod
    def scan(self) -> None:
        """Fill `listing`.

        Errors: DataError: cannot be read, or is hostile.
        """

    @abstractmethod
    def read(self, entry: int) -> bytes:
        """The bytes of one entry (any thread). Larger than `MAX_FILE_BYTES`: DataError."""

    @abstractmethod
    def sha256(self) -> str:
        """Digest of the archive's bytes, or of a folder's names and sizes."""

    def state(self) -> str:
        """Digest of names, sizes and times; another one when a file may have changed since."""
        digest = hashlib.sha256(repr(_size_and_time(self.path.stat()) if self.path.is_file() else 0).encode())
        for column in (*packed(self.listing.paths), self.listing.sizes, self.listing.times):
            digest.update(column)
        return digest.hexdigest()

    def info(self) -> SourceInfo:
        """The record for the manifest (hashes the archive)."""
        return SourceInfo(
            name=readable(self.path.name) or "/",
            kind=self.kind,
            files=len(self.listing.paths),
            bytes=sum(self.listing.sizes),
            sha256=self.sha256(),
        )

    def close(self) -> None:
        """Release files; the default has none."""
        return


class FolderSource(Source):
    """A folder, listed recursively in sorted order, links to folders after all others. Links are followed, each real
    folder once. `leave`: a folder in it that is none of its pictures (where the set is to go)."""

    kind = "folder"

    def __init__(self, path: Path, leave: Path | None = None) -> None:
        super().__init__(path)
        self.leave = leave

    def scan(self) -> None:
        self.listing = Listing()
        self._left = _identity(self.leave) if self.leave is not None and self.leave.is_dir() else None
        seen: dict[tuple[int, int], str] = {}
        links: deque[tuple[Path, str]] = deque()
        self._walk(self.path, "", seen, links)
        while links:
            self._walk(*links.popleft(), seen, links)

    def _walk(
        self, folder: Path, prefix: str, seen: dict[tuple[int, int], str], links: deque[tuple[Path, str]]
    ) -> None:
        try:
            key = _identity(folder)
            if key in seen:
                same = readable(seen[key].rstrip("/")) or "the folder itself"
                self.listing.remarks.append(f"the link {readable(prefix.rstrip('/'))}: it leads to {same}")
                return
            if prefix and key == self._left:
                return
            seen[key] = prefix
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda e: e.name)
            for entry in ordered:
                self._take(entry, prefix, seen, links)
        except OSError as error:
            raise DataError(f"{readable(str(folder))} cannot be read: {reason(error)}") from None

    def _take(
        self,
        entry: "os.DirEntry[str]",
        prefix: str,
        seen: dict[tuple[int, int], str],
        links: deque[tuple[Path, str]],
    ) -> None:
        """List a file, go down into a folder."""
        path = prefix + entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link to itself
            is_folder = is_file = False
        if is_junk(entry.name):
            if is_folder:
                self.listing.hidden.add(path)
        elif is_folder and entry.is_symlink():
            links.append((Path(entry.path), f"{path}/"))
        elif is_folder:
            self._walk(Path(entry.path), f"{path}/", seen, links)
        elif is_file:
            self.listing.add(path, *_size_and_time(entry.stat()))
        elif entry.is_symlink() and not Path(entry.path).exists():
            self.listing.add(path, 0)  # a dead link: reading it says so
        else:
            self.listing.remarks.append(f"{readable(path)}: no regular file")

    def read(self, entry: int) -> bytes:
        path = f"{self.path}/{self.listing.paths[entry]}"
        try:
            return _read_file(path, self.listing.sizes[entry])
        except OSError as error:
            raise DataError(f"{readable(path)} cannot be read: {reason(error)}") from None

    def sha256(self) -> str:
        digest = hashlib.sha256()
        for path, size in zip(self.listing.paths, self.listing.sizes, strict=True):
            digest.update(f"{path}\0{size}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _size_and_time(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns + status.st_ctime_ns


def _read_file(path: str, size: int) -> bytes:
    """A file of about `size` bytes, at most `MAX_FILE_BYTES` + 1 of it."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (a Path, or a buffer, takes three times as long)
        data = file.read(min(size, MAX_FILE_BYTES) + 1)
        if len(data) != size:  # it has grown or shrunk since it was listed, or lies on a slow file system
            pieces = iter(partial(io.BufferedReader(file).read, PIECE), b"")
            data = b"".join([data, *islice(pieces, MAX_FILE_BYTES // PIECE)])
        return data[: MAX_FILE_BYTES + 1]
