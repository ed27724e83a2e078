"""`zssbir embed`: embeddings of a prepared set's parts, or of any folder of photos, with a run's weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Subset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.batchnorm import BATCH_NORMS
from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.data.embeddings import EmbeddingInfo, Embeddings, read_embeddings, write_embeddings
from zssbir_cli.data.prepared import Choice, PreparedSet
from zssbir_cli.embedding.load import load_run
from zssbir_cli.embedding.own import data_of_run
from zssbir_cli.embedding.passes import embed_all
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.base import Method
from zssbir_cli.progress import Progress, silent, within
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part

BATCH = 128
LEAST_COSINE = 0.9995
"""bf16 weights are used only while their embeddings stay this close to those of fp32."""


@dataclass(frozen=True)
class Embedder:
    """A run's weights, ready to embed: `method` (bf16 weights where that is fast and safe), device, precision."""

    run: Path
    recipe: Recipe
    method: Method
    checkpoint: CheckpointInfo
    precision: Precision
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
    ) -> "Embedder":
        """Load the weights of a run. Errors: CheckpointError, UsageError."""
        recipe, method, info = load_run(run, device, which)
        chosen = Precision.choose(precision, device)
        chosen.apply_globally()
        if chosen.name == "bf16":
            fast = with_bf16_weights(method)
            chosen, method = (chosen, fast) if _agree(method, fast, chosen, recipe.data.size) else (
                Precision.choose("fp32", device), method
            )  # fmt: skip
        return cls(run, recipe, method, info, chosen, recipe.data.workers if workers is None else workers)

    def info(self, **about: object) -> EmbeddingInfo:
        """What the embeddings file says of this model, completed by `about` the images."""
        return EmbeddingInfo(
            checkpoint=self.checkpoint.sha256,
            run=str(self.run.resolve()),
            recipe=self.recipe.name,
            method=self.recipe.method.name,
            size=self.recipe.data.size,
            precision=self.precision.name,
            **about,  # type: ignore[arg-type]
        )

    def embed(self, images: Dataset[Tensor], modality: Modality, progress: Progress = silent) -> Tensor:
        """Embeddings float32 [N, D] of a map-style data set of uint8 images, complete on every rank."""
        return embed_all(
            lambda x: self.method.embed(x, modality), images,
            batch_size=self.batch, workers=self.workers, precision=self.precision, progress=progress,
        )  # fmt: skip


def with_bf16_weights(method: Method) -> Method:
    """A copy whose weights are bf16 (batch norm and buffers stay fp32): no cast in every product, as autocast
    does it."""
    fast = copy.deepcopy(method)
    for module in fast.modules():
        if isinstance(module, BATCH_NORMS):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)
    return fast


@torch.inference_mode()
def _agree(method: Method, fast: Method, precision: Precision, size: int) -> bool:
    """Whether bf16 and fp32 embeddings of a few structured pictures agree to `LEAST_COSINE`."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 8, 8, generator=generator)
    images = (nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 1) * 255).to(
        torch.uint8
    )
    images = images.to(precision.device)
    exact = method.embed(images, Modality.PHOTO).float()
    with precision.autocast():
        rounded = fast.embed(images, Modality.PHOTO).float()
    cosine = torch.nn.functional.cosine_similarity(exact, rounded, dim=1)
    return bool(torch.isfinite(cosine).all() and cosine.min() >= LEAST_COSINE)


def embeddings_path(run: Path, which: str, prepared: PreparedSet, part: Part, selection: str = "") -> Path:
    """Where a run keeps the embeddings of a part of a data set, or of a selection of it."""
    tail = f"{part}-{selection}" if selection else str(part)
    return run / "embeddings" / f"{which}-{prepared.manifest.name}-{prepared.identity[:8]}-{tail}.h5"


def is_fresh(found: Embeddings, checkpoint: str, prepared: PreparedSet, precision: str = "auto") -> bool:
    """Whether embeddings belong to these weights and this data set, and are not bf16 where fp32 is asked for."""
    exact = precision != "fp32" or found.info.precision == "fp32"
    return exact and found.info.checkpoint == checkpoint and found.info.data_identity == prepared.identity


def embed_part(
    embedder: Embedder, prepared: PreparedSet, part: Part, path: Path, progress: Progress = silent
) -> Embeddings:
    """Embed the sketches and photos of one part of a prepared set into `path`. DataError when it is empty."""
    whole = [Choice(part, m, np.arange(len(prepared.images(part, m)), dtype=np.int64)) for m in Modality]
    return _embed_choices(embedder, prepared, whole, path, progress)


def embed_choice(
    embedder: Embedder, prepared: PreparedSet, choice: Choice, path: Path, progress: Progress = silent
) -> Embeddings:
    """Embed some images of a part into `path`."""
    return _embed_choices(embedder, prepared, [choice], path, progress)


def _embed_choices(
    embedder: Embedder,
    prepared: PreparedSet,
    choices: Sequence[Choice],
    path: Path,
    progress: Progress,
) -> Embeddings:
    data, manifest = embedder.recipe.data, prepared.manifest
    rows, labels, kinds, sources = [], [], [], []
    for choice in choices:
        images, total = prepared.images(choice.part, choice.modality), len(choice.index)
        if not total:
            continue
        label = f"embedding {manifest.name} {choice.part} {choice.modality.name.lower()}"
        shown = within(progress, label, total)
        chosen = Subset(EvalImages(images, data.size, data.sketch_crop), choice.index.tolist())
        rows.append(embedder.embed(chosen, choice.modality, shown).numpy())
        labels.append(images.labels[choice.index])
        kinds.append(np.full(total, int(choice.modality), np.uint8))
        sources += [images.sources[i] for i in choice.index]
    if not rows:
        raise DataError(f"{prepared.root}: the part {choices[0].part} is empty")
    info = embedder.info(
        data_name=manifest.name, data_identity=prepared.identity, data_root=str(prepared.root.resolve()),
        split=manifest.split, part=str(choices[0].part), classes=tuple(prepared.classes),
    )  # fmt: skip
    if distributed.is_main():
        write_embeddings(path, iter(rows), np.concatenate(labels), np.concatenate(kinds), sources, info)
    distributed.barrier()
    return read_embeddings(path)


@dataclass(frozen=True)
class Request:
    """Which weights, and how to run them."""

    run: Path
    which: str = "best"
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    batch: int = BATCH

    def open(self, device: torch.device) -> Embedder:
        """Load the weights."""
        found = Embedder.open(
            self.run, device, which=self.which, precision=self.precision, workers=self.workers
        )
        return replace(found, batch=self.batch)


def run_parts(
    request: Request,
    data: Path | None,
    parts: Sequence[str],
    *,
    force: bool,
    progress: Progress = silent,
) -> list[Path]:
    """Embed parts of a prepared set (default: the run's own, all parts but train); fresh files are kept.

    Errors: UsageError for an unknown part; DataError, CheckpointError.
    """
    device = choose_device(request.device)
    unknown = [p for p in parts if p not in list(Part)]
    if unknown:
        raise UsageError(f"--part {unknown[0]}: one of {', '.join(Part)}")
    with distributed.session(device):
        embedder = request.open(device)
        prepared = data_of_run(request.run, embedder.checkpoint, embedder.recipe, data).prepared
        have = {part for part, _ in prepared.manifest.counts}
        chosen = [Part(p) for p in parts] or [p for p in (Part.TEST, Part.VAL, Part.HOLDOUT) if p in have]
        paths = []
        for part in chosen:
            path = embeddings_path(request.run, embedder.checkpoint.which, prepared, part)
            if force or not _is_done(path, embedder, prepared, request.precision):
                embed_part(embedder, prepared, part, path, progress)
            paths.append(path)
    return paths


def _is_done(path: Path, embedder: Embedder, prepared: PreparedSet, precision: str) -> bool:
    try:
        found = read_embeddings(path) if path.exists() else None
    except DataError:
        found = None
    fresh = found is not None and is_fresh(found, embedder.checkpoint.sha256, prepared, precision)
    return bool(distributed.from_main(fresh))
