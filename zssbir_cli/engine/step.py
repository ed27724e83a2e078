"""One optimizer step: batches to the device, forward, backward, clipping, update; its learning rate and random numbers."""

import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zssbir_cli.compute import distributed
from zssbir_cli.compute.distributed import share_statistics
from zssbir_cli.compute.precision import Precision, choose_attention, for_embedding
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.engine.averages import Blend, Ema
from zssbir_cli.engine.monitor import Monitor
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Batch, Method, ParamGroup, Position
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig


def build_optimizer(groups: Sequence[ParamGroup], config: OptimConfig) -> torch.optim.Optimizer:
    """Adam, AdamW or SGD, fused into one kernel.

    With adamw, biases and norms (tensors of at most one dimension) are not decayed. Each group keeps its `lr_scale` for
    `set_lr`. Raises UsageError when nothing is trainable.
    """
    split: list[dict[str, object]] = []
    spare = config.name == "adamw" and config.weight_decay > 0
    for group in groups:
        params = [p for p in group["params"] if p.requires_grad]
        matrices = [p for p in params if p.ndim > 1 or not spare]
        vectors = [p for p in params if p.ndim <= 1 and spare]
        for members, decay in ((matrices, config.weight_decay), (vectors, 0.0)):
            if members:
                split.append({"params": members, "weight_decay": decay, "lr_scale": group["lr_scale"]})
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


NextBatch = Callable[[int], Batch]
"""Number of the batch within the step -> this rank's share of it, on the CPU."""
Phase = Callable[[str], AbstractContextManager[object]]
"""Name of a part of a step (data, copy, forward, backward, optimizer) -> context in which it runs."""


class Stepper:
    """The method on its device with all that changes in a step: optimizer, loss scale, average, monitor."""

    def __init__(self, method: Method, optim: OptimConfig, train: TrainConfig, precision: Precision) -> None:
        self.method, self.optim, self.precision, self.seed = method, optim, precision, train.seed
        precision.apply_globally()
        seed_all(train.seed)
        self.channels_last = train.channels_last
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        method.to(precision.device).to(memory_format=layout)
        self.optimizer = build_optimizer(method.param_groups(), optim)
        self.params = trainable(self.optimizer)
        self.scaler = precision.scaler()
        self.ema = Ema(method, train.ema) if train.ema else None
        self.blend = Blend(method) if train.blend != 1.0 else None
        self.monitor = Monitor(precision.device)
        self.phase: Phase = lambda _: nullcontext()
        self.model: nn.Module = method

    def train_mode(self) -> None:
        """Make the method ready for training steps (teachers and frozen statistics are the method's care)."""
        self.method.train()
        choose_attention(self.method, self.precision, training=True)

    def eval_mode(self) -> None:
        """Make the method ready for embedding."""
        for_embedding(
            self.method, self.precision.device, after=self.precision, channels_last=self.channels_last
        )

    def wrap(self) -> None:
        """Under several ranks, put DDP around the method; `forward` is the only call that goes through it."""
        self.train_mode()
        share_statistics(self.method)
        if distributed.world_size() > 1:
            devices = [self.precision.device] if self.precision.device.type == "cuda" else None
            with warnings.catch_warnings():  # its successor `forward_sync_buffers` is not in older versions
                warnings.filterwarnings("ignore", message=".*broadcast_buffers")
                self.model = DistributedDataParallel(
                    self.method, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
                )

    def step(self, next_batch: NextBatch, count: int, progress: Position, stop: bool) -> bool:
        """One optimizer step over `count` batches. `stop`: this rank was asked to stop.

        Returns whether all ranks stop after this step. Raises DivergedError.
        """
        seed_all(self.seed, progress.step, distributed.rank())
        set_lr(self.optimizer, lr_at(progress.step, progress.total_steps, self.optim))
        self.method.before_step(progress)
        parts = [self._forward_backward(next_batch(i), count, i + 1 == count) for i in range(count)]
        logs = parts[0]
        if count > 1:
            logs = {name: torch.stack([part[name] for part in parts]).mean(0) for name in logs}
        flags = self.monitor.flags(logs["loss"], stop)
        with self.phase("optimizer"):
            skipped = self._update(flags[0], logs)
            if self.ema is not None:
                self.ema.update(skipped)
            self.method.after_step(progress, skipped)
        return self.monitor.add(progress.step, logs, flags)

    def _forward_backward(self, batch: Batch, count: int, last: bool) -> dict[str, Tensor]:
        """Add one batch's share of the gradient; ranks exchange gradients at the last batch only."""
        with self.phase("copy"):
            batch = {k: v.to(self.precision.device, non_blocking=True) for k, v in batch.items()}
        wait = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if wait else nullcontext():  # type: ignore[operator]
            with self.phase("forward"), self.precision.autocast():
                output = self.model(batch)
            with self.phase("backward"):
                self.scaler.scale(output.loss / count if count > 1 else output.loss).backward()
        return {**output.logs, "loss": output.loss.detach()}

    def _update(self, skipped: Tensor, logs: dict[str, Tensor]) -> Tensor:
        """Clip and step; a step whose loss is not finite changes nothing, without the host looking.

        Returns whether the step was skipped (1.0 or 0.0, on the device): fp16 also skips gradients that overflow.
        """
        clip = self.optim.clip_norm
        if clip is not None or self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
            if clip is not None:
                norm = logs["grad_norm"] = nn.utils.clip_grad_norm_(self.params, clip, foreach=True)
            else:
                norm = nn.utils.get_total_norm([p.grad for p in self.params if p.grad is not None])
        if self.scaler.is_enabled():
            skipped = torch.maximum(skipped, (~torch.isfinite(norm)).float())
        else:
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return skipped
