"""Batch norm over the global batch, when several ranks train layers that collect their statistics."""

from typing import Any

import torch
from torch import Tensor, nn

from zssbir_cli.compute.distributed import gather, world_size

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""PyTorch's batch-norm layers (timm's derive from them)."""


def is_fixed(norm: nn.Module) -> bool:
    """Whether a batch norm normalises by its stored statistics, not by those of the batch."""
    return not norm.training and "shared_batch" not in norm.__dict__


def share_statistics(module: nn.Module) -> None:
    """Make every batch norm that is collecting statistics use those of all ranks, forward and backward, so that
    several ranks are one process. Any device, any layer derived from PyTorch's (timm's with an activation too),
    where `nn.SyncBatchNorm` needs GPUs and its own layers. Nothing to do for one process; call it once.
    """
    for part in module.modules() if world_size() > 1 else ():
        if isinstance(part, BATCH_NORMS) and part.training and part.track_running_stats:
            part.register_forward_pre_hook(_before)
            part.register_forward_hook(_after, always_call=True)


def _global_moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of x [B, C, ...] over all ranks, [1, C, 1 ...]."""
    over = [0, *range(2, x.ndim)]
    mean = gather(x.mean(over, keepdim=True)).mean(0, keepdim=True)
    variance = gather((x - mean).square().mean(over, keepdim=True)).mean(0, keepdim=True)
    return mean, variance


def _before(module: Any, inputs: tuple[Tensor]) -> Tensor | None:
    """Update the running statistics from the global batch, and shift and scale the input so that the layer, with
    these fixed, normalises by the batch. (New tensors: the backward pass of an earlier call needs the old ones.)"""
    if not module.training:
        return None
    x = inputs[0] if inputs[0].dtype.itemsize >= 4 else inputs[0].float()
    mean, variance = _global_moments(x)
    with torch.no_grad():
        module.num_batches_tracked += 1
        share = module.momentum if module.momentum is not None else 1 / float(module.num_batches_tracked)
        count = world_size() * x.numel() // x.shape[1]
        unbiased = variance.flatten() * (count / max(1, count - 1))
        module.running_mean = module.running_mean.lerp(mean.flatten().to(module.running_mean), share)
        module.running_var = module.running_var.lerp(unbiased.to(module.running_var), share)
    module.eval()
    module.shared_batch = True
    wide = (module.running_var.to(x) + module.eps).sqrt().view_as(mean)
    out = (x - mean) * (variance + module.eps).rsqrt() * wide + module.running_mean.to(x).view_as(mean)
    shifted: Tensor = out.to(inputs[0].dtype)
    return shifted


def _after(module: Any, inputs: tuple[Tensor], output: Tensor) -> None:
    """Back to training mode."""
    if module.__dict__.pop("shared_batch", False):
        module.train()
