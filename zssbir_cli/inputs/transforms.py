"""From decoded images to network inputs: the same square for training, embedding and search.

All functions take and return uint8 tensors [C, H, W]; randomness comes from a NumPy generator.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zssbir_cli.data.square import resize


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
    out = cut if cut.shape[1:] == (size, size) else resize(cut, size)
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
