"""Pixels of any kind of image file -> the same upright 8-bit picture, whatever the container."""

import numpy as np
from PIL import Image, ImageOps

from zssbir_cli.arrays import UInt8
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.colour import drawing_of

ORIENTATION = 0x0112
WHITES = (1.0, 255.0, 4095.0, 65535.0)


def orientation(image: Image.Image) -> int:
    """How the picture is turned or mirrored by its camera data, 1 (upright) to 8; in JPEG, PNG, WebP, TIFF, AVIF."""
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def grey(image: Image.Image) -> tuple[UInt8, str]:
    """A loaded sketch, upright, uint8 [H, W], and which channel it is, where one shows the strokes better than its
    luminance ("" = luminance); what is transparent is laid under it as `_on_nothing` says."""
    image = _eight_bits(ImageOps.exif_transpose(image))
    if _has_alpha(image):
        pixels = np.asarray(image.convert("RGBA").convert("LA"))
        return _on_nothing(pixels[..., 0], pixels[..., 1]), ""
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L")), ""
    return drawing_of(np.asarray(image.convert("RGB")))


def rgb(image: Image.Image) -> Image.Image:
    """A loaded photo, upright, as 8-bit RGB; transparent parts are white."""
    image = _eight_bits(ImageOps.exif_transpose(image))
    if _has_alpha(image):
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getbbox() is None:
            raise DataError("blank: all of it is transparent")
        ground = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, rgba).convert("RGB")
    return image.convert("RGB")


def _on_nothing(grey: UInt8, alpha: UInt8) -> UInt8:
    """Lay a transparent sketch [H, W] with its alpha [H, W] on white; light strokes drawn on nothing are made dark
    first."""
    weight = alpha.astype(np.float32) / 255
    total = float(weight.sum())
    light_ink = total > 0 and float((grey * weight).sum()) / total > 127.5
    if light_ink and float(weight.mean()) < 0.5:
        return np.rint(255 - grey * weight).astype(np.uint8)
    return np.rint(grey * weight + 255 * (1 - weight)).astype(np.uint8)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("LA", "RGBA", "PA", "La", "RGBa") or "transparency" in image.info


def _eight_bits(image: Image.Image) -> Image.Image:
    """16- and 32-bit integer and floating-point pixels -> 8-bit grey; other images unchanged.

    The white of 16-bit pixels is 65535, unless none is brighter than 255 or 4095: then they are of 8 or 12 bits, as
    cameras and scanners leave them. Wider ones have no agreed white: the smallest of 1 (floats), 255, 4095 and 65535
    that holds them all, else their maximum.
    """
    if image.mode not in ("I", "F") and not image.mode.startswith("I;"):
        return image
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not numbers")
    top = float(values.max(initial=0.0))
    full = next((f for f in WHITES if top <= f and (f > 1 or image.mode == "F")), top)
    return Image.fromarray(np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8))
