"""Weights, ready to embed, a description of all that their embeddings depend on, and the pass over many images."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.compute.versions import library_versions
from zssbir_cli.data.embeddings import EmbeddingInfo
from zssbir_cli.embedding.ready import keep_ready, load_ready, ready_file
from zssbir_cli.embedding.weights import Embeds, Weights
from zssbir_cli.engine.loader import Stream
from zssbir_cli.errors import UsageError
from zssbir_cli.files import printable
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.timm_records import find_backbone
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

BATCH = 128
LEAST_COSINE = 0.9995
"""bf16 is used only while its embeddings stay this close to those of fp32."""
STEPS_VERSION = 5
"""Counts up whenever this package decodes, cleans, crops or resizes pictures in another way."""
LIBRARIES = ("torch", "torchvision", "timm", "opencv-python-headless", "pillow")


class Embedder:
    """The weights of a run or of a frozen tower; they are loaded on first use."""

    def __init__(
        self,
        weights: Weights,
        device: torch.device,
        *,
        precision: str = "auto",
        workers: int | None = None,
        batch: int = BATCH,
    ) -> None:
        """workers: image-loading processes (default: the recipe's). Errors: UsageError."""
        self.weights, self.device, self.batch = weights, device, batch
        self.asked = Precision.choose(precision, device)
        """What was asked for; the weights may bear fp32 only."""
        self.enough = {"fp32", self.asked.name, *(["bf16"] if precision == "auto" else [])}
        """Precisions in which embeddings are kept: for `auto`, a machine that is faster in bf16 may have made them."""
        self.workers = weights.data.workers if workers is None else workers
        self.size, self.sketch_crop = weights.data.size, weights.data.sketch_crop

    @cached_property
    def _loaded(self) -> tuple[Embeds, Precision]:
        if self.device.type == "cpu" and (ready := load_ready(self._ready_file, self.device)):
            return ready
        method = self.weights.load(self.device)
        chosen = self.asked
        chosen.apply_globally()
        if chosen.name == "bf16" and not _agree(method, chosen, self.size):
            chosen = Precision.choose("fp32", self.device)
        return method, chosen

    @property
    def method(self) -> Embeds:
        """The method in eval mode, on the device. Errors: CheckpointError."""
        return self._loaded[0]

    @property
    def precision(self) -> Precision:
        """What the forward pass computes in: bf16 only where the device is fast in it and the weights bear it."""
        return self._loaded[1]

    @cached_property
    def made(self) -> str:
        """What embeddings depend on besides weights, images and precision, as JSON; equal texts: equal embeddings."""
        model, data = self.weights.model, self.weights.data
        defaults = find_backbone(model.backbone)
        facts = {
            "steps": STEPS_VERSION,
            "size": data.size,
            "sketch_crop": data.sketch_crop,
            "mean": model.mean or (defaults.mean if defaults else None),
            "std": model.std or (defaults.std if defaults else None),
            "model": model.model_dump(mode="json", exclude={"weights", "mean", "std"}),
            "method": self.weights.method,
            "versions": library_versions(*LIBRARIES),
        }
        return json.dumps(facts, sort_keys=True)

    def accepts(self, found: EmbeddingInfo) -> bool:
        """Whether embeddings were made with these weights in this way, and in a precision that is enough."""
        return found.precision in self.enough and (found.checkpoint, found.made) == (
            self.weights.sha256,
            self.made,
        )

    def info(self, **about: object) -> EmbeddingInfo:
        """What the embeddings file says of this model, completed by `about` the images."""
        about = {"precision": about.get("precision") or self.precision.name, **about}
        return EmbeddingInfo(
            checkpoint=self.weights.sha256,
            method=self.weights.method["name"],
            size=self.size,
            made=self.made,
            **{**self.weights.facts, **about},  # type: ignore[arg-type]
        )

    def embed(self, images: Dataset[Tensor], modality: Modality, progress: Progress = silent) -> Tensor:
        """Embeddings float32 [N, D] of a map-style data set of uint8 images, complete on every rank."""
        return embed_all(
            lambda x: self.method.embed(x, modality), images,
            batch_size=self.batch, workers=self.workers, precision=self.precision, progress=progress,
        )  # fmt: skip

    def embed_batch(self, images: Tensor, modality: Modality) -> Tensor:
        """Embeddings float32 [N, D] of uint8 images [N, C, size, size], on the CPU."""
        with torch.inference_mode(), self.precision.autocast():
            return self.method.embed(images.to(self.precision.device), modality).float().cpu()

    @property
    def _ready_file(self) -> Path:
        return ready_file(self.weights.sha256, self.made, self.asked.name)

    def keep_ready(self) -> None:
        """Keep the network, where it is not kept yet, for the queries of later searches (`ready.keep_ready`)."""
        method, precision = self._loaded
        if isinstance(method, nn.Module):
            keep_ready(self._ready_file, method, self.size, precision)

    @cached_property
    def _texts(self) -> TextEncoder:
        return self.weights.load_text()

    def embed_text(self, text: str) -> Tensor:
        """The unit embedding of a text, float32 [1, D], in the space of the images.

        Errors: UsageError (no text side, or of other dimensions than the images), CheckpointError.
        """
        row = functional.normalize(self._texts([printable(text)]).float(), dim=1)
        images = torch.zeros(1, 3, self.size, self.size, dtype=torch.uint8)
        width = self.embed_batch(images, Modality.PHOTO).shape[1]
        if row.shape[1] != width:
            raise UsageError(
                f"text: {self.weights.label} embeds photos in {width} dimensions and texts in {row.shape[1]}; keep the "
                "projection (model.options: {num_classes: " + str(row.shape[1]) + "})"
            )
        return row

    def batches(
        self, images: Dataset[Tensor], modality: Modality, batches: Sequence[Sequence[int]]
    ) -> Iterator[Tensor]:
        """Embeddings float32 [len(batch), D] of each batch of image numbers, on this rank alone."""
        return embed_batches(
            lambda x: self.method.embed(x, modality), images, batches,
            workers=self.workers, precision=self.precision,
        )  # fmt: skip


@torch.inference_mode()
def _agree(method: Embeds, precision: Precision, size: int) -> bool:
    """Whether embeddings of a few structured pictures in `precision` and in fp32 agree to `LEAST_COSINE`."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 8, 8, generator=generator)
    smooth = functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    images = (smooth * 255).to(torch.uint8).to(precision.device)
    exact = method.embed(images, Modality.PHOTO).float()
    with precision.autocast():
        rounded = method.embed(images, Modality.PHOTO).float()
    cosine = functional.cosine_similarity(exact, rounded, dim=1)
    return bool(torch.isfinite(cosine).all() and cosine.min() >= LEAST_COSINE)


def embed_all(
    embed: Callable[[Tensor], Tensor],
    images: Dataset[Tensor],
    *,
    batch_size: int,
    workers: int,
    precision: Precision,
    progress: Progress = silent,
) -> Tensor:
    """Apply `embed` (images [B, C, H, W] on the device -> [B, D]) to every item of a map-style data set of tensors.

    Returns float32 [N, D] on the CPU, in data-set order. Under several ranks each embeds a contiguous share,
    and all of them return the whole: complete, without duplicates, the same bits everywhere. `progress` is
    told the number of images done after each batch. Raises the data set's DataError.
    """
    total = len(images)  # type: ignore[arg-type]
    world, rank = distributed.world_size(), distributed.rank()
    bounds = [total * r // world for r in range(world + 1)]
    share = range(bounds[rank], bounds[rank + 1])
    batches = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    parts: list[Tensor] = []
    progress("embedding", 0, total)
    for rows in embed_batches(embed, images, batches, workers=workers, precision=precision):
        parts.append(rows)
        progress("embedding", min(total, len(parts) * batch_size * world), total)
    local = torch.cat(parts) if parts else torch.empty(0, 0, device=precision.device)
    return _all_rows(local, bounds).cpu()


def embed_batches(
    embed: Callable[[Tensor], Tensor],
    images: Dataset[Tensor],
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    precision: Precision,
) -> Iterator[Tensor]:
    """Apply `embed` to batches of item numbers, one after the other; float32 [len(batch), D] on the device.

    Every rank embeds the batches that it is given. Raises the data set's DataError.
    """
    pin = precision.device.type == "cuda"
    stream = Stream(images, [list(b) for b in batches], workers=min(workers, len(batches)), pin=pin)
    with closing(stream):
        for batch in stream:
            with torch.inference_mode(), precision.autocast():
                rows = embed(batch.to(precision.device, non_blocking=True)).float()
            yield rows


def _all_rows(local: Tensor, bounds: list[int]) -> Tensor:
    """Concatenate the ranks' rows, `bounds[r + 1] - bounds[r]` of rank r."""
    if distributed.world_size() == 1:
        return local
    counts = [b - a for a, b in pairwise(bounds)]
    width = int(distributed.all_max_(torch.tensor([local.shape[1]], device=local.device)).item())
    padded = local.new_zeros(max(counts), width)
    if len(local):
        padded[: len(local)] = local
    parts = distributed.gather(padded).split(max(counts))  # type: ignore[no-untyped-call]
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
