"""Whether a JPEG or PNG file is whole, and where it ends (phones and cameras append things to it)."""

import re
import struct
import zlib
from collections.abc import Container


def image_end(raw: bytes) -> int | None:
    """Where a JPEG's or PNG's last byte is; None when it is cut short, or a PNG's checksums are wrong."""
    return _jpeg_end(raw) if raw[:2] == b"\xff\xd8" else _png_end(raw)


def _jpeg_end(raw: bytes) -> int | None:
    at = 2
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            return None
        marker = raw[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
        if marker == 0xDA:  # compressed data follow, up to the next marker that is not a restart
            found = _JPEG_MARKER.search(raw, at)
            if found is None:
                return None
            at = int(found.start())
            if raw[at + 1] == 0xD9:
                return at + 2
    return None


_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]", re.DOTALL)


PLAIN = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"}


def plain_png(raw: bytes) -> tuple[int, int, int] | None:
    """Width, height and end of a whole 8-bit grey PNG without transparency, frames or data of a camera; None for every
    other file, for which one has to look closer."""
    if raw[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or raw[24:26] != b"\x08\0":
        return None
    end = _png_end(raw, PLAIN)
    return (int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big"), end) if end else None


def _png_end(raw: bytes, allowed: Container[bytes] | None = None) -> int | None:
    at = 8
    while at + 12 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        body = raw[at + 4 : at + 8 + size]
        if raw[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
            return None
        if allowed is not None and body[:4] not in allowed:
            return None
        at += 12 + size
        if body[:4] == b"IEND":
            return at
    return None
