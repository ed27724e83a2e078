"""Several processes under `torchrun`: start and end, rank-ordered gathering, one message when a rank dies.

Without `torchrun` every function works as for one process and costs nothing.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from zssbir_cli.errors import UsageError, ZssbirError

_TIMEOUT = timedelta(minutes=30)  # the longest that ranks may wait for each other (rank 0 writes, validates)
_stores: list[Store] = []
T = TypeVar("T")


class RankLost(ZssbirError):
    """Another process of the run ended; training cannot continue without it (exit code 1)."""

    exit_code = 1


def launched() -> bool:
    """Whether the process was started by `torchrun` (or alike) as one of several."""
    return "RANK" in os.environ and _variable("WORLD_SIZE", 1) > 1


def _variable(name: str, otherwise: int) -> int:
    """A number that a launcher leaves in the environment. Errors: UsageError."""
    text = os.environ.get(name, str(otherwise))
    if not text.strip().isdecimal():
        raise UsageError(
            f"environment variable {name}={text!r}: a launcher such as torchrun sets a number; unset it"
        )
    return int(text)


def rank() -> int:
    """Index of this process, 0 .. world_size() - 1."""
    return dist.get_rank() if dist.is_initialized() else _variable("RANK", 0) if launched() else 0


def local_rank() -> int:
    """Index of this process on its machine: which GPU it uses."""
    return _variable("LOCAL_RANK", 0) if launched() else 0


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def session(device: torch.device) -> Iterator[None]:
    """Join the processes that `torchrun` started (nothing to do for one process) and leave at the end.

    gloo carries CPU tensors, NCCL those on GPUs. When ranks fail, only the first one speaks: its own error,
    or `RankLost` when it lost a peer that died without a word; the others exit with code 1, silently.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.set_device(device)
    try:
        store, my_rank, world = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
    except ValueError as error:
        raise UsageError(
            f"the environment says that this is process {rank()} of {os.environ['WORLD_SIZE']} (RANK, WORLD_SIZE), but not where "
            f"the others are ({error}): start it with `torchrun`, or unset both"
        ) from error
    _stores.append(PrefixStore("zssbir", store))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        store=PrefixStore("group", store),
        rank=my_rank,
        world_size=world,
        timeout=_TIMEOUT,
        device_id=device if cuda else None,
    )
    try:
        yield
        dist.barrier()
        dist.destroy_process_group()
    except Exception as error:
        if not _speaks_first():
            raise SystemExit(getattr(error, "exit_code", 1)) from error
        if _is_lost_peer(error):
            raise RankLost(
                f"rank {my_rank} of {world} lost another rank, which ended without a message (killed, or out of "
                "memory?); the last checkpoint is intact: start the same torchrun line again with --resume"
            ) from error
        raise


def _speaks_first() -> bool:
    """Whether no other rank has reported a failure yet (the store outlives rank 0: torchrun's agent holds
    it)."""
    try:
        return bool(_stores[-1].add("failed", 1) == 1)
    except RuntimeError:
        return True


def _is_lost_peer(error: Exception) -> bool:
    text = str(error).lower()
    words = (
        "connection closed by peer", "connection reset", "gloo", "nccl", "timed out", "broken pipe", "socket",
    )  # fmt: skip
    return isinstance(error, RuntimeError) and any(word in text for word in words)


def local_rows(total: int) -> slice:
    """This rank's rows of a global batch of `total` items: contiguous, in rank order.

    Raises UsageError when `total` is not a multiple of the number of ranks.
    """
    world = world_size()
    if total % world:
        raise UsageError(
            f"train.batch_size = {total} is not a multiple of the {world} ranks: choose "
            f"--set train.batch_size={total // world * world or world} or {(total // world + 1) * world}"
        )
    share = total // world
    return slice(rank() * share, (rank() + 1) * share)


class _Gather(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        total = grads[0].contiguous()
        dist.all_reduce(total)
        share = total.shape[0] // world_size()
        return total[rank() * share : (rank() + 1) * share]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in rank order, which is the order of the global batch: [B, ...] -> [W * B, ...].

    Differentiable: the gradient of the local rows is the sum over ranks of their gradients, so that DDP's
    mean over ranks is the gradient of the mean of the ranks' losses, whether each rank computes the whole
    batch's loss or its own rows' share. Every rank must hold the same number of rows.
    """
    if world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)
    return gathered


def all_mean(x: Tensor) -> Tensor:
    """Mean over ranks, detached."""
    if world_size() == 1:
        return x.detach()
    total = x.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def all_max_(x: Tensor) -> Tensor:
    """Elementwise maximum over ranks, in place; on a GPU the host does not wait for it."""
    if world_size() > 1:
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


def barrier() -> None:
    """Wait for all ranks."""
    if world_size() > 1:
        dist.barrier()


def from_main(value: T) -> T:
    """Rank 0's `value` on every rank (small Python values)."""
    if world_size() == 1:
        return value
    box: list[T] = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


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
