"""Decoding stored images: encoded bytes -> uint8 tensors. `prepare` stores only what these can decode."""

import io

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from zssbir_cli.data.ink import dark_on_white, flatten
from zssbir_cli.errors import DataError

UInt8 = npt.NDArray[np.uint8]


def decode_photo(buffer: UInt8) -> Tensor:
    """Encoded JPEG or PNG bytes, uint8 [n] -> RGB image, uint8 [3, H, W].

    Raises:
        DataError: the bytes are no image or are cut short.
    """
    return _decode(buffer, ImageReadMode.RGB)


def decode_sketch(buffer: UInt8) -> Tensor:
    """Encoded JPEG or PNG bytes, uint8 [n] -> sketch as dark ink on white, uint8 [1, H, W].

    Light ink on a dark ground (told by the image's border) is inverted; transparency is laid on white, or on
    black first when the ink is light.

    Raises:
        DataError: the bytes are no image or are cut short.
    """
    if _has_alpha(buffer):
        grey, alpha = _decode(buffer, ImageReadMode.GRAY_ALPHA).numpy()
        return torch.from_numpy(flatten(grey, alpha))[None]
    return torch.from_numpy(dark_on_white(_decode(buffer, ImageReadMode.GRAY)[0].numpy()))[None]


def _has_alpha(buffer: UInt8) -> bool:
    """Whether this is a PNG with an alpha channel (colour type 4 or 6 in its header)."""
    return len(buffer) > 25 and bytes(buffer[:4]) == b"\x89PNG" and int(buffer[25]) in (4, 6)


def _decode(buffer: UInt8, mode: ImageReadMode) -> Tensor:
    try:
        # the copy is small, and spares torch a warning about read-only memory
        image: Tensor = decode_image(torch.from_numpy(np.array(buffer)), mode)
    except RuntimeError as error:
        raise DataError(
            f"an image of {len(buffer)} bytes does not decode: {' '.join(str(error).split())[:160]}"
        ) from None
    return image


def decode_mask(buffer: UInt8) -> npt.NDArray[np.bool_]:
    """A 1-bit PNG mask -> bool [H, W].

    Raises:
        DataError: the bytes are no image.
    """
    try:
        with Image.open(io.BytesIO(bytes(buffer))) as image:
            return np.asarray(image.convert("L")) > 127
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"a stored mask does not decode: {error}") from None


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """bool [H, W] -> a 1-bit PNG."""
    out = io.BytesIO()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("1").save(out, "PNG", optimize=False)
    return out.getvalue()
