"""A descriptor that learns nothing: histograms of gradient orientations, the frozen start of the demo."""

import torch
from torch import Tensor
from torch.nn import functional

CELLS = 8
BINS = 9


def hog(images: Tensor) -> Tensor:
    """Histograms of oriented gradients: uint8 [B, 1 or 3, H, W] -> unit length float32 [B, 7 * 7 * 4 * 9].

    Per pixel the gradient of the grey value, its direction without sign in 9 bins, weighted by its length;
    sums over 8 x 8 cells; each 2 x 2 block of cells scaled to unit length; then the whole vector.
    Source: Dalal and Triggs 2005 (here without Gaussian weights and interpolation).
    """
    grey = images.float().mean(1, keepdim=True)
    x = functional.pad(grey, (1, 1, 0, 0), mode="replicate")
    y = functional.pad(grey, (0, 0, 1, 1), mode="replicate")
    dx, dy = x[..., 2:] - x[..., :-2], y[..., 2:, :] - y[..., :-2, :]
    angle = torch.atan2(dy, dx).remainder(torch.pi)
    bins = (angle / torch.pi * BINS).long().clamp(max=BINS - 1)
    length = torch.hypot(dx, dy)
    votes = functional.one_hot(bins.squeeze(1), BINS).permute(0, 3, 1, 2) * length
    cells = functional.adaptive_avg_pool2d(votes, CELLS)
    blocks = functional.unfold(cells, 2)
    return functional.normalize(functional.normalize(blocks, dim=1, eps=1e-6).flatten(1), dim=1)
