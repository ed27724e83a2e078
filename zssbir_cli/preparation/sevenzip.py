"""A .7z file as a source, through the extra `download`."""

import contextlib
import shutil
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

from zssbir_cli.errors import DataError
from zssbir_cli.files import STALE_SECONDS, Lock, Locked, file_sha256
from zssbir_cli.preparation.archives import broken, check_bomb, member_path
from zssbir_cli.preparation.sources import MAX_FILE_BYTES, FolderSource


class SevenZipSource(FolderSource):
    """A .7z file. It packs files together, so it is unpacked to a temporary folder beside it."""

    kind = "7z"

    def scan(self) -> None:
        try:
            import py7zr
        except ImportError:
            raise DataError(
                f"{self.path} needs the extra `download` (python -m pip install '.[download]'), or unpack it first"
            ) from None
        self.archive = self.path
        try:
            with py7zr.SevenZipFile(self.archive) as archive:
                self._check(archive)
                self._unpacked = _Unpacked(self.archive.parent)
                archive.extractall(self._unpacked.path)
        except DataError:
            raise
        except Exception as error:  # py7zr raises many types on damaged files
            raise DataError(broken(self.archive, "7z", error)) from None
        self.path = self._unpacked.path
        super().scan()
        times = self.listing.times
        self.listing.times = array("q", bytes(8 * len(times)))  # those of the unpacking tell nothing
        self.path, self._root = self.archive, self.path

    def _check(self, archive: Any) -> None:
        members = archive.list()
        check_bomb(self.archive, self.archive.stat().st_size, sum(m.uncompressed or 0 for m in members))
        for m in members:
            member_path(self.archive, m.filename)
            if getattr(m, "is_symlink", False):
                raise DataError(f"{self.archive} is refused: its member {m.filename!r} is a link")

    def read(self, entry: int) -> bytes:
        with (self._root / self.listing.paths[entry]).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)

    def sha256(self) -> str:
        return file_sha256(self.archive)

    def close(self) -> None:
        self._unpacked.remove()


UNPACKED = ".zssbir-7z-"


class _Unpacked:
    """A folder for unpacked files: beside the archive (where there is room for them), or else where temporary
    files go. It is locked, so that what killed runs left can be told from what is in use, and removed."""

    def __init__(self, beside: Path) -> None:
        _sweep(beside)
        try:
            self._folder = tempfile.TemporaryDirectory(prefix=UNPACKED, dir=beside)
        except OSError:
            self._folder = tempfile.TemporaryDirectory(prefix=UNPACKED)
        self.path = Path(self._folder.name)
        self._lock = Lock(self.path / ".lock", "zssbir prepare")
        self._lock.__enter__()

    def remove(self) -> None:
        self._lock.__exit__()
        self._folder.cleanup()


def _sweep(beside: Path) -> None:
    for left in beside.glob(f"{UNPACKED}*"):
        with contextlib.suppress(OSError, Locked):
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
            if (left / ".lock").exists():
                with Lock(left / ".lock", "zssbir prepare") as lock:
                    old = old or lock.held
            if old:
                shutil.rmtree(left, ignore_errors=True)
