"""JPEG files decoded strictly: what libjpeg only warns of, and fills with grey, is an error here."""

import re

import numpy as np
import simplejpeg

from zssbir_cli.arrays import UInt8
from zssbir_cli.errors import DataError

SIGNATURE = b"\xff\xd8"
_HARMLESS = ("Invalid SOS parameters", "Warning: unknown JFIF", "Unknown Adobe color transform")
"""Warnings about headers that some phones and programs write; the picture is whole."""
_LEFT_OVER = re.compile(r"(\d+) extraneous bytes before marker 0xd9")


def decode_jpeg(raw: bytes | UInt8, colours: str, *, factor: int = 1) -> UInt8:
    """A JPEG with its last byte -> uint8 [H, W] (`GRAY`) or [H, W, 3] (`RGB`), as OpenCV and Pillow decode it, not
    turned by its orientation; `factor` 2, 4 or 8: at that part of its size.

    Errors: DataError: it is cut short, damaged anywhere that shows, or of a kind that libjpeg does not know.
    """
    smaller = {"min_height": 1, "min_width": 1, "min_factor": factor} if factor > 1 else {}
    if 1 < factor < 8:
        height, width = _size(raw)
        smaller.update(min_height=-(-height // factor), min_width=-(-width // factor))
    try:
        pixels = simplejpeg.decode_jpeg(raw, colours, **smaller)
    except ValueError as error:
        if not _is_harmless(str(error), raw):
            raise DataError(f"does not decode: {error}") from None
        pixels = simplejpeg.decode_jpeg(raw, colours, strict=False, **smaller)
    return np.asarray(pixels[..., 0] if colours == "GRAY" else pixels, np.uint8)


def _size(raw: bytes | UInt8) -> tuple[int, int]:
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(raw, strict=False)
    except ValueError as error:
        raise DataError(f"does not decode: {error}") from None
    return height, width


def _is_harmless(warning: str, raw: bytes | UInt8) -> bool:
    """Whether the picture is whole all the same; left-over bytes are when they are mere padding."""
    found = _LEFT_OVER.search(warning)
    if found is None:
        return warning.startswith(_HARMLESS)
    padding = bytes(raw[-2 - int(found[1]) : -2])
    return len(set(padding)) == 1
