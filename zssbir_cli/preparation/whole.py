"""Whether a JPEG or PNG file is whole, and where it ends (phones and cameras append things to it)."""

import re
import struct
import zlib
from collections.abc import Container
from typing import NamedTuple


class Plain(NamedTuple):
    """A whole 8-bit JPEG or grey PNG without transparency, frames, or data of a camera or an editor: its size, mode (L or
    RGB) and where its last byte is."""

    width: int
    height: int
    mode: str
    end: int


def plain_image(raw: bytes) -> Plain | None:
    """What is known of a plain image from its header; None for every other file, for which one has to look closer."""
    return _plain_jpeg(raw) if raw[:3] == b"\xff\xd8\xff" else _plain_png(raw)


def image_end(raw: bytes) -> int | None:
    """Where a JPEG's or PNG's last byte is; None when it is cut short, or a PNG's checksums are wrong."""
    return _jpeg_end(raw) if raw[:2] == b"\xff\xd8" else _png_end(raw)


def _plain_jpeg(raw: bytes) -> Plain | None:
    frames: list[bytes] = []
    end = _jpeg_end(raw, frames)
    if end is None or len(frames) != 1 or frames[0][:1] != b"\x08":
        return None
    height, width, components = struct.unpack(">HHB", frames[0][1:6])
    mode = {1: "L", 3: "RGB"}.get(components)
    return Plain(width, height, mode, end) if mode and width and height else None


PLAIN_SEGMENTS = {0xC4, 0xDA, 0xDB, 0xDD, 0xE0, 0xFE}
FRAMES = {0xC0, 0xC1, 0xC2}


def _jpeg_end(raw: bytes, frames: list[bytes] | None = None) -> int | None:
    """The end; with `frames` only of a JPEG of plain segments, whose frame headers are added to them."""
    at = 2
    while at + 4 <= len(raw):
        if raw[at] != 0xFF:
            return None
        marker = raw[at + 1]
        if marker == 0xFF:  # padding
            at += 1
            continue
        if frames is not None and marker not in PLAIN_SEGMENTS:
            if marker not in FRAMES:
                return None
            frames.append(raw[at + 4 : at + 10].ljust(6, b"\0"))
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

PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"bKGD"}


def _plain_png(raw: bytes) -> Plain | None:
    if raw[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or raw[24:26] != b"\x08\0":
        return None
    end = _png_end(raw, PLAIN_CHUNKS)
    width, height = struct.unpack(">II", raw[16:24])
    return Plain(width, height, "L", end) if end and width and height else None


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
