"""Devices and number formats: what `auto` means, autocast, loss scaling, TF32; the form in which networks embed."""

import platform
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from zssbir_cli.compute import distributed
from zssbir_cli.errors import UsageError

Network = TypeVar("Network", bound=nn.Module)


def choose_device(name: str = "auto") -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1` -> device.

    Under `torchrun` each rank takes the GPU of its local rank. Raises UsageError for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind == "cpu" and not index:
        return torch.device("cpu")
    if kind != "cuda" or not (index.isdecimal() or not index):
        raise UsageError(f"--device {name}: use auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise UsageError(
            f"--device {name}: this PyTorch sees no CUDA GPU; use --device cpu or install a CUDA build"
        )
    number = int(index) if index else distributed.local_rank()
    if number >= torch.cuda.device_count():
        raise UsageError(
            f"--device cuda:{number}: there are only {torch.cuda.device_count()} GPUs; lower --nproc-per-node"
        )
    return torch.device("cuda", number)


@cache
def cpu_has_fast_bf16() -> bool:
    """Whether the processor multiplies bf16 matrices faster than fp32 ones: with `amx_bf16`, AMD's with `avx512_bf16`, ARM's
    with `bf16`. Intel's without AMX have `avx512_bf16` too, and take up to 1.8 times as long with it as in fp32.

    Read from the kernel's list of processor features, not tried out: a timing that comes out either way would make the
    same run give different numbers.
    """
    if platform.machine() in ("aarch64", "arm64"):
        return "bf16" in cpu_says("Features").split()
    flags = cpu_says("flags").split()
    return "amx_bf16" in flags or ("avx512_bf16" in flags and cpu_says("vendor_id") == "AuthenticAMD")


def cpu_says(name: str) -> str:
    """What Linux says of the processor under a name, as `model name`; "" where it does not, and elsewhere."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""


def for_embedding(
    network: Network, device: torch.device, *, after: "Precision | None" = None, channels_last: bool = True
) -> Network:
    """The network in the fastest form that gives the same embeddings, changed in place: eval mode, on its device, its
    convolutions channels-last, its attention fused. All that embeds goes through here: `embed`, `eval`, `search`, `draw`,
    `export` and validation.

    after: the precision of the training that it comes out of. channels_last: False leaves tensors as they are, for a
    training that was told to do without (`train.channels_last`): its optimizer and its ranks hold them.
    """
    network.eval().to(device)
    if channels_last:
        network.to(memory_format=torch.channels_last)
    if after is not None:
        choose_attention(network, after, training=False)
    return network


def choose_attention(module: nn.Module, precision: "Precision", *, training: bool) -> None:
    """Let timm's attention blocks use explicit products when they train in bf16 on a CPU.

    There the backward pass of PyTorch's fused attention is several times slower (compare the two with
    tests/bench/bench_attention.py). Fused attention everywhere else.
    """
    if precision.device.type == "cpu" and precision.name == "bf16":
        for part in module.modules():
            if isinstance(getattr(part, "fused_attn", None), bool):
                part.fused_attn = not training  # type: ignore[assignment]


@dataclass(frozen=True)
class Precision:
    """A resolved number format on a device; weights and optimizer state stay in fp32."""

    name: str
    device: torch.device

    @classmethod
    def choose(cls, name: str, device: torch.device) -> "Precision":
        """Resolve `auto` (bf16 where the device is faster with it, else fp32) and refuse what cannot
        work."""
        cuda = device.type == "cuda"
        if name == "auto":
            fast = torch.cuda.get_device_capability(device) >= (8, 0) if cuda else cpu_has_fast_bf16()
            name = "bf16" if fast else "fp32"
        if name in ("fp16", "tf32") and not cuda:
            raise UsageError(
                f"train.precision = {name} needs a CUDA GPU; use auto, bf16 or fp32 on {device.type}"
            )
        return cls(name, device)

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products compute in."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name, torch.float32)

    def autocast(self) -> AbstractContextManager[object]:
        """Context of a forward pass. Losses that need it leave it with `torch.autocast(...,
        enabled=False)`."""
        if self.dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> "torch.amp.GradScaler":
        """Loss scaling, which only fp16 needs (otherwise it does nothing)."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")

    def apply_globally(self) -> None:
        """Set how CUDA computes fp32 products: TF32 unless `fp32` was asked for."""
        if self.device.type == "cuda":
            tf32 = self.name != "fp32"
            torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.backends.cudnn.allow_tf32 = tf32
            torch.backends.cudnn.benchmark = True
