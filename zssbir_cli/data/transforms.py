"""From decoded images to network inputs: the same square for training, embedding and search.

All functions take and return uint8 tensors [C, H, W]; randomness comes from a NumPy generator.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as tvf

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
    return stretch(tvf.resize(torch.from_numpy(canvas)[None], [size, size], antialias=True))


def resize_squared(image: Tensor, size: int) -> Tensor:
    """What `square_sketch` made at another size [1, S, S] -> [1, size, size]; at its own size the same bits."""
    if image.shape[1:] == (size, size):
        return image
    return stretch(tvf.resize(image, [size, size], antialias=True))


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
    if image.shape[1:] == (size, size):
        return image
    resized: Tensor = tvf.resize(image, [size, size], antialias=True)
    return resized


@dataclass(frozen=True)
class Crop:
    """A random view of an image, in shares of its height and width, so that it applies to any resolution:
    the photo, its mask and its score map move together."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0
    flip: bool = False


def sample_crop(rng: np.random.Generator, smallest: float, flip: bool) -> Crop:
    """Draw a crop that keeps `smallest` to 1 of the area (aspect ratio within 3/4 to 4/3), and a flip."""
    mirrored = bool(flip and rng.random() < 0.5)
    if smallest >= 1:
        return Crop(flip=mirrored)
    area, ratio = rng.uniform(smallest, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height, width = min(1.0, float((area / ratio) ** 0.5)), min(1.0, float((area * ratio) ** 0.5))
    return Crop(float(rng.uniform(0, 1 - height)), float(rng.uniform(0, 1 - width)), height, width, mirrored)


def crop_image(image: Tensor, crop: Crop, size: int) -> Tensor:
    """Apply a crop to an image [C, H, W] and resize to [C, size, size]."""
    rows, columns = image.shape[1:]
    top, left = round(crop.top * rows), round(crop.left * columns)
    height, width = max(1, round(crop.height * rows)), max(1, round(crop.width * columns))
    cut = image[:, top : top + height, left : left + width]
    out: Tensor = tvf.resize(cut, [size, size], antialias=True)
    return out.flip(2) if crop.flip else out


def crop_map(scores: Tensor, crop: Crop, grid: tuple[int, int]) -> Tensor:
    """Apply a crop to a map of scores, float [h, w] -> [grid[0], grid[1]] (bilinear)."""
    ys = (crop.top + (torch.arange(grid[0]) + 0.5) / grid[0] * crop.height) * 2 - 1
    xs = (crop.left + (torch.arange(grid[1]) + 0.5) / grid[1] * crop.width) * 2 - 1
    if crop.flip:
        xs = xs.flip(0)
    where = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)[None].float()
    out = functional.grid_sample(
        scores[None, None].float(), where, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out[0, 0]


def jitter_sketch(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Rotate (to 30 degrees), scale (to 25 %), shift (to 10 %) and thicken the lines of a sketch
    [1, H, W], each by a random share of `strength` (0-1)."""
    if strength <= 0:
        return image
    size = image.shape[1]
    angle = np.deg2rad(30) * strength * rng.uniform(-1, 1)
    zoom = np.exp(np.log(1.25) * strength * rng.uniform(-1, 1))
    shift = 0.1 * size * strength * rng.uniform(-1, 1, 2)
    cos, sin, centre = np.cos(angle) / zoom, np.sin(angle) / zoom, (size - 1) / 2
    affine = np.array(
        [
            [cos, -sin, centre - cos * (centre + shift[0]) + sin * (centre + shift[1])],
            [sin, cos, centre - sin * (centre + shift[0]) - cos * (centre + shift[1])],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image[0].numpy(), affine, (size, size), flags=flags, borderValue=(255,))
    if rng.random() < 0.25 * strength:
        out = cv2.erode(out, np.ones((3, 3), np.uint8))  # the minimum around each pixel: thicker lines
    return torch.from_numpy(out)[None]


def jitter_color(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of a photo [3, H, W] by up to 40 % of `strength` each, as one
    affine colour map."""
    if strength <= 0:
        return image
    brightness, contrast, saturation = 1 + 0.4 * strength * rng.uniform(-1, 1, 3)
    pixels = image.permute(1, 2, 0).numpy()
    if not pixels.flags.c_contiguous:
        pixels = cv2.merge(list(image.numpy()))  # NumPy takes ten times as long to put channels last
    grey = np.array([0.299, 0.587, 0.114])
    mean = brightness * float(grey @ cv2.mean(pixels)[:3])
    matrix = np.empty((3, 4))
    matrix[:, :3] = (saturation * np.eye(3) + (1 - saturation) * grey) * (brightness * contrast)
    matrix[:, 3] = mean * (1 - contrast)
    return torch.from_numpy(cv2.transform(pixels, matrix)).permute(2, 0, 1)
