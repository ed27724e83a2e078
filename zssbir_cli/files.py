"""The one way to write a file whole or not at all; locks that hold; digests; an error as one line.

A file is written under a name of this writer alone, synced, and renamed: readers see the old file or the new one,
two writers never meet, and what a killed process leaves is never taken for a result.
"""

import codecs
import contextlib
import csv
import errno
import hashlib
import io
import json
import os
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from io import RawIOBase
from pathlib import Path
from typing import IO, Any

from zssbir_cli.errors import DataError

PARTIAL = ".partial"
"""Suffix of everything that is not finished."""
STALE_SECONDS = 24 * 3600
LONGEST = 160
"""Characters of an error that are told."""
PIECE = 1 << 18
"""Bytes written at a time: Linux (6.18, ext4) can take ten times the processor time for many megabytes at once, since it
looks for large pages to keep them in."""


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A path to write instead of `path`; when the block ends well it is synced and becomes `path` at once.

    For libraries that write by name; everything else takes `write_bytes` or `write_text`. When the block
    fails, `path` is as it was. The folder is made if need be. `durable=False` does not wait for the disk: for
    files that are checked when they are read and cheap to make again. Raises OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        _remove_stale(path)
    partial = path.with_name(_partial_name(path.name))
    try:
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What keeps the user's file `path` from being written inside becomes a DataError that names it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({reason(error)})") from error


def finished_name(name: str) -> str:
    """What a file of that name becomes when its writer ends well; a name that is not of an unfinished file as it is."""
    return _OWNER.sub("", name).removesuffix(PARTIAL)


def write_bytes(path: Path, data: bytes | bytearray | memoryview) -> None:
    """Write a file whole or not at all. Raises OSError."""
    with replacing(path) as partial, partial.open("wb", buffering=0) as file:
        write_all(file, data)


def write_all(file: RawIOBase, data: bytes | bytearray | memoryview) -> None:
    """Write all of `data` to an unbuffered file, a `PIECE` at a time. Raises OSError."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest[:PIECE]) or 0 :]


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; names that are not UTF-8 are kept readable. Raises OSError."""
    write_bytes(path, printable(text).encode("utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object whole or not at all. Raises OSError."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def parsed(text: str | bytes) -> Any:
    """What a JSON text holds, as plain values. Raises ValueError, also where it is nested deeper than Python reads."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Rows as CSV with line feeds."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def decoded(raw: bytes, errors: str = "strict") -> str:
    """The text of a file that a user wrote: UTF-8, or UTF-16 with a byte order mark, as some editors and shells of Windows
    write it. `errors`: what UTF-8 does with bytes that are none. Raises UnicodeDecodeError."""
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16")
    return raw.decode("utf-8-sig", errors)


def printable(text: str) -> str:
    """`text` without lone surrogates (which stand for bytes that are no UTF-8): those become U+FFFD."""
    return _SURROGATE.sub("\ufffd", text)


def sync(path: Path) -> None:
    """Wait until a file's bytes are on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Wait until a folder's entries are on the disk, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def cache_folder() -> Path:
    """Where what belongs to no run is kept: ZSSBIR_CACHE, else `zssbir` in the user's cache folder."""
    if own := os.environ.get("ZSSBIR_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "zssbir"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "zssbir"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zssbir"


def existing_parent(path: Path) -> Path:
    """`path`, or the nearest folder above it that is there."""
    return next((p for p in (path, *path.absolute().parents) if p.is_dir()), Path())


def check_writable(path: Path, advice: str = "", *, folder: bool = False) -> None:
    """Refuse a file, or a folder, that can be seen not to be writable, before what goes into it is computed; `advice` ends
    the message. Makes nothing. Raises DataError."""
    try:
        path = path.expanduser()
        there = next(p for p in (path, *path.absolute().parents) if p.exists())
        place = there if folder or there != path else path.absolute().parent
        if there.is_dir() != (folder or there != path):
            problem = os.strerror(errno.EISDIR if there.is_dir() else errno.ENOTDIR)
        elif os.access(place, os.W_OK | os.X_OK):
            return
        else:
            read_only = hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY
            problem = os.strerror(errno.EROFS if read_only else errno.EACCES)
    except (OSError, RuntimeError, StopIteration) as error:
        problem = reason(error)
    raise DataError(f"{path}: cannot be written ({problem}){advice}")


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, hexadecimal. Raises DataError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None


def reason(error: BaseException) -> str:
    """An error as one line: what the system says of an OSError, else the message, never empty."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def remedy(error: BaseException) -> str:
    """What to do where a file cannot be written: allow it, or make room."""
    refused = isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return "allow writing there" if refused else "make room"


GLANCES = (0.02, 0.08, 0.2)
"""Seconds between tries for a lock, which `is_locked` may hold for a moment."""


class Locked(DataError):
    """Another process holds the lock."""


class Lock:
    """Context manager: one process at a time. The file stays (removing it would let two in) and says who
    holds it. Where the file system or the system has no locks, work continues without one; `held` is False.

    Raises Locked, or OSError when the file cannot be made.
    """

    def __init__(self, path: Path, doing: str) -> None:
        self.path, self.doing = path, doing
        self.held = False
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "Lock":
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab+")
        for pause in (*GLANCES, 0.0):
            try:
                self.held = _take(self._file.fileno())
                break
            except BlockingIOError:
                if not pause:
                    holder = self._holder()
                    self._file.close()
                    raise Locked(
                        f"{self.path.parent} is in use by another process ({holder}); wait for it, or stop it"
                    ) from None
                time.sleep(pause)
        self._file.truncate(0)
        self._file.write(f"{self.doing}, pid {os.getpid()} on {socket.gethostname()}".encode())
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
        self.held = False

    def _holder(self) -> str:
        try:
            return printable(self.path.read_text("utf-8", "replace")).strip() or self.doing
        except OSError:
            return self.doing


def is_locked(path: Path) -> bool:
    """Whether a process holds the `Lock` of that file; False where that cannot be told. It is taken for that moment, which
    `Lock` waits for."""
    try:
        with path.open("rb+") as file:
            _take(file.fileno())
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _take(handle: int) -> bool:
    """Lock an open file; False where there are no locks. Raises BlockingIOError when another holds it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            os.lseek(handle, 1 << 30, os.SEEK_SET)  # a byte that nobody reads
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise BlockingIOError(errno.EWOULDBLOCK, "locked") from None
        return True
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(error.errno, "locked") from None
        return False
    return True


_SURROGATE = re.compile("[\ud800-\udfff]")
_OWNER = re.compile(r"\.(?:([0-9a-f]{8})-[0-9a-f]{8}\.)?(\d+)\.partial$")


def _partial_name(name: str) -> str:
    """A name of this writer alone: processes of other machines or containers that share the folder may have its number."""
    tail = f".{_machine()}-{secrets.token_hex(4)}.{os.getpid()}{PARTIAL}"
    return f"{os.fsdecode(os.fsencode(name)[: 255 - len(tail)])}{tail}"


@lru_cache(1)
def _machine() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _remove_stale(path: Path) -> None:
    """Remove what killed processes left of this very file."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f"{_escaped(path.name)}.*{PARTIAL}"):
            owner = _OWNER.search(left.name)
            old = time.time() - left.stat().st_mtime > STALE_SECONDS
            here = owner is not None and owner[1] in (None, _machine())
            if owner and (old or (here and not _alive(int(owner[2])))) and left.is_file():
                left.unlink(missing_ok=True)


def _escaped(name: str) -> str:
    return re.sub(r"([*?[])", r"[\1]", name)


def _alive(process: int) -> bool:
    """Whether a process of this machine runs (True where that cannot be told)."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (
        OSError,
        OverflowError,
    ):  # digits that are no process: the tag of a folder of finished batches, say
        return True
    return True
