"""Networks that are ready to embed queries: traced by PyTorch and kept, so that the next search need not build one.

Building a network imports timm, and torchvision with it: half of the time of a search whose gallery is embedded. A traced network
is kept only if its vectors are those of the network it was made of, to the bit.
"""

import hashlib
import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zssbir_cli import files
from zssbir_cli.compute.precision import Precision
from zssbir_cli.types import Modality

KEPT = 4
"""Networks kept, those used last."""
LARGEST = 400 << 20
"""Bytes of parameters above which a network is not kept."""
_DIGEST = 32
_JIT: Any = torch.jit  # without types


class ReadyNetwork:
    """A traced network. Takes and gives what the method it was made of does (`Embeds`)."""

    def __init__(self, traced: Any) -> None:
        self._traced = traced

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, S, S] -> unit embeddings float32 [B, D]."""
        with _JIT.optimized_execution(False):
            rows: Tensor = getattr(self._traced, modality.word)(images)
        return rows


def ready_file(weights: str, made: str, precision: str) -> Path:
    """Where the network of these weights is kept: by their sha256, all that embeddings depend on (`Embedder.made`), the
    precision that was asked for, and the versions of PyTorch and timm."""
    facts = [weights, made, precision, torch.__version__, version("timm")]
    name = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]
    return files.cache_folder() / "ready" / f"{name}.pt"


def load_ready(file: Path, device: torch.device) -> tuple[ReadyNetwork, Precision] | None:
    """The network and the precision it was made for; None where there is none, or not undamaged."""
    try:
        data = file.read_bytes()
        if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
            return None
        extra = {"precision": ""}
        with _quiet():
            traced = _JIT.load(io.BytesIO(data[_DIGEST:]), device, _extra_files=extra)
    except (OSError, RuntimeError, AttributeError):  # AttributeError: a PyTorch without torch.jit
        return None
    with suppress(OSError):
        file.touch()
    name: str | bytes = extra["precision"]
    return ReadyNetwork(traced), Precision(name if isinstance(name, str) else name.decode(), device)


def keep_ready(file: Path, method: nn.Module, size: int, precision: Precision) -> bool:
    """Keep a method in eval mode for `size`-pixel queries on a CPU; whether that was possible.

    Networks that cannot be traced, or then give other bits for any number of images, are not kept.
    """
    if precision.device.type != "cpu" or sum(p.nbytes for p in method.parameters()) > LARGEST:
        return False
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 8, 8, generator=generator)
    images = (nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1) * 255).byte()
    try:
        data = _traced(method, images[:1], precision)
        files.write_bytes(file, hashlib.sha256(data).digest() + data)
        found = load_ready(file, precision.device)
        same = found is not None and _same(method, found[0], images, precision)
    except (OSError, RuntimeError, TypeError, ValueError, AttributeError):
        same = False
    with suppress(OSError):
        if not same:
            file.unlink(missing_ok=True)
        for old in sorted(file.parent.glob("*.pt"), key=lambda f: f.stat().st_mtime)[:-KEPT]:
            old.unlink()
    return same


class _Both(nn.Module):
    """A method with one forward pass per modality."""

    def __init__(self, method: Any) -> None:
        super().__init__()
        self.method = method

    def sketch(self, images: Tensor) -> Any:
        return self.method.embed(images, Modality.SKETCH)

    def photo(self, images: Tensor) -> Any:
        return self.method.embed(images, Modality.PHOTO)


def _traced(method: nn.Module, images: Tensor, precision: Precision) -> bytes:
    out = io.BytesIO()
    with torch.inference_mode(), precision.autocast(), _quiet():
        inputs = {"sketch": images, "photo": images}
        traced = _JIT.trace_module(_Both(method).eval(), inputs, check_trace=False)
        _JIT.save(traced, out, _extra_files={"precision": precision.name})
    return out.getvalue()


def _same(method: Any, ready: ReadyNetwork, images: Tensor, precision: Precision) -> bool:
    with torch.inference_mode(), precision.autocast():
        return all(
            torch.equal(method.embed(some, modality), ready.embed(some, modality))
            for modality in Modality
            for some in (images[:1], images, images[:2, :1])
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch announces that tracing will be replaced one day, and that shapes are fixed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
