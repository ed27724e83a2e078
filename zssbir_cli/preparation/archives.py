"""Archives as sources: zip and tar, read in place by random access; what allows none is unpacked first (`unpacked`).

Refused: members with absolute paths or `..`, links and devices, encrypted members, and bombs (a size that
the compressed bytes cannot honestly hold).
"""

import struct
import tarfile
import threading
import zipfile
import zlib
from array import array
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from zssbir_cli.errors import DataError
from zssbir_cli.files import file_sha256, reason
from zssbir_cli.names import readable
from zssbir_cli.preparation.kinds import is_junk
from zssbir_cli.preparation.sources import ARCHIVE_SUFFIXES, MAX_FILE_BYTES, FolderSource, Listing, Source

MAX_MEMBERS = 20_000_000
MAX_RATIO = 200
FREE_BYTES = 1 << 30  # archives that unpack to less than this are never called bombs
MAX_READ = 64 << 20
UTF8_FLAG = 0x800
USTAR_AT = 257
BLOCKS = 1 << 20


def member_path(archive: Path, name: str) -> str | None:
    """The safe relative path of a member; None for junk.

    Errors: DataError: no name, an absolute path, a drive letter, `..`, or a NUL.
    """
    if not name:
        raise DataError(f"{archive} is refused: a member of it has no name: damaged, get it again")
    path = name.replace("\\", "/").removeprefix("./")
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "\0" in path or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise DataError(f"{archive} is refused: its member {name!r} points outside of it")
    if len(path) > 4096:
        raise DataError(f"{archive} is refused: a member's name has {len(path)} characters")
    kept = [p for p in parts if p not in ("", ".")]
    return None if not kept or any(is_junk(p) for p in kept) else "/".join(kept)


def hidden_folder(name: str) -> str | None:
    """The folder above a member, or the member itself, that is passed over for its name, None when there is none."""
    parts = [p for p in name.replace("\\", "/").split("/") if p not in ("", ".")]
    at = next((i for i, part in enumerate(parts) if is_junk(part)), None)
    is_folder = at is not None and (at < len(parts) - 1 or name.endswith("/"))
    return "/".join(parts[: at + 1]) if at is not None and is_folder else None


def check_bomb(archive: Path, packed: int, unpacked: int) -> None:
    """Refuse an archive that unpacks to over 1 GiB and over 200 times its size."""
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * max(1, packed):
        raise DataError(
            f"{archive} is refused: {packed} bytes would unpack to {unpacked} or more (a decompression bomb?)"
        )


def broken(path: Path, kind: str, error: Exception) -> str:
    """What is said of an archive that does not open."""
    name = readable(str(path))
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} cannot be read: {reason(error)}"
    return f"{name} cannot be read as a {kind} archive ({reason(error)}): damaged or cut short, get it again"


class _Archive(Source):
    """Shared by the archive kinds: one file handle per thread, digest of the file."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.file = path
        """Where the bytes are read from."""
        self._local = threading.local()

    def _file(self) -> IO[bytes]:
        file: IO[bytes] | None = getattr(self._local, "file", None)
        if file is None:
            file = self._local.file = self.file.open("rb")
        return file

    def _at(self, offset: int, size: int) -> bytes:
        try:
            file = self._file()
            file.seek(offset)
            data = file.read(size)
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read at {offset}: {error}") from None
        if len(data) != size:
            raise DataError(f"{self.path} is cut short")
        return data

    def _hide(self, name: str) -> None:
        if (folder := hidden_folder(name)) is not None:
            self.listing.hidden.add(folder)

    def sha256(self) -> str:
        return file_sha256(self.path)


def _replaced(path: str) -> str:
    return f"an earlier {readable(path)} of the archive, which a later one of the same name replaces"


def _unpacked_name(member: zipfile.ZipInfo) -> str:
    """A member's name; in UTF-8 where its bytes are, as macOS writes it without saying so."""
    name = member.orig_filename  # `filename` ends at a NUL
    if not member.flag_bits & UTF8_FLAG and not name.isascii():
        with suppress(UnicodeError):
            return name.encode("cp437").decode("utf-8")
    return name


def _is_folder(name: str) -> bool:
    return name.endswith(("/", "\\"))


class ZipSource(_Archive):
    """A .zip file; members are read by their offsets, from any thread."""

    kind = "zip"

    def scan(self) -> None:
        self.listing = Listing()
        self._offsets, self._packed = array("q"), array("q")
        self._crcs, self._methods = array("Q"), array("i")
        try:
            with zipfile.ZipFile(self.path) as archive:
                self._take(archive.infolist())
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error) as error:
            raise DataError(broken(self.path, "zip", error)) from None

    def _take(self, members: list[zipfile.ZipInfo]) -> None:
        if len(members) > MAX_MEMBERS:
            raise DataError(f"{self.path} is refused: it claims {len(members)} members")
        check_bomb(self.path, self.path.stat().st_size, sum(m.file_size for m in members))
        names = [_unpacked_name(m) for m in members]
        paths = [member_path(self.path, name) for name in names]
        last = {path: m for path, m, name in zip(paths, members, names, strict=True) if not _is_folder(name)}
        for m, name, path in zip(members, names, paths, strict=True):
            if (m.external_attr >> 16) & 0o170000 == 0o120000:
                raise DataError(f"{self.path} is refused: its member {m.filename!r} is a link")
            if path is None or _is_folder(name):
                self._hide(name)
                continue
            if last[path] is not m:
                self.listing.remarks.append(_replaced(path))
                continue
            if m.flag_bits & 0x1:
                raise DataError(f"{self.path} is encrypted ({m.filename!r}); unpack it first")
            if m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(
                    f"{self.path} uses an unsupported compression ({m.filename!r}); unpack it first"
                )
            self.listing.add(path, m.file_size)
            self._offsets.append(m.header_offset)
            self._packed.append(m.compress_size)
            self._crcs.append(m.CRC)
            self._methods.append(m.compress_type)

    def read(self, entry: int) -> bytes:
        size, name = self.listing.sizes[entry], self.listing.paths[entry]
        if size > MAX_FILE_BYTES or self._packed[entry] > MAX_FILE_BYTES:
            return b"\0" * (MAX_FILE_BYTES + 1)
        header = self._at(self._offsets[entry], 30)
        if header[:4] != b"PK\3\4":
            raise DataError(f"{self.path} is damaged at member {name!r}")
        lengths = struct.unpack("<HH", header[26:30])
        data = self._at(self._offsets[entry] + 30 + sum(lengths), self._packed[entry])
        if self._methods[entry] == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-15).decompress(data, size + 1)
            except zlib.error:
                raise DataError(f"{self.path} is damaged at member {name!r}") from None
        if len(data) != size or zlib.crc32(data) != self._crcs[entry]:
            raise DataError(f"{self.path} is damaged at member {name!r} (checksum)")
        return data


def _tar_path(archive: Path, member: tarfile.TarInfo) -> str | None:
    """Path of a regular member; None for folders and junk; DataError for anything unsafe."""
    if member.isdir() and not member.name:  # the folder that was packed
        return None
    path = member_path(archive, member.name)
    if member.isdir():
        return None
    if not member.isreg() or member.issparse():
        what = "a link" if member.issym() or member.islnk() else "a special file"
        raise DataError(f"{archive} is refused: its member {member.name!r} is {what}")
    return path


class TarSource(_Archive):
    """An uncompressed .tar; members are read by their offsets, from any thread."""

    kind = "tar"

    def scan(self) -> None:
        self.listing, self._offsets = Listing(), array("q")
        self._places: dict[str, int] = {}
        size = self.file.stat().st_size
        try:
            with self.file.open("rb") as file:
                guarded: Any = _Guard(file, self.path)  # tarfile needs only read, seek and tell
                with tarfile.open(fileobj=guarded, mode="r:") as archive:
                    for member in archive:
                        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps all headers otherwise
                        self._take(member, size)
                _check_end(self.path, file, archive.offset)
            self._places.clear()
        except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
            raise DataError(broken(self.path, "tar", error)) from None

    def _take(self, member: tarfile.TarInfo, size: int) -> None:
        path = _tar_path(self.path, member)
        if member.offset_data + member.size > size:
            raise DataError(f"{self.path} is cut short at member {member.name!r}")
        if path is None:
            self._hide(member.name)
            return
        place = self._places.setdefault(path, len(self._offsets))
        if place < len(self._offsets):
            self.listing.remarks.append(_replaced(path))
            self.listing.sizes[place], self._offsets[place] = member.size, member.offset_data
            return
        self.listing.add(path, member.size)
        self._offsets.append(member.offset_data)

    def offset(self, entry: int) -> int:
        """Where the bytes of an entry begin in the file."""
        return self._offsets[entry]

    def read(self, entry: int) -> bytes:
        return self._at(self._offsets[entry], min(self.listing.sizes[entry], MAX_FILE_BYTES + 1))


def read_member(path: Path) -> bytes | None:
    """The bytes of a member of a tar, named by a path that goes on behind it (`shard.tar/cat.jpg`); None when there is none.

    The members of the tars read last are remembered. Errors: DataError (a damaged tar).
    """
    for tar in path.parents:
        if tar.suffix == ".tar" and tar.is_file():
            source, places = _members_of(tar, tar.stat().st_mtime_ns)
            place = places.get(path.relative_to(tar).as_posix())
            return None if place is None else source.read(place)
    return None


@lru_cache(8)
def _members_of(tar: Path, stamp: int) -> tuple["TarSource", dict[str, int]]:
    source = TarSource(tar)
    source.scan()
    return source, {name: place for place, name in enumerate(source.listing.paths)}


def _check_end(path: Path, file: IO[bytes], offset: int) -> None:
    """Refuse a tar whose list of members ends at something else than its end mark: tarfile stops there in silence."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        raise DataError(f"{path} is cut short: it has no end mark")
    if block.strip(b"\0"):
        raise DataError(f"{path} is damaged at byte {offset:,}: no header of a member")
    while block and not block.strip(b"\0"):
        block = file.read(BLOCKS)
    at = block.find(b"ustar")
    if block and at % tarfile.BLOCKSIZE == USTAR_AT and not block[: at - USTAR_AT].strip(b"\0"):
        raise DataError(
            f"{path} has further members behind its end mark (archives joined into one?): unpack it first, with tar -i"
        )


class _Guard:
    """A file that refuses single reads no header needs: a tar header may claim gigabytes."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise DataError(f"{self._path} is refused: a header claims {size} bytes")
        return self._file.read(size)


def open_source(path: str | Path, leave: Path | None = None) -> Source:
    """The source at `path`, not yet scanned. An archive is known by its content, whatever it is called. `leave`: a folder
    that is no part of it.

    Errors: DataError: nothing there, or neither a folder nor a supported archive.
    """
    path = Path(path)
    if path.is_dir():
        return FolderSource(path, leave)
    known = ", ".join(ARCHIVE_SUFFIXES)
    if not path.is_file():
        raise DataError(f"{path} does not exist; give a folder or an archive ({known})")
    kind = _kind_of(path)
    if kind == "zip":
        return ZipSource(path)
    if kind == "tar":
        return TarSource(path)
    if kind in ("7z", "gz", "bz2", "xz"):
        from zssbir_cli.preparation.unpacked import CompressedTarSource, SevenZipSource

        return SevenZipSource(path) if kind == "7z" else CompressedTarSource(path, kind)
    if kind:
        raise DataError(f"{readable(str(path))} is a {kind} archive, which is not read here: unpack it first")
    raise DataError(f"{readable(str(path))} is neither a folder nor an archive ({known})")


_SIGNATURES = (
    (b"PK\3\4", "zip"), (b"PK\5\6", "zip"), (b"7z\xbc\xaf\x27\x1c", "7z"), (b"\x1f\x8b", "gz"), (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"), (b"Rar!\x1a\7", "RAR"), (b"\x28\xb5\x2f\xfd", "Zstandard"),
)  # fmt: skip
_SUFFIXES = {"zip": "zip", "tar": "tar", "7z": "7z", "gz": "gz", "tgz": "gz", "bz2": "bz2", "tbz2": "bz2", "xz": "xz",
             "txz": "xz", "rar": "RAR", "zst": "Zstandard"}  # fmt: skip


def _kind_of(path: Path) -> str:
    """What a file is by its first bytes, else by its name ("" = no archive)."""
    try:
        with path.open("rb") as file:
            head = file.read(tarfile.BLOCKSIZE)
    except OSError as error:
        raise DataError(f"{readable(str(path))} cannot be read: {reason(error)}") from None
    found = next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), "")
    if not found and head[USTAR_AT : USTAR_AT + 5] == b"ustar":
        found = "tar"
    return found or _SUFFIXES.get(path.name.lower().rpartition(".")[2], "")
