"""Weights, ready to embed, and a description of all that embeddings made with them depend on."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from zssbir_cli.compute.precision import Precision
from zssbir_cli.compute.versions import library_versions
from zssbir_cli.data.embeddings import EmbeddingInfo
from zssbir_cli.embedding.passes import embed_all, embed_batches
from zssbir_cli.embedding.ready import keep_ready, load_ready, ready_file
from zssbir_cli.embedding.weights import Embeds, RunWeights, TowerWeights, Weights
from zssbir_cli.errors import UsageError
from zssbir_cli.files import printable
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.timm_records import find_backbone
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

BATCH = 128
LEAST_COSINE = 0.9995
"""bf16 is used only while its embeddings stay this close to those of fp32."""
STEPS_VERSION = 4
"""Counts up whenever this package decodes, cleans, crops or resizes pictures in another way."""
LIBRARIES = ("torch", "torchvision", "timm", "opencv-python-headless", "pillow")


@dataclass(frozen=True)
class Embedder:
    """The weights of a run or of a frozen tower; they are loaded on first use."""

    weights: Weights
    device: torch.device
    asked: str
    """The precision that was asked for: auto, fp32, bf16, ..."""
    workers: int
    batch: int = BATCH

    @classmethod
    def open(
        cls,
        run: Path,
        device: torch.device,
        *,
        which: str = "best",
        precision: str = "auto",
        workers: int | None = None,
        batch: int = BATCH,
    ) -> "Embedder":
        """Find a run's checkpoint. Errors: CheckpointError, UsageError."""
        return cls.of(RunWeights.open(run, which), device, precision=precision, workers=workers, batch=batch)

    @classmethod
    def of_model(cls, name: str, device: torch.device, **how: Any) -> "Embedder":
        """Find a frozen tower (`models.towers.find_tower`); `how` as in `of`. Errors: UsageError, CheckpointError."""
        return cls.of(TowerWeights.find(name), device, **how)

    @classmethod
    def of(
        cls,
        weights: Weights,
        device: torch.device,
        *,
        precision: str = "auto",
        workers: int | None = None,
        batch: int = BATCH,
    ) -> "Embedder":
        """Embed with these weights. Errors: UsageError."""
        Precision.choose(precision, device)
        return cls(weights, device, precision, weights.data.workers if workers is None else workers, batch)

    @property
    def size(self) -> int:
        """Side of the network input, pixels."""
        return self.weights.data.size

    @property
    def sketch_crop(self) -> bool:
        """Whether drawings are cropped to their ink."""
        return self.weights.data.sketch_crop

    @cached_property
    def _loaded(self) -> tuple[Embeds, Precision]:
        if self.device.type == "cpu" and (ready := load_ready(self._ready_file, self.device)):
            return ready
        method = self.weights.load(self.device)
        chosen = Precision.choose(self.asked, self.device)
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
        """Whether embeddings were made with these weights in this way, and in at least the precision asked for."""
        precise = found.precision in ("fp32", Precision.choose(self.asked, self.device).name)
        return precise and (found.checkpoint, found.made) == (self.weights.sha256, self.made)

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
        return ready_file(self.weights.sha256, self.made, self.asked)

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
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1)
    images = (smooth * 255).to(torch.uint8).to(precision.device)
    exact = method.embed(images, Modality.PHOTO).float()
    with precision.autocast():
        rounded = method.embed(images, Modality.PHOTO).float()
    cosine = torch.nn.functional.cosine_similarity(exact, rounded, dim=1)
    return bool(torch.isfinite(cosine).all() and cosine.min() >= LEAST_COSINE)
