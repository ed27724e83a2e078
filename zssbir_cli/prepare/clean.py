"""From an image file as found to the bytes that are stored: checked, and re-encoded only where needed.

Photos are stored as 8-bit RGB or grey JPEG or PNG, sketches as 8-bit grey or RGB PNG or JPEG without
transparency. Files that are like this already keep their bytes, unless they are to be made smaller.
"""

import hashlib
import io
import re
import struct
import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from zssbir_cli.data.ink import dark_on_white, flatten
from zssbir_cli.errors import DataError
from zssbir_cli.prepare.kinds import is_svg
from zssbir_cli.prepare.sources import MAX_FILE_BYTES
from zssbir_cli.prepare.svg import rasterise
from zssbir_cli.types import Modality

MAX_PIXELS = 100_000_000
MAX_SIDE = 2048
JPEG_QUALITY = 95
PNG_LEVEL = 4
SMALLEST_SQUARE = 32
"""From this side on, the border of a squared sketch is all white: readers tell dark ink from light by it."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")


class Cleaned(NamedTuple):
    """`data`: what to store, None when the image is left out. `note`: why, or what was changed ("" = nothing
    worth telling). `digest`: sha256 of the file as found."""

    data: bytes | None
    note: str
    digest: bytes


@dataclass(frozen=True)
class CleanOptions:
    """`size`: bring the shorter side down to this many pixels (None = keep). `quick`: check the structure and
    checksums of files that are stored as they are, without decoding them. `square`: store network inputs of
    `size` x `size` pixels (`data.squared`)."""

    size: int | None = None
    quick: bool = False
    square: bool = False


class _Skip(Exception):
    """This image is left out; the message says why."""


def clean(raw: bytes, modality: Modality, options: CleanOptions) -> Cleaned:
    """Check one image file and bring it to a form that every reader decodes. Never raises on bad input."""
    digest = hashlib.sha256(raw).digest()
    try:
        if options.square and options.size is not None:
            from zssbir_cli.prepare.squared import squared  # loads torch

            data, note = _clean(raw, modality, CleanOptions(quick=options.quick))
            return Cleaned(squared(data, modality, options.size), note, digest)
        data, note = _clean(raw, modality, options)
        return Cleaned(data, note, digest)
    except DataError as error:
        return Cleaned(None, str(error), digest)
    except _Skip as skip:
        return Cleaned(None, str(skip), digest)
    except Image.DecompressionBombError:
        return Cleaned(None, "enormous: too many pixels", digest)
    except UnidentifiedImageError:
        return Cleaned(None, "not an image", digest)
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, OverflowError) as error:
        return Cleaned(None, f"does not decode: {' '.join(str(error).split())[:120]}", digest)
    except (
        MemoryError,
        IndexError,
        KeyError,
        TypeError,
        AttributeError,
        AssertionError,
        RuntimeError,
    ) as error:
        # decoders of rare formats fail in any way on damaged files
        return Cleaned(None, f"does not decode: {type(error).__name__}", digest)


def _clean(raw: bytes, modality: Modality, options: CleanOptions) -> tuple[bytes, str]:
    if not raw:
        raise _Skip("zero bytes")
    if len(raw) > MAX_FILE_BYTES:
        raise _Skip(f"enormous: over {MAX_FILE_BYTES >> 20} MiB")
    if is_svg(raw):
        if modality is Modality.PHOTO:
            raise _Skip("an SVG drawing: taken as a sketch only")
        raw = rasterise(raw)
    if options.quick:
        end = plain_end(raw, options.size)
        if end is not None:
            return raw[:end], "" if end == len(raw) else TAIL_CUT
    with Image.open(io.BytesIO(raw), formats=FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise _Skip(f"enormous: {width} x {height} pixels")
        target = _target(width, height, options.size)
        if target == (width, height) and is_plain(image, raw):
            return _keep(image, raw, quick=options.quick)
        return _convert(image, modality, target)


def is_plain(image: Image.Image, raw: bytes) -> bool:
    """Whether the file can be stored as it is: 8-bit grey or RGB JPEG or PNG, opaque, upright, one frame."""
    if image.mode not in ("L", "RGB") or image.format not in ("JPEG", "PNG"):
        return False
    if image.format == "PNG":
        return raw[24] == 8 and "transparency" not in image.info and getattr(image, "n_frames", 1) == 1
    return image.info.get("exif") is None or image.getexif().get(0x0112, 1) == 1


def _keep(image: Image.Image, raw: bytes, *, quick: bool) -> tuple[bytes, str]:
    """The file's own bytes, once it is sure that they decode; what phones append to a JPEG is cut off."""
    end = image_end(raw)
    if end is None:
        raise _Skip("does not decode: cut short or damaged")
    if not quick:
        if image.format == "JPEG":  # at an eighth of its size, which still reads every coefficient
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    return raw[:end], "" if end == len(raw) else TAIL_CUT


TAIL_CUT = "data behind the end of the image removed"


def image_end(raw: bytes) -> int | None:
    """Where a JPEG's or PNG's last byte is; None when it is cut short, or a PNG's checksums are wrong."""
    return _jpeg_end(raw) if raw[:2] == b"\xff\xd8" else _png_end(raw)


def plain_end(raw: bytes, size: int | None) -> int | None:
    """`image_end` of a file that by its header can be stored as it is (see `is_plain`) and is small enough;
    None for any other file, and for all that takes a closer look."""
    header = _jpeg_header(raw) if raw[:2] == b"\xff\xd8" else _png_header(raw)
    if header is None or not all(header) or header[0] * header[1] > MAX_PIXELS:
        return None
    return image_end(raw) if _target(*header, size) == header else None


def _png_header(raw: bytes) -> tuple[int, int] | None:
    """Width and height of an 8-bit grey or RGB PNG without transparency or animation."""
    if raw[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" or len(raw) < 33 or raw[24] != 8 or raw[25] not in (0, 2):
        return None
    at = 33
    while raw[at + 4 : at + 8] != b"IDAT":
        if at + 12 > len(raw) or raw[at + 4 : at + 8] in (b"tRNS", b"acTL", b"IEND"):
            return None
        at += 12 + int.from_bytes(raw[at : at + 4], "big")
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def _jpeg_header(raw: bytes) -> tuple[int, int] | None:
    """Width and height of an 8-bit grey or three-colour JPEG without camera data (which may turn it)."""
    at = 2
    while at + 10 <= len(raw) and raw[at] == 0xFF:
        marker = raw[at + 1]
        if marker in (0xC0, 0xC1, 0xC2):
            plain = raw[at + 4] == 8 and raw[at + 9] in (1, 3)
            size = int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
            return size if plain and b"Exif\0" not in raw[:at] else None
        if not 0xC4 <= marker <= 0xFE or marker in (0xD8, 0xD9, 0xDA):
            return None
        at += 2 + int.from_bytes(raw[at + 2 : at + 4], "big")
    return None


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


def _png_end(raw: bytes) -> int | None:
    at = 8
    while at + 12 <= len(raw):
        size = int.from_bytes(raw[at : at + 4], "big")
        body = raw[at + 4 : at + 8 + size]
        if raw[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
            return None
        at += 12 + size
        if body[:4] == b"IEND":
            return at
    return None


def _target(width: int, height: int, size: int | None) -> tuple[int, int]:
    """Width and height to store: shorter side at most `size`, longer side at most MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    if size is not None:
        scale = min(scale, size / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _convert(image: Image.Image, modality: Modality, target: tuple[int, int]) -> tuple[bytes, str]:
    note = _what_is_odd(image)
    if image.format == "JPEG":
        image.draft(None, (2 * target[0], 2 * target[1]))
    image.seek(0)
    image.load()
    if image.getexif().get(0x0112, 1) >= 5:  # lies on its side
        target = target[::-1]
    turned = ImageOps.exif_transpose(image)
    plain = _grey(turned) if modality is Modality.SKETCH else _rgb(turned)
    if plain.size != target:
        plain = plain.resize(target, Image.Resampling.BICUBIC)
    out = io.BytesIO()
    if modality is Modality.SKETCH:
        plain.save(out, "PNG", compress_level=PNG_LEVEL)
    else:
        plain.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), note


def _what_is_odd(image: Image.Image) -> str:
    """What about an image needed a conversion, for the report ("" for a mere resize)."""
    if getattr(image, "n_frames", 1) > 1:
        return "animated or with pages: first one used"
    if image.format not in ("JPEG", "PNG"):
        return f"{image.format} re-encoded"
    if image.mode not in ("L", "RGB"):
        return f"{image.mode} pixels converted"
    if "transparency" in image.info:
        return "transparency removed"
    if image.getexif().get(0x0112, 1) != 1:
        return "turned upright"
    return "made smaller than its original" if max(image.size) > MAX_SIDE else ""


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit integer and floating-point pixels -> 8-bit grey; other images unchanged."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise _Skip("pixels that are not numbers")
    top = float(values.max(initial=0.0))
    full = (
        1.0 if image.mode == "F" and top <= 1 else 255.0 if top <= 255 else 65535.0 if top <= 65535 else top
    )
    return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info


def _grey(image: Image.Image) -> Image.Image:
    """A sketch as 8-bit grey, dark ink on white."""
    image = _eight_bits(image)
    if _has_alpha(image):
        pixels = np.asarray(image.convert("RGBA").convert("LA"))
        return Image.fromarray(flatten(pixels[..., 0], pixels[..., 1]))
    return Image.fromarray(dark_on_white(np.asarray(image.convert("L"))))


def _rgb(image: Image.Image) -> Image.Image:
    """A photo as 8-bit RGB, transparent parts white."""
    image = _eight_bits(image)
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


ImageFile.LOAD_TRUNCATED_IMAGES = False
