"""A checksum behind the end of an HDF5 file, looked at before the HDF5 library sees the file.

On damaged bytes the library does not only fail: it can crash the process, or never return (one changed byte in
an attribute's text is enough). HDF5 ignores what follows its own end, so sealed files remain ordinary HDF5 files.
"""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from zssbir_cli.errors import DataError
from zssbir_cli.files import reason

MAGIC = b"\nzssbir seal 1\n"
_FIELDS = struct.Struct("<QQQI")  # end of the HDF5 file, the bulk's start and stop, crc32 of everything else
LENGTH = _FIELDS.size + len(MAGIC)
CHUNK = 1 << 20


def seal(file: BinaryIO, bulk: tuple[int, int]) -> None:
    """Append the seal to a finished HDF5 file, open for reading and writing.

    bulk: first and last byte (exclusive) of a dataset that has checksums of its own and that the library never
    interprets (images, rows); (0, 0) when there is none. Raises OSError.
    """
    end = file.seek(0, 2)
    checksum = _rest(file, end, bulk)
    file.seek(end)
    file.write(_FIELDS.pack(end, *bulk, checksum) + MAGIC)


def check_seal(path: Path) -> bool:
    """Whether a file carries a seal; one that does not is of an older version.

    Errors: DataError: the file is damaged, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2) - LENGTH
            if end < 0:
                return False
            file.seek(end)
            fields = file.read(LENGTH)
            if not fields.endswith(MAGIC):
                return False
            size, start, stop, checksum = _FIELDS.unpack(fields[: _FIELDS.size])
            whole = size == end and start <= stop <= end and _rest(file, end, (start, stop)) == checksum
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    if not whole:
        raise DataError(f"{path} is damaged: its checksum is not that of its contents")
    return True


def _rest(file: BinaryIO, end: int, bulk: tuple[int, int]) -> int:
    checksum = 0
    for start, stop in ((0, bulk[0]), (bulk[1], end)):
        file.seek(start)
        while start < stop:
            part = file.read(min(CHUNK, stop - start))
            if not part:  # shorter than it was a moment ago
                raise OSError(5, "cut short while it was read")
            checksum, start = zlib.crc32(part, checksum), start + len(part)
    return checksum
