"""From scores to masks: which tokens of a photo are kept."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_count(tokens: int, ratio: float) -> int:
    """Tokens to mask of `tokens`: int(ratio * tokens) + 1 as published (138 of 196 at 0.7), none at ratio 0,
    and at least one token is kept."""
    return min(int(ratio * tokens) + 1, tokens - 1) if ratio > 0 else 0


def keep_mask(
    scores: Tensor,
    ratio: float,
    rule: Literal["lowest", "random", "threshold"] = "lowest",
    threshold: float = 0.5,
) -> Tensor:
    """Mask of the tokens to keep.

    Args:
        scores: [B, N], higher = more like the class name.
        ratio: share of the tokens to mask (`lowest`, `random`).
        rule: `lowest` masks the lowest scores (equal scores: the later token first), `random` ignores the
            scores, `threshold` masks what is below `threshold` of the way from the lowest to the highest.

    Returns: bool [B, N], True = keep; at least one True in each row.
    """
    if rule == "threshold":
        low, high = scores.amin(1, keepdim=True), scores.amax(1, keepdim=True)
        return scores >= low + threshold * (high - low)
    order = torch.rand_like(scores, dtype=torch.float32) if rule == "random" else scores
    keep = scores.shape[1] - masked_count(scores.shape[1], ratio)
    best = order.sort(dim=1, descending=True, stable=True).indices[:, :keep]
    return torch.zeros_like(scores, dtype=torch.bool).scatter_(1, best, True)


def to_grid(scores: Tensor, grid: tuple[int, int]) -> Tensor:
    """Score maps [B, h, w] resampled to the encoder's token grid and flattened, [B, grid[0] * grid[1]]."""
    if tuple(scores.shape[1:]) != tuple(grid):
        shrink = scores.shape[1] >= grid[0] and scores.shape[2] >= grid[1]
        mode = "area" if shrink else "bilinear"
        scores = F.interpolate(scores[:, None].float(), size=grid, mode=mode)[:, 0]
    return scores.flatten(1)
