"""From an image file as found to the bytes that are stored: checked, and re-encoded only where needed.

Photos are stored as 8-bit RGB or grey JPEG or PNG, sketches as 8-bit grey or RGB PNG or JPEG without
transparency. Files that are like this already keep their bytes, unless they are to be made smaller.
"""

import hashlib
import io
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from zssbir_cli.arrays import UInt8
from zssbir_cli.data.jpeg import SIGNATURE, decode_jpeg
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.colour import own_grey
from zssbir_cli.preparation.ground import STRENGTHENED, on_white, strengthened
from zssbir_cli.preparation.looks import look_of, look_of_jpeg
from zssbir_cli.preparation.opening import FAULTS, MAX_PIXELS, opened, why
from zssbir_cli.preparation.pixels import grey, orientation, rgb
from zssbir_cli.preparation.profile import CONVERTED, to_srgb
from zssbir_cli.preparation.sources import MAX_FILE_BYTES
from zssbir_cli.preparation.whole import Plain, image_end, plain_image
from zssbir_cli.types import Modality

MAX_SIDE = 2048
JPEG_QUALITY = 95
PNG_LEVEL = 4
SMALLEST_SQUARE = 32
"""From this side on, the border of a squared sketch is all white: readers tell dark ink from light by it."""
CAMERA_DATA = (b"eXIf", b"Raw profile type", b"adobe.com/xap", b"com.adobe.xmp")
MOVED = 0.05
"""Pixels of the target by which the far edge of a picture that is decoded at a part of its size may be off."""
TAIL_CUT = "data behind the end of the image removed"
PALEST_INK = 239
"""Paler than this is no ink (`data.square.FAINT`)."""
FAINT_INK = 140
"""A drawing whose darkest pixel is paler is made darker; those of Sketchy, TU-Berlin and Quick, Draw! go down to 125."""
GROUND = 3
"""Version of what `ground` makes of sketches; stored with a set, whose readers then leave polarity alone."""

SQUARE_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 6]
if hasattr(
    cv2, "IMWRITE_PNG_FILTER"
):  # OpenCV 4.12: line drawings are smaller, and decode a third faster, without
    SQUARE_PNG += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]


class Cleaned(NamedTuple):
    """`data`: what to store, None when the image is left out. `note`: why, or what was changed ("" = nothing
    worth telling). `digest`: sha256 of the file as found. `look`: of a photo, see `looks`."""

    data: bytes | None
    note: str
    digest: bytes
    look: bytes = b""


@dataclass(frozen=True)
class CleanOptions:
    """`size`: bring the shorter side down to this many pixels (None = keep). `square`: store network inputs of
    `size` x `size` pixels (`data.square`)."""

    size: int | None = None
    square: bool = False


def clean(raw: bytes, modality: Modality, options: CleanOptions) -> Cleaned:
    """Check one image file and bring it to a form that every reader decodes. Never raises on bad input."""
    digest = hashlib.sha256(raw).digest()
    square = options.size if options.square else None
    size = options.size if square is None else None
    try:
        if modality is Modality.SKETCH:
            (stored, note), look = _sketch(raw, size), b""
        else:
            stored, note, look = _photo(raw, size)
        return Cleaned(stored if square is None else squared(stored, modality, square), note, digest, look)
    except FAULTS as error:
        return Cleaned(None, why(error, raw), digest)


def drawing(raw: bytes) -> UInt8:
    """The pixels of a sketch's file as readers of a set decode what `clean` stored of it, uint8 [H, W].

    Errors: DataError saying why it is no sketch.
    """
    try:
        return _drawn(raw, None).pixels
    except FAULTS as error:
        raise DataError(why(error, raw)) from None


def photo(raw: bytes, size: int | None = None) -> UInt8:
    """The pixels of a photo's file, upright, RGB uint8 [H, W, 3], no side longer than `MAX_SIDE`.

    size: what they will be resized to. A large JPEG is then decoded at a half, a quarter or an eighth of its size, as
    long as both sides stay at least twice that and are (nearly) multiples of it: every coefficient is read all the same.
    Errors: DataError saying why it is no photo.
    """
    try:
        with opened(raw, Modality.PHOTO) as (image, data):
            target = _target(image.width, image.height, None) if size is None else (size, size)
            return np.asarray(_photo_pixels(image, data, target, None))
    except FAULTS as error:
        raise DataError(why(error, raw)) from None


def _photo(raw: bytes, size: int | None) -> tuple[bytes, str, bytes]:
    """A photo's own bytes where every reader decodes them, else an RGB JPEG; what was changed; its look."""
    known = _plain(raw, size)
    if known is not None and raw[:2] == SIGNATURE:
        return _own_jpeg(raw, known.end, known.width, known.height)
    with opened(raw, Modality.PHOTO) as (image, data):
        target = _target(image.width, image.height, size)
        convert = to_srgb(image)
        if target == image.size and convert is None and is_plain(image, data):
            end = _whole(data)
            if image.format == "JPEG":
                return _own_jpeg(data, end, *image.size)
            image.load()
            return data[:end], "" if end == len(data) else TAIL_CUT, look_of(image)
        note = ", ".join(filter(None, (_what_is_odd(image), CONVERTED if convert else "")))
        plain = _photo_pixels(image, data, target, size)
    out = io.BytesIO()
    plain.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue(), note, look_of(plain)


def _photo_pixels(image: Image.Image, raw: bytes, target: tuple[int, int], size: int | None) -> Image.Image:
    """An opened photo as 8-bit sRGB, resized as it is stored."""
    convert = to_srgb(image)
    pixels = _resized(rgb(_loaded(image, raw, target)), size)
    return convert(pixels) if convert else pixels


def _own_jpeg(raw: bytes, end: int, width: int, height: int) -> tuple[bytes, str, bytes]:
    """A JPEG's own bytes; for its look every coefficient is read, so that damage is noticed."""
    own = raw[:end]
    return own, "" if end == len(raw) else TAIL_CUT, look_of_jpeg(own, width, height)


class _Drawn(NamedTuple):
    """A sketch as dark ink on white, uint8 [H, W], what was done to it, and the file's own bytes where they hold it just
    so (None = it was changed)."""

    pixels: UInt8
    note: str
    own: bytes | None


def _sketch(raw: bytes, size: int | None) -> tuple[bytes, str]:
    """A sketch's own bytes where they are dark ink on white and every reader decodes them, else a grey PNG."""
    drawn = _drawn(raw, size)
    if drawn.own is not None:
        return drawn.own, drawn.note
    out = io.BytesIO()
    Image.fromarray(drawn.pixels).save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue(), drawn.note


def _plain(raw: bytes, size: int | None) -> Plain | None:
    """A plain image of a size that is stored as it is: no need to open it."""
    found = plain_image(raw) if len(raw) <= MAX_FILE_BYTES else None
    if found is None or found.width * found.height > MAX_PIXELS:
        return None
    return found if _target(found.width, found.height, size) == (found.width, found.height) else None


def _drawn(raw: bytes, size: int | None) -> _Drawn:
    if (known := _plain(raw, size)) is not None:
        own = raw[: known.end]
        return _inked(*own_grey(own, known.mode), size, "" if known.end == len(raw) else TAIL_CUT, own)
    with opened(raw, Modality.SKETCH) as (image, data):
        if _target(image.width, image.height, size) == image.size and is_plain(image, data):
            own = data[: _whole(data)]
            return _inked(*own_grey(own, image.mode), size, "" if len(own) == len(data) else TAIL_CUT, own)
        note = _what_is_odd(image) if data is raw else "drawn from SVG"
        return _inked(*grey(_loaded(image, data)), size, note, None)


def _inked(pixels: UInt8, seen: str, size: int | None, note: str, own: bytes | None) -> _Drawn:
    """A sketch's pixels, which are a channel of it that was `seen`, as dark ink on white. DataError when it is blank."""
    limited = np.asarray(_resized(Image.fromarray(pixels), None)) if max(pixels.shape) > MAX_SIDE else pixels
    white, done = on_white(limited)
    darkest = cv2.minMaxLoc(white)[0]
    if darkest > PALEST_INK:
        raise DataError("blank: no ink found")
    if darkest > FAINT_INK and cv2.minMaxLoc(stronger := strengthened(white))[0] < FAINT_INK:
        white, done = stronger, ", ".join(filter(None, (done, STRENGTHENED)))
    if own is not None and not done and not seen:
        return _Drawn(pixels, note, own)
    small = np.asarray(_resized(Image.fromarray(white if done else pixels), size))
    return _Drawn(small, ", ".join(filter(None, ("" if own else note, seen, done))), None)


def _loaded(image: Image.Image, raw: bytes, target: tuple[int, int] | None = None) -> Image.Image:
    """The first frame; a JPEG of at least twice the target, where one is given."""
    if raw[:2] != SIGNATURE or image.mode not in ("L", "RGB"):
        image.seek(0)
        image.load()
        return image
    factor = next((f for f in (8, 4, 2) if _fits(image.size, target or image.size, f)), 1)
    end = image_end(raw) or len(raw)
    pixels = decode_jpeg(raw[:end], "GRAY" if image.mode == "L" else "RGB", factor=factor)
    loaded = Image.fromarray(pixels)
    loaded.info["exif"] = image.info.get("exif", b"")
    return loaded


def _fits(size: tuple[int, int], target: tuple[int, int], factor: int) -> bool:
    """Whether a JPEG may be decoded at a part of its size: both sides stay at least twice the target, and the last pixel,
    which stands for fewer than the others, hardly moves the picture."""
    sides = zip(size, target, strict=True)
    return all(
        side >= 2 * factor * wanted and -side % factor * wanted <= MOVED * side for side, wanted in sides
    )


def _whole(raw: bytes) -> int:
    end = image_end(raw)
    if end is None:
        raise DataError("does not decode: cut short or damaged")
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

    Errors: DataError: it does not decode.
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
