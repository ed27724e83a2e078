"""PuXIM's losses: masked reconstruction and the triplet term. Pure functions of tensors."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor


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
