"""From scores to masks, which tokens of a photo are kept, and PuXIM's losses: pure functions of tensors."""

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


def reconstruction_loss(
    tokens: Tensor, keep: Tensor, target: Literal["mask", "norm", "share"] = "mask"
) -> Tensor:
    """How much of a photo is left outside its mask: MSE(x, m * x), or MSE(x, m * norm(x)) for `norm`.

    `mask` equals the mean square of the masked-out values: they are pushed to zero, the kept ones get no
    gradient. `norm` (a variant in the paper's Figure 3) takes as target the masked tokens, each normalised
    over its channels to mean 0 and variance 1; the target is a constant. `share` (ours) is `mask` after each
    photo's tokens are divided by their root mean square: the share of the photo's energy that lies outside the
    mask, 0-1. An encoder whose tokens have no fixed scale (a CNN) meets `mask` by shrinking all of them; `share`
    does not change with their scale.

    Args:
        tokens: patch tokens [B, N, D]. keep: bool [B, N].

    Returns: scalar, float32 (float64 for float64 input).

    Example: tokens [[[1., 1.], [2., 0.]]], keep [[True, False]] -> (4 + 0) / 4 = 1; `share`: 4 / 6.
    """
    tokens = tokens if tokens.dtype.itemsize == 8 else tokens.float()
    mask = keep.to(tokens.dtype)[..., None]
    if target == "share":
        tokens = tokens / tokens.square().mean((1, 2), keepdim=True).clamp(min=1e-12).sqrt()
    if target != "norm":
        return ((1 - mask) * tokens).square().mean()
    goal = F.layer_norm(tokens.detach(), tokens.shape[-1:]) * mask
    return F.mse_loss(tokens, goal)


def triplet_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float,
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Tensor:
    """mean(max(0, d(a, p) - d(a, n) + margin)); d = ||x - y + 1e-6||_2 (torch's TripletMarginLoss) or
    1 - cosine(x, y). All inputs [B, D]; returns a scalar, computed in float32 or better.

    Example: a = p = (1, 0), n = (0, 1), cosine, margin 1.2 -> 0 - 1 + 1.2 = 0.2.
    """
    if anchor.dtype.itemsize < 4:
        anchor, positive, negative = anchor.float(), positive.float(), negative.float()
    if distance == "euclidean":
        return F.triplet_margin_loss(anchor, positive, negative, margin=margin, p=2)
    gap = F.cosine_similarity(anchor, negative) - F.cosine_similarity(anchor, positive)
    return F.relu(gap + margin).mean()
