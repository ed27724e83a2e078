"""Contour maps: one fixed input for drawings and photos, so that a network that starts from nothing can compare
them (`model.input: contours`)."""

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 17
"""Side of the neighbourhood, pixels, in which contrast is evened out."""
FLOOR = 0.03
"""Contrast (0-1) below which a flat region stays flat."""


def contours(images: Tensor) -> Tensor:
    """Grey gradient of images in 0-1, float [B, 3, H, W] -> [B, 3, H, W]: magnitude over two scales, |d/dx| and
    |d/dy|, each divided by the mean magnitude around it.

    Sobel filters on the luminance; the local division makes faint and bold lines alike. A pixel of a flat
    region is near 0, one on a contour about 1 to 3.
    """
    weights = torch.tensor([0.299, 0.587, 0.114], device=images.device, dtype=images.dtype)
    grey = (images * weights.view(1, 3, 1, 1)).sum(1, keepdim=True)
    fine = _sobel(grey)
    coarse = functional.interpolate(
        _sobel(functional.avg_pool2d(grey, 2)), size=grey.shape[2:], mode="bilinear"
    )
    magnitude = (fine.square().sum(1, keepdim=True) + coarse.square().sum(1, keepdim=True)).div(2).sqrt()
    return torch.cat([magnitude, fine.abs()], 1) / (_around(magnitude) + FLOOR)


def _around(values: Tensor) -> Tensor:
    """Mean over the window around each pixel (what lies inside the image): rows first, then columns."""
    for size in ((WINDOW, 1), (1, WINDOW)):
        pad = (size[0] // 2, size[1] // 2)
        values = functional.avg_pool2d(values, size, 1, pad, count_include_pad=False)
    return values


def _sobel(grey: Tensor) -> Tensor:
    """[B, 1, H, W] -> horizontal and vertical gradient [B, 2, H, W] of an image repeated at its border."""
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], device=grey.device, dtype=grey.dtype) / 4
    padded = functional.pad(grey, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])
