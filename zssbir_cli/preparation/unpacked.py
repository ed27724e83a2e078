"""Archives without random access, unpacked beside themselves first: compressed tar, and 7z through the extra `download`."""

import bz2
import contextlib
import gzip
import lzma
import shutil
import tempfile
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zssbir_cli.errors import DataError
from zssbir_cli.files import STALE_SECONDS, Lock, Locked, file_sha256, reason, remedy
from zssbir_cli.names import readable
from zssbir_cli.preparation.archives import TarSource, broken, check_bomb, member_path
from zssbir_cli.preparation.sources import MAX_FILE_BYTES, FolderSource

SCRATCH = ".zssbir-unpacked-"
BLOCK = 1 << 20
OPENERS: dict[str, Callable[..., Any]] = {"gz": gzip.open, "bz2": bz2.open, "xz": lzma.open}


class CompressedTarSource(TarSource):
    """A .tar.gz, .tar.bz2 or .tar.xz; only the plain .tar is written to the scratch folder, no member of it."""

    def __init__(self, path: Path, packing: str) -> None:
        super().__init__(path)
        self._opener = OPENERS[packing]

    def scan(self) -> None:
        with _scratch_for(self.path, "compressed tar") as self._scratch:
            self.file = self._scratch.path / "plain.tar"
            self._decompress()
            super().scan()

    def _decompress(self) -> None:
        packed, unpacked = self.path.stat().st_size, 0
        with self._opener(self.path, "rb") as source, self.file.open("wb") as target:
            while block := source.read(BLOCK):
                unpacked += len(block)
                check_bomb(self.path, packed, unpacked)
                target.write(block)

    def close(self) -> None:
        self._scratch.remove()


class SevenZipSource(FolderSource):
    """A .7z file. It packs files together, so all of them are unpacked."""

    kind = "7z"

    def scan(self) -> None:
        try:
            import py7zr
        except ImportError:
            raise DataError(
                f"{self.path} needs the extra `download` (python -m pip install '.[download]'), or unpack it first"
            ) from None
        with _scratch_for(self.path, "7z") as self._scratch:
            with py7zr.SevenZipFile(self.path) as archive:
                self._check(archive)
                archive.extractall(self._scratch.path)
            unpacked = FolderSource(self._scratch.path)
            unpacked.scan()
        self.listing = unpacked.listing
        self.listing.times = array(
            "q", bytes(8 * len(self.listing.times))
        )  # those of the unpacking tell nothing

    def _check(self, archive: Any) -> None:
        members = archive.list()
        check_bomb(self.path, self.path.stat().st_size, sum(m.uncompressed or 0 for m in members))
        for m in members:
            member_path(self.path, m.filename)
            if getattr(m, "is_symlink", False):
                raise DataError(f"{self.path} is refused: its member {m.filename!r} is a link")

    def read(self, entry: int) -> bytes:
        with (self._scratch.path / self.listing.paths[entry]).open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)

    def sha256(self) -> str:
        return file_sha256(self.path)

    def close(self) -> None:
        self._scratch.remove()


class _Scratch:
    """A folder for unpacked files: beside the archive (where there is room for them), or else where temporary
    files go. It is locked, so that what killed runs left can be told from what is in use, and removed."""

    def __init__(self, beside: Path) -> None:
        _sweep(beside)
        try:
            self._folder = tempfile.TemporaryDirectory(prefix=SCRATCH, dir=beside, ignore_cleanup_errors=True)
        except OSError:
            self._folder = tempfile.TemporaryDirectory(prefix=SCRATCH, ignore_cleanup_errors=True)
        self.path = Path(self._folder.name)
        self._lock = Lock(self.path / ".lock", "zssbir prepare")
        self._lock.__enter__()

    def remove(self) -> None:
        self._lock.__exit__()
        self._folder.cleanup()


@contextlib.contextmanager
def _scratch_for(archive: Path, kind: str) -> Iterator[_Scratch]:
    """A scratch folder, removed again when unpacking into it fails. Raises DataError for whatever goes wrong."""
    scratch = _Scratch(archive.parent)
    try:
        yield scratch
    except BaseException as error:
        scratch.remove()
        if isinstance(error, DataError) or not isinstance(error, Exception):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(
                f"{readable(str(archive))} cannot be unpacked to {scratch.path.parent}: {reason(error)}; {remedy(error)}, "
                f"or unpack it yourself"
            ) from None
        raise DataError(broken(archive, kind, error)) from None  # each decoder has errors of its own


def _sweep(beside: Path) -> None:
    for left in beside.glob(f"{SCRATCH}*"):
        with contextlib.suppress(OSError, Locked):
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
            if (left / ".lock").exists():
                with Lock(left / ".lock", "zssbir prepare") as lock:
                    old = old or lock.held
            if old:
                shutil.rmtree(left, ignore_errors=True)
