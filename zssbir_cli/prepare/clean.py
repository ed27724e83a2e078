"""From an image file as found to the bytes that are stored: checked, and re-encoded only where needed.

Photos are stored as 8-bit RGB or grey JPEG or PNG, sketches as 8-bit grey or RGB PNG or JPEG without
transparency. Files that are like this already keep their bytes, unless they are to be made smaller.
"""

import contextlib
import hashlib
import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from zssbir_cli.errors import DataError
from zssbir_cli.prepare.ground import on_white
from zssbir_cli.prepare.kinds import is_svg
from zssbir_cli.prepare.pixels import UInt8, grey, orientation, rgb
from zssbir_cli.prepare.sources import MAX_FILE_BYTES
from zssbir_cli.prepare.svg import rasterise
from zssbir_cli.prepare.whole import image_end
from zssbir_cli.types import Modality

MAX_PIXELS = 100_000_000
MAX_SIDE = 2048
JPEG_QUALITY = 95
PNG_LEVEL = 4
SMALLEST_SQUARE = 32
"""From this side on, the border of a squared sketch is all white: readers tell dark ink from light by it."""
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000", "HEIF")
CAMERA_DATA = (b"eXIf", b"Raw profile type", b"adobe.com/xap", b"com.adobe.xmp")
TAIL_CUT = "data behind the end of the image removed"
PALEST_INK = 239
"""Paler than this is no ink (`data.square.FAINT`)."""
GROUND = 1
"""Version of what `ground` makes of sketches; stored with a set, whose readers then leave polarity alone."""

SQUARE_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6]
if hasattr(
    cv2, "IMWRITE_PNG_FILTER"
):  # OpenCV 4.12: line drawings are smaller, and decode a third faster, without
    SQUARE_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Cleaned(NamedTuple):
    """`data`: what to store, None when the image is left out. `note`: why, or what was changed ("" = nothing
    worth telling). `digest`: sha256 of the file as found."""

    data: bytes | None
    note: str
    digest: bytes


@dataclass(frozen=True)
class CleanOptions:
    """`size`: bring the shorter side down to this many pixels (None = keep). `quick`: do not decode photos
    that are stored as they are (whoever reads them next does). `square`: store network inputs of
    `size` x `size` pixels (`data.square`)."""

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
        return Cleaned(None, _unreadable(raw), digest)
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
    with Image.open(io.BytesIO(raw), formats=formats()) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _Skip(f"enormous: {image.width} x {image.height} pixels")
        return (_sketch if modality is Modality.SKETCH else _photo)(image, raw, options)


@cache
def formats() -> tuple[str, ...]:
    """The image formats that are read here: with pillow-heif also those of phones."""
    Image.init()
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    return tuple(f for f in FORMATS if f in Image.OPEN)


def _unreadable(raw: bytes) -> str:
    """Why Pillow does not know a file."""
    brand = raw[8:12] if raw[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return "AVIF is not read here: install Pillow 11.3 or later"
    if brand in (b"mif1", b"msf1") or brand[:3] in (b"hei", b"hev"):
        return "HEIC is not read here: pip install pillow-heif (the extra `heic`)"
    if raw[4:8] == b"JXL " or raw[:2] == b"\xff\x0a":
        return "JPEG XL is not read: convert it to JPEG or PNG"
    return "not an image"


def _photo(image: Image.Image, raw: bytes, options: CleanOptions) -> tuple[bytes, str]:
    """A photo's own bytes where every reader decodes them, else an RGB JPEG."""
    target = _target(image.width, image.height, options.size)
    if target == image.size and is_plain(image, raw):
        end = _whole(raw)
        if not options.quick:
            if image.format == "JPEG":  # at an eighth of its size, which still reads every coefficient
                image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        return raw[:end], "" if end == len(raw) else TAIL_CUT
    note = _what_is_odd(image)
    if image.format == "JPEG":
        image.draft(None, (2 * target[0], 2 * target[1]))
    plain = _resized(rgb(_loaded(image)), options.size)
    out = io.BytesIO()
    plain.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), note


def _sketch(image: Image.Image, raw: bytes, options: CleanOptions) -> tuple[bytes, str]:
    """A sketch's own bytes where they are dark ink on white and every reader decodes them, else a grey PNG."""
    keep = _target(image.width, image.height, options.size) == image.size and is_plain(image, raw)
    end = _whole(raw) if keep else 0
    note = "" if keep else _what_is_odd(image)
    pixels = _own_grey(raw[:end]) if keep else grey(_loaded(image))
    limited = np.asarray(_resized(Image.fromarray(pixels), None)) if max(pixels.shape) > MAX_SIDE else pixels
    white, done = on_white(limited)
    if int(white.min(initial=255)) > PALEST_INK:
        raise _Skip("blank: no ink found")
    if keep and not done:
        return raw[:end], "" if end == len(raw) else TAIL_CUT
    plain = _resized(Image.fromarray(white if done else pixels), options.size)
    out = io.BytesIO()
    plain.save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue(), ", ".join(filter(None, (note, done)))


def _own_grey(raw: bytes) -> UInt8:
    """A plain sketch as its readers will decode it."""
    pixels = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if pixels is None:
        raise _Skip("does not decode: damaged")
    return np.asarray(pixels, np.uint8)


def _loaded(image: Image.Image) -> Image.Image:
    """The first frame."""
    image.seek(0)
    image.load()
    return image


def _whole(raw: bytes) -> int:
    end = image_end(raw)
    if end is None:
        raise _Skip("does not decode: cut short or damaged")
    return end


def _resized(image: Image.Image, size: int | None) -> Image.Image:
    target = _target(*image.size, size)
    return image if image.size == target else image.resize(target, Image.Resampling.BICUBIC)


def is_plain(image: Image.Image, raw: bytes) -> bool:
    """Whether the file can be stored as it is: 8-bit grey or RGB JPEG or PNG, opaque, upright, one frame."""
    if image.mode not in ("L", "RGB") or image.format not in ("JPEG", "PNG"):
        return False
    if image.format == "PNG" and (
        raw[24] != 8 or "transparency" in image.info or getattr(image, "n_frames", 1) != 1
    ):
        return False
    if image.format == "PNG" and not any(mark in raw for mark in CAMERA_DATA):
        return True  # asking Pillow would decode the image
    return orientation(image) == 1


def _target(width: int, height: int, size: int | None) -> tuple[int, int]:
    """Width and height to store: shorter side at most `size`, longer side at most MAX_SIDE."""
    scale = min(1.0, MAX_SIDE / max(width, height))
    if size is not None:
        scale = min(scale, size / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


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
    if orientation(image) != 1:
        return "turned upright"
    return "made smaller than its original" if max(image.size) > MAX_SIDE else ""


def squared(data: bytes, modality: Modality, size: int) -> bytes:
    """An image as `clean` would store it -> what is stored instead: a sketch as grey PNG that holds exactly
    `square_sketch`, a photo as JPEG of `resize_photo` (its own bytes when it is size x size already).

    Raises:
        DataError: it does not decode.
    """
    from zssbir_cli.data.images import decode_photo, decode_sketch  # loads torch
    from zssbir_cli.data.square import resize_photo, square_sketch

    buffer = np.frombuffer(data, np.uint8)
    if modality is Modality.SKETCH:
        drawing = square_sketch(decode_sketch(buffer), size)[0].numpy()
        return cv2.imencode(".png", drawing, SQUARE_PNG)[1].tobytes()
    photo = decode_photo(buffer)
    if photo.shape[1:] == (size, size):
        return data
    out = io.BytesIO()
    pixels = np.ascontiguousarray(resize_photo(photo, size).permute(1, 2, 0).numpy())
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
