"""Optimizers and the learning-rate schedule, a pure function of the step."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import ParamGroup
from zssbir_cli.recipe.schema import OptimConfig


def build_optimizer(groups: Sequence[ParamGroup], config: OptimConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD, fused into one kernel.

    With adamw, biases and norms (tensors of at most one dimension) are not decayed, unless their group sets
    its own `weight_decay`. Each group keeps its `lr_scale` for `set_lr`. Raises UsageError when nothing is
    trainable.
    """
    split: list[dict[str, object]] = []
    for group in groups:
        params = [p for p in group["params"] if p.requires_grad]
        decay = group.get("weight_decay", config.weight_decay)
        spare = config.name == "adamw" and "weight_decay" not in group and decay > 0
        matrices = [p for p in params if p.ndim > 1 or not spare]
        vectors = [p for p in params if p.ndim <= 1 and spare]
        for members, weight_decay in ((matrices, decay), (vectors, 0.0)):
            if members:
                scale = group.get("lr_scale", 1.0)
                split.append({"params": members, "weight_decay": weight_decay, "lr_scale": scale})
    if not split:
        raise UsageError("the method has no trainable parameters: unfreeze a part of the model in the recipe")
    if config.name == "sgd":
        sgd = torch.optim.SGD(split, lr=config.lr, momentum=config.momentum, fused=True)
        for parameter in trainable(sgd) if config.momentum else ():
            # the fused kernel leaves this uninitialised when the very first step is skipped
            sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return sgd
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(split, lr=config.lr, fused=True)


def lr_at(step: int, total_steps: int, config: OptimConfig) -> float:
    """Learning rate of optimizer step `step` (from 0): linear warm-up, then constant or half a cosine down to
    `final_lr`."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    return config.final_lr + (config.lr - config.final_lr) * (1 + math.cos(math.pi * min(1.0, done))) / 2


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set every group's learning rate to `lr` times its `lr_scale`."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def trainable(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """All parameters that the optimizer updates."""
    return [p for group in optimizer.param_groups for p in group["params"]]
