"""Decoding stored images: encoded bytes -> uint8 tensors. `prepare` stores only what these can decode."""

import io

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from zssbir_cli.arrays import UInt8
from zssbir_cli.data.png import bare_png
from zssbir_cli.errors import DataError


def decode_photo(buffer: UInt8) -> Tensor:
    """Encoded JPEG or PNG bytes, uint8 [n] -> RGB image, uint8 [3, H, W] (channels last in memory).

    Errors: DataError: the bytes are no image or are cut short (`prepare` has found what is damaged within).
    """
    return torch.from_numpy(_decode(buffer, cv2.IMREAD_COLOR_RGB)).permute(2, 0, 1)


def decode_sketch(buffer: UInt8, *, on_white: bool = True) -> Tensor:
    """Encoded JPEG or PNG bytes, uint8 [n] -> sketch as dark ink on white, uint8 [1, H, W].

    Stored sketches are dark on white (`prepare.ground`). `on_white=False` is for sets that were prepared before that:
    light ink on a dark ground, told by the image's border, is inverted.

    Errors: DataError: the bytes are no image or are cut short.
    """
    grey = _decode(buffer, cv2.IMREAD_GRAYSCALE)
    if not on_white:
        border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
        grey = 255 - grey if float(border.mean()) < 127.5 else grey
    return torch.from_numpy(grey)[None]


def _decode(buffer: UInt8, flags: int) -> UInt8:
    """[H, W] or [H, W, C] as OpenCV decodes it, without turning it by its EXIF orientation."""
    # OpenCV fills what a cut file lacks with grey, so the end marker is checked first
    whole = len(buffer) > 12 and (bytes(buffer[-2:]) == b"\xff\xd9" or bytes(buffer[-8:-4]) == b"IEND")
    pixels = cv2.imdecode(bare_png(buffer), flags | cv2.IMREAD_IGNORE_ORIENTATION) if whole else None
    if pixels is None or pixels.dtype != np.uint8:
        raise DataError(f"an image of {len(buffer)} bytes does not decode (no JPEG or PNG, or cut short)")
    return np.asarray(pixels)


def decode_mask(buffer: UInt8) -> npt.NDArray[np.bool_]:
    """A 1-bit PNG mask -> bool [H, W].

    Errors: DataError: the bytes are no image.
    """
    try:
        with Image.open(io.BytesIO(bytes(buffer))) as image:
            return np.asarray(image.convert("L")) > 127
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"a stored mask does not decode: {error}") from None
