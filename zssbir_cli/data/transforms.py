"""From decoded images to network inputs: the same square for training, embedding and search.

All functions take and return uint8 tensors [C, H, W]; randomness comes from a NumPy generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as tvf

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
    canvas = torch.full((1, side + 2 * margin, side + 2 * margin), 255, dtype=torch.uint8)
    y, x = margin + (side - height) // 2, margin + (side - width) // 2
    canvas[:, y : y + height, x : x + width] = image[:, top:bottom, left:right]
    return stretch(tvf.resize(canvas, [size, size], antialias=True))


def ink_box(image: Tensor) -> tuple[int, int, int, int] | None:
    """Bounding box (top, left, bottom, right) of the ink of a sketch [1, H, W]; None when it is blank.

    Ink is what is at least a quarter as dark as the darkest pixel, and not fainter than `FAINT`.
    """
    darkness = 255 - image[0].numpy()
    ink = darkness >= max(FAINT, int(darkness.max()) // 4)
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return None
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def stretch(image: Tensor) -> Tensor:
    """Make the typical ink of a sketch [1, H, W] black: resizing turns thin lines grey."""
    darkness = 255 - image.numpy()
    ink = darkness[darkness >= FAINT]
    if not len(ink):
        return image
    level = max(float(FAINT), float(np.percentile(ink, 90)))
    table = 255 - np.minimum(np.arange(256) * (255 / level), 255).round().astype(np.uint8)
    return torch.from_numpy(table[darkness])


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
    """Rotate (to 30 degrees), scale (to 25 %), shift (to 10 %) and thicken or thin the lines of a sketch
    [1, H, W], each by a random share of `strength` (0-1)."""
    if strength <= 0:
        return image
    size = image.shape[1]
    angle = np.deg2rad(30) * strength * rng.uniform(-1, 1)
    zoom = np.exp(np.log(1.25) * strength * rng.uniform(-1, 1))
    shift = 0.1 * size * strength * rng.uniform(-1, 1, 2)
    cos, sin, centre = np.cos(angle) / zoom, np.sin(angle) / zoom, (size - 1) / 2
    affine = (
        cos, -sin, centre - cos * (centre + shift[0]) + sin * (centre + shift[1]),
        sin, cos, centre - sin * (centre + shift[0]) - cos * (centre + shift[1]),
    )  # fmt: skip
    picture = Image.fromarray(image[0].numpy()).transform(
        (size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR, fillcolor=255
    )
    out = torch.from_numpy(np.array(picture))[None]
    width = rng.random()
    if width < 0.25 * strength:
        out = 255 - functional.max_pool2d((255 - out)[None].float(), 3, 1, 1)[0].to(torch.uint8)
    return out


def jitter_color(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of a photo [3, H, W] by up to 40 % of `strength` each, as one
    affine colour map."""
    if strength <= 0:
        return image
    brightness, contrast, saturation = 1 + 0.4 * strength * rng.uniform(-1, 1, 3)
    grey = torch.tensor([0.299, 0.587, 0.114]).expand(3, 3)
    matrix = (saturation * torch.eye(3) + (1 - saturation) * grey).float() * (brightness * contrast)
    flat = image.float().flatten(1)
    mean = float(brightness * (torch.tensor([0.299, 0.587, 0.114]) @ flat.mean(1)))
    out: Tensor = (matrix @ flat + mean * (1 - contrast)).clamp_(0, 255)
    return out.round_().to(torch.uint8).view(image.shape)
