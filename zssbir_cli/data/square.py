"""From a decoded image to the square that a network takes: the same for training, embedding and search.

All functions take and return uint8 tensors [C, H, W].
"""

import platform

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

cv2.setNumThreads(0)  # loaders run one process per core

MARGIN = 0.05
"""White border around the cropped ink, as a share of its longer side (PuXIM pads by 10 px of 224)."""
FAINT = 16
"""Smallest darkness (0-255) that counts as ink; paper grain and JPEG noise stay below it."""


def square_sketch(image: Tensor, size: int, crop: bool = True) -> Tensor:
    """Sketch, dark ink on white [1, H, W] -> [1, size, size].

    Crops to the ink's bounding box plus a margin (`crop`), pads to a square with white, resizes, and stretches
    the contrast so that thin grey and bold black lines look alike. A blank sketch becomes a white square.
    """
    box = ink_box(image) if crop else (0, 0, image.shape[1], image.shape[2])
    if box is None:
        return torch.full((1, size, size), 255, dtype=torch.uint8)
    top, left, bottom, right = box
    height, width = bottom - top, right - left
    side = max(height, width)
    margin = round(side * MARGIN) + 1 if crop else 0
    y, x = margin + (side - height) // 2, margin + (side - width) // 2
    below, beside = side + 2 * margin - height - y, side + 2 * margin - width - x
    cut = image[0, top:bottom, left:right].numpy()
    canvas = cv2.copyMakeBorder(cut, y, below, x, beside, cv2.BORDER_CONSTANT, value=(255,))
    return stretch(resize(torch.from_numpy(canvas)[None], size))


def resize_squared(image: Tensor, size: int) -> Tensor:
    """What `square_sketch` made at another size [1, S, S] -> [1, size, size]; at its own size the same bits."""
    if image.shape[1:] == (size, size):
        return image
    return stretch(resize(image, size))


def ink_box(image: Tensor) -> tuple[int, int, int, int] | None:
    """Bounding box (top, left, bottom, right) of the ink of a sketch [1, H, W]; None when it is blank.

    Ink is what is at least a quarter as dark as the darkest pixel, and not fainter than `FAINT`.
    """
    pixels = image[0].numpy()
    least = max(FAINT, (255 - int(pixels.min())) // 4)
    _, ink = cv2.threshold(pixels, 255 - least, 255, cv2.THRESH_BINARY_INV)
    left, top, width, height = cv2.boundingRect(ink)
    return (top, left, top + height, left + width) if width else None


def stretch(image: Tensor) -> Tensor:
    """Make the typical ink of a sketch [1, H, W] (its 90th percentile of darkness) black: resizing turns thin
    lines grey."""
    pixels = image[0].numpy()
    darkness = cv2.calcHist([pixels], [0], None, [256], [0, 256]).ravel()[::-1].astype(np.int64)
    darkness[:FAINT] = 0
    below = np.cumsum(darkness)
    if not below[-1]:
        return image
    place, share = divmod(0.9 * (below[-1] - 1), 1)
    low, high = np.searchsorted(below, [place, min(place + 1, below[-1] - 1)], side="right")
    level = max(float(FAINT), float(low + share * (high - low)))
    table = 255 - np.minimum(np.arange(255, -1, -1) * (255 / level), 255).round().astype(np.uint8)
    return torch.from_numpy(cv2.LUT(np.ascontiguousarray(pixels), table))[None]


def resize_photo(image: Tensor, size: int) -> Tensor:
    """Photo [3, H, W] -> [3, size, size]; the aspect ratio is not kept (as in the published programs)."""
    return image if image.shape[1:] == (size, size) else resize(image, size)


def resize(image: Tensor, size: int) -> Tensor:
    """uint8 [C, H, W] -> [C, size, size], bilinear and antialiased.

    The bits of torchvision's `resize`, whose import takes longer than a whole search.
    """
    # the strides say that channels come last where they do
    pixels = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    if _IN_BYTES:
        return functional.interpolate(pixels, (size, size), mode="bilinear", antialias=True)[0]
    out = functional.interpolate(pixels.float(), (size, size), mode="bilinear", antialias=True)
    return out.round_().to(torch.uint8)[0]


_IN_BYTES = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in (
    "aarch64",
    "arm64",
)
"""Whether PyTorch resizes bytes as bytes, and fast, on this processor."""
