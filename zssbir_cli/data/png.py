"""PNG files without what only makes their decoder talk."""

import numpy as np

from zssbir_cli.arrays import UInt8

_NEEDED = (b"IHDR", b"PLTE", b"tRNS")
_OF_PIXELS = (
    *_NEEDED, b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"eXIf", b"tIME",
    b"tEXt", b"zTXt", b"iTXt",
)  # fmt: skip
"""Chunks of a PNG before its pixels: those that decoding needs, and those that it can do without."""


def bare_png(buffer: UInt8) -> UInt8:
    """A PNG without what stands before its pixels and does not change them: libpng tells on stderr what it thinks of a
    colour profile, at each decoding. Any other file as it is."""
    if buffer[:4].tobytes() != b"\x89PNG" or buffer[37:41].tobytes() == b"IDAT":
        return buffer
    at, kept = 8, [buffer[:8]]
    while at + 12 <= len(buffer):
        size, kind = int.from_bytes(buffer[at : at + 4].tobytes(), "big"), buffer[at + 4 : at + 8].tobytes()
        if kind not in _OF_PIXELS:
            break
        if kind in _NEEDED:
            kept.append(buffer[at : at + 12 + size])
        at += 12 + size
    return buffer if sum(map(len, kept)) == at else np.concatenate([*kept, buffer[at:]])
