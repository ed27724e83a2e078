"""Opening an image file: which formats are read here, and why a file is none of them."""

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from threading import Lock

from PIL import Image, UnidentifiedImageError, features

from zssbir_cli.errors import DataError
from zssbir_cli.preparation.kinds import HEAD_BYTES, is_html, is_picture_head, is_svg
from zssbir_cli.preparation.sources import MAX_FILE_BYTES
from zssbir_cli.types import Modality

MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
READERS = ("Jpeg", "Mpo", "Png", "Bmp", "WebP", "Gif", "Tiff", "Ppm", "Avif", "Jpeg2K")
"""Pillow's modules for them."""
_LOADING = Lock()

SPOKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError)
"""Errors whose words say what is wrong with a file."""
FAULTS = (
    DataError, Image.DecompressionBombError, *SPOKEN,
    MemoryError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError,  # of decoders of rare formats
)  # fmt: skip


@contextlib.contextmanager
def opened(raw: bytes, modality: Modality) -> Iterator[tuple[Image.Image, bytes]]:
    """An image that is not decoded yet and the bytes it is in (of an SVG: its rendering)."""
    if not raw:
        raise DataError("zero bytes")
    if len(raw) > MAX_FILE_BYTES:
        raise DataError(f"enormous: over {MAX_FILE_BYTES >> 20} MiB")
    if is_svg(raw):
        if modality is Modality.PHOTO:
            raise DataError("an SVG drawing: taken as a sketch only")
        from zssbir_cli.preparation.svg import rasterise  # its parsers take a while to load

        raw = rasterise(raw)
    with Image.open(io.BytesIO(raw), formats=formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"enormous: {image.width} x {image.height} pixels")
        yield image, raw


def formats() -> tuple[str, ...]:
    """The image formats that are read here: with pillow-heif also those of phones. From any thread."""
    with _LOADING:
        return _formats()


@cache
def _formats() -> tuple[str, ...]:
    for module in READERS:
        with contextlib.suppress(ImportError):  # AVIF, in older versions of Pillow
            import_module(f"PIL.{module}ImagePlugin")
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _unreadable(raw: bytes) -> str:
    """Why Pillow does not know a file."""
    brand = raw[8:12] if raw[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis") and not features.check("avif"):
        return "AVIF is not read here: install Pillow 11.3 or later"
    if (brand in (b"mif1", b"msf1") or brand[:3] in (b"hei", b"hev")) and "HEIF" not in formats():
        return "HEIC is not read here: pip install pillow-heif (the extra `heic`)"
    if raw[4:8] == b"JXL " or raw[:2] == b"\xff\x0a":
        return "JPEG XL is not read: convert it to JPEG or PNG"
    if is_picture_head(raw[:HEAD_BYTES]):
        return "does not decode: cut short or damaged"
    if is_html(raw[:HEAD_BYTES]):
        return "not an image but a web page: download it again"
    if raw.startswith(b"version https://git-lfs"):
        return "not the image but what Git LFS keeps in its place: fetch it with `git lfs pull`"
    return "not an image" if raw.strip(b"\0") else "not an image: nothing but zero bytes"


def why(error: Exception, raw: bytes) -> str:
    """Why an image is left out, in a line."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return "enormous: too many pixels"
    if isinstance(error, UnidentifiedImageError):
        return _unreadable(raw)
    words = " ".join(str(error).split())[:120] if isinstance(error, SPOKEN) else ""
    return f"does not decode: {words or type(error).__name__}"
