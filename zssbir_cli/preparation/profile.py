"""Photos whose colour profile is another than sRGB (Display P3 of phones, Adobe RGB of cameras) -> sRGB."""

import io
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from PIL import Image

CONVERTED = "colours converted to sRGB"
COLOURED = ("RGB", "RGBA", "P", "PA")
SAME = 4
"""Levels (of 255) by which no colour of a profile that is sRGB under another name may differ."""

ToSrgb = Callable[[Image.Image], Image.Image]


def to_srgb(image: Image.Image) -> ToSrgb | None:
    """What brings the pixels of an opened photo, once they are 8-bit RGB, to sRGB; None where they are sRGB, as without a
    profile, or with one that cannot be read."""
    profile = image.info.get("icc_profile")
    return _of_profile(bytes(profile)) if profile and image.mode in COLOURED else None


@lru_cache(32)
def _of_profile(profile: bytes) -> ToSrgb | None:
    from PIL import ImageCms  # only for photos with a profile

    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(
            own, ImageCms.createProfile("sRGB"), "RGB", "RGB", ImageCms.Intent.RELATIVE_COLORIMETRIC
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):  # of CMYK or grey, or damaged
        return None
    levels = np.arange(0, 256, 51)
    colours = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3).astype(np.uint8)
    moved = np.asarray(transform.apply(Image.fromarray(colours)), np.int16) - colours
    return transform.apply if np.abs(moved).max() > SAME else None
