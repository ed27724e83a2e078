"""What a run needs, from its recipe: the data set, the method, its training data and its validation."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.embedder import embed_all
from zssbir_cli.embedding.own import learnt_from
from zssbir_cli.engine.job import Job, Validate
from zssbir_cli.engine.provenance import Learnt, among
from zssbir_cli.engine.runs import read_record
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.base import Embed, Method
from zssbir_cli.methods.table import build_method, build_train_data
from zssbir_cli.models.encoder import Encoder
from zssbir_cli.models.weights import learnt_before
from zssbir_cli.names import listed
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.recipes import check_data

EMBED_BATCH = 128
log = logging.getLogger("zssbir")


@dataclass(frozen=True)
class Setup:
    """All that a run needs, built and checked before its folder is made."""

    recipe: Recipe
    prepared: PreparedSet
    precision: Precision
    start: tuple[str, ...] = ()
    """Classes that its start was trained on or selected by (`Learnt.start`)."""

    @classmethod
    def build(cls, recipe: Recipe, device: torch.device, resumed: Path | None = None) -> "Setup":
        """Choose the precision and open the data set. Raises UsageError, DataError.

        resumed: the folder of a run that is continued: `auto` keeps to its precision, whatever this machine is faster in.
        """
        asked = recipe.train.precision
        if resumed is not None and asked == "auto":
            asked = (read_record(resumed) or {}).get("precision", asked)
        prepared = open_data(recipe)
        return cls(
            recipe, prepared, Precision.choose(asked, device), start_classes(recipe, prepared, resumed)
        )

    def resolved(self, method: Method) -> "Setup":
        """The same with the mean and std that the method's encoder uses, so that the run keeps them."""
        encoder = next((m for m in method.modules() if isinstance(m, Encoder)), None)
        if encoder is None or encoder.as_contours:  # which are not normalised
            return self
        mean, std = encoder.normalisation
        model = self.recipe.model.model_copy(update={"mean": mean, "std": std})
        return replace(self, recipe=self.recipe.model_copy(update={"model": model}))

    @property
    def learnt(self) -> Learnt:
        """What the run learns from, for its checkpoints."""
        return learnt_from(self.prepared.manifest, self.start)

    def features(self, part: Part, modality: Modality, embed: Embed, most: int | None = None) -> Tensor:
        """`embed` of the images of a part (or `most`), un-augmented: float32 [N, D], complete on every rank."""
        data = self.recipe.data
        images = EvalImages(self.prepared.images(part, modality), data.size, data.sketch_crop, most)
        return embed_all(
            embed, images, batch_size=EMBED_BATCH, workers=data.workers, precision=self.precision
        )


@dataclass(frozen=True)
class TrainProbe:
    """The training images for methods that look at all of them (`methods.base.Probe`)."""

    setup: Setup

    def features(self, modality: Modality, embed: Embed, most: int | None = None) -> Tensor:
        return self.setup.features(Part.TRAIN, modality, embed, most)

    def labels(self, modality: Modality, most: int | None = None) -> Tensor:
        data, images = self.setup.recipe.data, self.setup.prepared.images(Part.TRAIN, modality)
        return torch.from_numpy(EvalImages(images, data.size, data.sketch_crop, most).labels)

    def class_names(self) -> dict[int, str]:
        return training_classes(self.setup.prepared)


def training_classes(prepared: PreparedSet) -> dict[int, str]:
    """Label -> name of the classes that the images of the `train` part are of."""
    labels = {int(c) for m in Modality for c in np.unique(prepared.images(Part.TRAIN, m).labels)}
    return {label: prepared.classes[label] for label in sorted(labels)}


def open_data(recipe: Recipe) -> PreparedSet:
    """Open the recipe's prepared data set; a missing one names the command that makes it."""
    check_data(recipe)
    prepared = PreparedSet.open(Path(recipe.data.root).expanduser())
    if not prepared.manifest.classes_of(Role.SEEN):
        raise DataError(
            f"{prepared.root}: all of its classes are unseen, so it is for evaluation only (`zssbir eval --data "
            f"{prepared.root}`); to train, prepare the pictures with --unseen N"
        )
    return prepared


def start_classes(recipe: Recipe, prepared: PreparedSet, resumed: Path | None) -> tuple[str, ...]:
    """The classes that the weights a run begins with learnt from, where they are those of another run; a warning names
    those that are unseen in the data set. Raises CheckpointError when they are not known."""
    found: tuple[str, ...] = ()
    if recipe.model.weights not in ("pretrained", "none"):
        found = learnt_before(Path(recipe.model.weights).expanduser()) or ()
    if resumed is not None:  # the file may be another one now
        found += Learnt.read((read_record(resumed) or {}).get("data") or {}).start
    unseen = among((c.name for c in prepared.manifest.classes_of(Role.UNSEEN)), found)
    if unseen and distributed.is_main():
        log.warning(
            "%s was trained on or selected by %s, which are unseen in %s: they are left out of every result",
            recipe.model.weights, listed(unseen), prepared.root,
        )  # fmt: skip
    return tuple(dict.fromkeys(found))


def validator(setup: Setup) -> Validate | None:
    """Retrieval on the held-out seen classes (part `val`); None when the data set holds out none."""
    images = {m: setup.prepared.images(Part.VAL, m) for m in Modality}
    if not setup.recipe.train.validate_every or any(len(i) == 0 for i in images.values()):
        return None

    smallest = int(np.unique(images[Modality.PHOTO].labels, return_counts=True)[1].min())
    k = next((k for k in (100, 10) if k <= smallest), 1)  # P@k cannot reach 1 where a class has fewer photos

    def validate(method: Method) -> dict[str, float]:
        vectors = [setup.features(Part.VAL, m, lambda x, m=m: method.embed(x, m)) for m in Modality]  # type: ignore[misc]
        found = evaluate(*vectors, *(images[m].labels for m in Modality), k=(k,))
        return {"val/mAP@all": found.get("mAP@all"), f"val/P@{k}": found.get(f"P@{k}")}

    return validate


def build_job(setup: Setup, *, overfit: int | None = None) -> tuple[Setup, Job]:
    """All that the loop needs; the set-up comes back with what the method's encoder settled.

    Raises UsageError when labels would choose the checkpoint of a method that learns without labels.
    """
    recipe = setup.recipe
    seed_all(recipe.train.seed)
    method = build_method(recipe)
    if recipe.train.validate_every and not method.uses_labels:
        raise UsageError(
            f"train.validate_every = {recipe.train.validate_every}: {recipe.method.name} learns without "
            "labels, and validation would choose its checkpoint by them; use --set train.validate_every=0"
        )
    if recipe.train.compile:
        compile_encoders(method)
    setup = setup.resolved(method)
    return setup, Job(
        method=method,
        data=build_train_data(recipe, setup.prepared),
        optim=recipe.optim,
        train=recipe.train,
        precision=setup.precision,
        probe=TrainProbe(setup),
        workers=recipe.data.workers,
        validate=validator(setup),
        overfit=overfit,
    )


def compile_encoders(method: Method) -> None:
    """Compile the backbones' forward passes in place; parameters keep their names."""
    for module in method.modules():
        if isinstance(module, Encoder):
            module.backbone.forward_features = torch.compile(module.backbone.forward_features)  # type: ignore[assignment, arg-type]
