"""DINO's multi-crop augmentation with OpenCV: all crops of an image from one decode.

The same distributions as the published pipeline (Caron et al. 2021, torchvision on PIL), at a lower cost:
brightness, contrast, saturation, hue and grey of one crop are composed into a single 3 x 4 colour matrix, so a
crop is one resize, one matrix product and at most one blur. Not bit-identical: colours are clipped once, at the
end, and hue is a rotation about the grey axis. Grey images (sketches) keep their one channel, on which the
colour operations act exactly as on three equal ones.
"""

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.arrays import Float32
from zssbir_cli.methods.ama.config import ViewsConfig

Image = npt.NDArray[Any]  # uint8 [H, W, C]
Affine = npt.NDArray[Any]
Rng = np.random.Generator

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_GREY = np.tile(_LUMA, (3, 1))
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]], np.float32)
_FROM_YIQ = np.linalg.inv(_TO_YIQ).astype(np.float32)


def multi_crop(image: Tensor, views: ViewsConfig, size: int, rng: Rng) -> tuple[Tensor, Tensor]:
    """Augmented views of a decoded image: uint8 [C, H, W] -> globals [2, C, S, S] of `size` pixels, locals
    [n, C, s, s], uint8.

    The first global is always blurred, the second rarely, but solarised with probability 0.2; locals are blurred
    with probability 0.5. rng: the item's own generator, so that views depend on nothing but the item.
    """
    pixels = _pixels(image)
    wide = [view(pixels, size, views.global_scale, *odds, views, rng) for odds in ((1.0, 0.0), (0.1, 0.2))]
    near = [
        view(pixels, views.local_size, views.local_scale, 0.5, 0.0, views, rng) for _ in range(views.locals)
    ]
    return _stack(wide, size, pixels.shape[2]), _stack(near, views.local_size, pixels.shape[2])


def drawing_views(image: Tensor, views: ViewsConfig, size: int, rng: Rng) -> Tensor:
    """Crops of a photo [3, H, W] turned into line drawings, mirrored at random: uint8 [d, 1, S, S]."""
    found = []
    for _ in range(views.drawings):
        paper = as_drawing(random_resized_crop(_pixels(image), size, views.drawing_scale, rng), rng)
        found.append(paper[:, ::-1] if rng.random() < 0.5 else paper)
    return _stack(found, size, 1)


def _pixels(image: Tensor) -> Image:
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def view(
    image: Image,
    size: int,
    scale: tuple[float, float],
    blur: float,
    solarize: float,
    views: ViewsConfig,
    rng: Rng,
) -> Image:
    """One view: random resized crop, mirror (0.5), colour jitter (0.8), grey (0.2), blur, solarise;
    [size, size, C]."""
    out = random_resized_crop(image, size, scale, rng)
    if rng.random() < 0.5:
        out = cv2.flip(out, 1).reshape(out.shape)
    out = color_jitter(out, rng, views.color)
    if rng.random() < blur:
        sigma = rng.uniform(0.1, 2.0) * views.blur / 2
        if sigma > 0.25:  # narrower kernels are the identity to within a grey level
            out = cv2.GaussianBlur(out, (0, 0), sigma).reshape(out.shape)
    if rng.random() < solarize:
        out = np.where(out < 128, out, 255 - out).astype(np.uint8)
    return out


def crop_box(height: int, width: int, scale: tuple[float, float], rng: Rng) -> tuple[int, int, int, int]:
    """(top, left, height, width) of torchvision's `RandomResizedCrop` with aspect ratios 3/4 to 4/3."""
    low, high = math.log(3 / 4), math.log(4 / 3)
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
    ratio = width / height
    w = width if ratio <= 4 / 3 else round(height * 4 / 3)
    h = height if ratio >= 3 / 4 else round(width * 4 / 3)
    w, h = max(1, min(w, width)), max(1, min(h, height))
    return (height - h) // 2, (width - w) // 2, h, w


def random_resized_crop(image: Image, size: int, scale: tuple[float, float], rng: Rng) -> Image:
    """A random part of `image` [H, W, C], resized to [size, size, C]: by area when it shrinks, bicubic
    when it grows."""
    top, left, h, w = crop_box(image.shape[0], image.shape[1], scale, rng)
    part = image[top : top + h, left : left + w]
    how = cv2.INTER_AREA if min(h, w) > size else cv2.INTER_CUBIC
    return cv2.resize(part, (size, size), interpolation=how).reshape(size, size, image.shape[2])


def color_jitter(image: Image, rng: Rng, strength: float = 1.0) -> Image:
    """DINO's jitter (chance 0.8) and grey (chance 0.2) of [H, W, 3], as one matrix; [H, W, 1] by a table."""
    jitter, grey = rng.random() < 0.8, rng.random() < 0.2
    if not jitter and not (grey and image.shape[2] == 3):
        return image
    matrix: Affine = np.eye(3, 4, dtype=np.float32)
    if jitter:
        mean = np.array(cv2.mean(image)[:3] if image.shape[2] == 3 else [image.mean()] * 3, np.float32)
        matrix = jitter_matrix(mean, rng, strength)
    if image.shape[2] == 1:  # every row acts on equal channels in the same way
        ramp = np.arange(256, dtype=np.float32)
        table = np.clip(np.rint(ramp * matrix[0, :3].sum() + matrix[0, 3]), 0, 255).astype(np.uint8)
        return cv2.LUT(image, table).reshape(image.shape)
    if grey:
        matrix = _GREY @ matrix
    return cv2.transform(image, matrix)


def jitter_matrix(mean: Float32, rng: Rng, strength: float = 1.0) -> Float32:
    """Brightness, contrast, saturation and hue in random order as an affine map of RGB, float32 [3, 4].

    mean: the crop's mean colour [3], 0-255. Factors are uniform in 1 +- 0.4, 1 +- 0.4, 1 +- 0.2; the hue
    turns by at most 0.1 of the circle.
    """
    out: Affine = np.eye(3, 4, dtype=np.float32)
    for step in rng.permutation(4):
        if step == 0:
            out *= 1 + 0.4 * strength * rng.uniform(-1, 1)
        elif step == 1:
            factor = 1 + 0.4 * strength * rng.uniform(-1, 1)
            level = float(_LUMA @ (out[:, :3] @ mean + out[:, 3]))
            out *= factor
            out[:, 3] += (1 - factor) * level
        elif step == 2:
            factor = 1 + 0.2 * strength * rng.uniform(-1, 1)
            out = (factor * np.eye(3, dtype=np.float32) + (1 - factor) * _GREY) @ out
        else:
            angle = 2 * math.pi * 0.1 * strength * rng.uniform(-1, 1)
            cos, sin = math.cos(angle), math.sin(angle)
            turn = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]], np.float32)
            out = (_FROM_YIQ @ turn @ _TO_YIQ) @ out
    return out


def as_drawing(image: Image, rng: Rng) -> Image:
    """A photo [H, W, C] as dark strokes on white [H, W, 1]: edges of random fineness, contrast and thickness.

    Either Canny's (thin, binary) or a Sobel gradient with a random threshold (soft), the usual stand-ins for a
    sketch where there are no pairs.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.shape[2] == 3 else image[..., 0]
    unit = max(0.5, min(grey.shape) / 128)  # strokes keep their width relative to the picture
    grey = cv2.GaussianBlur(grey, (0, 0), unit * rng.uniform(0.6, 1.6))
    if rng.random() < 0.5:
        level = rng.uniform(0.6, 1.6)
        edges = cv2.Canny(grey, 60 * level / unit, 140 * level / unit)
        width = max(1, round(unit * rng.uniform(0.6, 3.4)))
        ink = cv2.dilate(edges, np.ones((width, width), np.uint8)) if width > 1 else edges
    else:
        slope: Image = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
        slope = slope / (float(np.percentile(slope, 97)) + 1e-3)
        low = rng.uniform(0.15, 0.4)
        ink = (255 * np.clip((slope - low) / (1 - low) * rng.uniform(1, 3), 0, 1)).astype(np.uint8)
    return cv2.GaussianBlur(255 - ink, (0, 0), unit * rng.uniform(0.3, 0.8))[..., None]


def _stack(views: list[Image], size: int, channels: int) -> Tensor:
    if not views:
        return torch.zeros(0, channels, size, size, dtype=torch.uint8)
    return torch.from_numpy(np.ascontiguousarray(np.stack(views).transpose(0, 3, 1, 2)))
