"""`prepare --square`: images stored as the network input that training would make of them at every reading."""

import io

import cv2
import numpy as np
from PIL import Image

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.square import resize_photo, square_sketch
from zssbir_cli.prepare.clean import JPEG_QUALITY
from zssbir_cli.types import Modality

_PNG = (
    cv2.IMWRITE_PNG_FILTER,
    cv2.IMWRITE_PNG_FILTER_NONE,  # line drawings: smaller, and a third faster to decode, than with filters
    cv2.IMWRITE_PNG_COMPRESSION,
    6,
)


def squared(data: bytes, modality: Modality, size: int) -> bytes:
    """An image as `clean` would store it -> what is stored instead: a sketch as grey PNG that holds exactly
    `square_sketch`, a photo as JPEG of `resize_photo` (its own bytes when it is size x size already).

    Raises:
        DataError: it does not decode.
    """
    buffer = np.frombuffer(data, np.uint8)
    if modality is Modality.SKETCH:
        drawing = square_sketch(decode_sketch(buffer), size)[0].numpy()
        return cv2.imencode(".png", drawing, _PNG)[1].tobytes()
    photo = decode_photo(buffer)
    if photo.shape[1:] == (size, size):
        return data
    out = io.BytesIO()
    pixels = np.ascontiguousarray(resize_photo(photo, size).permute(1, 2, 0).numpy())
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()
