"""Which weights embed: those of a run's checkpoint or of a frozen tower, behind one interface; opening a run."""

import hashlib
import os
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from pydantic import ValidationError
from torch import Tensor

from zssbir_cli.compute.precision import for_embedding
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.engine.resume import what_differs
from zssbir_cli.engine.runs import any_checkpoint, find_checkpoint, find_run
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import cache_folder, existing_parent
from zssbir_cli.methods.table import build_method
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.known import TOWERS
from zssbir_cli.models.text_tower import check_text_side, holds_texts, load_text_side, text_is_here
from zssbir_cli.models.towers import TowerSpec, cached_tower, find_tower
from zssbir_cli.names import file_part
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.recipe.schema import DataConfig, ModelConfig, Recipe
from zssbir_cli.types import Modality

if TYPE_CHECKING:
    from zssbir_cli.methods.base import Method


def load_run(run: Path, device: torch.device, which: str = "best") -> "tuple[Recipe, Method, CheckpointInfo]":
    """The recipe of a run and its method in eval mode, with the weights of a checkpoint (`find_checkpoint`).

    `CheckpointInfo.which` says which one was taken, `note` what the user should know of that. Raises
    CheckpointError when there is no such checkpoint, it is damaged, or training replaces it meanwhile.
    """
    recipe, info = open_checkpoint(run, which)
    method = build_method(recipe, load_weights=False)
    own = method.retrieval_state()
    weights = {k: v for k, v in checkpoint.read_weights(info.path).items() if k in own}
    if checkpoint.inspect(info.path, verify=False).sha256 != info.sha256:
        raise _replaced(info)
    checkpoint.load_into(method, weights, info.path, needed=set(own))
    return recipe, method.to(device).eval(), info


def _replaced(info: CheckpointInfo) -> CheckpointError:
    return CheckpointError(f"{info.path}: training has replaced these weights; run the same command again")


def open_checkpoint(run: Path, which: str = "best", *, verify: bool = True) -> tuple[Recipe, CheckpointInfo]:
    """The recipe and the facts of a checkpoint, without its weights. Raises CheckpointError."""
    chosen = find_checkpoint(run, which)
    info = checkpoint.inspect(chosen.path, verify=verify)
    recipe, note = recipe_of(run, info)
    return recipe, replace(info, note="; ".join(n for n in (chosen.note, note) if n))


def recipe_of(run: Path, info: CheckpointInfo) -> tuple[Recipe, str]:
    """The recipe that the checkpoint was trained with, and a note if the run's recipe.yaml says otherwise.

    Only where the data set lies, and the like, is taken from recipe.yaml. Raises CheckpointError.
    """
    file = run / "recipe.yaml"
    written: Recipe | None = None
    with suppress(UsageError):
        written = load_recipe(file)
    try:
        trained = Recipe.model_validate(info.recipe)
    except ValidationError:
        if written is None:
            raise CheckpointError(
                f"{info.path}: its recipe is from an incompatible zssbir version, and {file} cannot be read"
            ) from None
        return written, f"{info.path}: its recipe is from another zssbir version: {file} is used instead"
    if written is None:
        return trained, f"{file} cannot be read: the checkpoint's own recipe is used"
    edited = what_differs(info, written.model_dump(mode="json"))
    here = {"root": written.data.root, "workers": written.data.workers}
    recipe = trained.model_copy(update={"data": trained.data.model_copy(update=here)})
    if not edited:
        return recipe, ""
    return (
        recipe,
        f"{file} was changed after training ({'; '.join(map(str, edited[:3]))}): the checkpoint's values are used",
    )


def embeddings_file(home: Path, name: str) -> Path:
    """Where a file of embeddings is kept: below a run's or tower's folder, or, where that cannot be written, in the user's
    cache folder: a link to the file that the run has, until it is renewed."""
    file = home / "embeddings" / name
    if os.access(existing_parent(file.parent), os.W_OK):
        return file
    tag = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:8]
    kept = cache_folder() / "embeddings" / f"{file_part(home.resolve().name)}-{tag}" / name
    if file.is_file():
        with suppress(OSError):  # it is there already, or nothing can be written here either
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.symlink_to(file.resolve())
    return kept if kept.is_file() or not file.is_file() else file


FROZEN = "frozen"
"""What stands for a method and a checkpoint where nothing was trained."""


class Embeds(Protocol):
    """What turns images into vectors: a method, or a frozen tower."""

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, H, W] -> float32 [B, D], unit length."""
        ...


class Weights(ABC):
    """Weights, how their inputs are made, and where embeddings made with them are kept."""

    data: DataConfig
    model: ModelConfig
    method: dict[str, Any]
    """The method's settings, `name` among them."""
    which: str
    """The checkpoint: `best`, ...; `frozen` for a tower."""
    sha256: str
    home: Path
    """The folder whose `embeddings/` is theirs."""
    facts: dict[str, str]
    """What an embeddings file records: run and recipe, or model."""
    label: str
    """Which weights these are, for people."""
    note: str
    """What the user should know about the choice of weights; mostly empty."""
    text_is_here: bool = False
    """Whether there is a text side that needs no download."""

    @abstractmethod
    def load(self, device: torch.device) -> Embeds:
        """Load the weights, in eval mode. Errors: CheckpointError."""

    def check_text(self) -> None:
        """Raise UsageError unless there is a text side. A run's space is not known to be shared with texts."""
        raise UsageError(
            f"text: {self.label} has no text side; use a frozen model that has one, e.g. --model clip"
        )

    def load_text(self) -> TextEncoder:
        """Load the text side. Errors: UsageError, CheckpointError."""
        self.check_text()
        raise AssertionError("weights with a text side load it themselves")


class RunWeights(Weights):
    """A checkpoint of a run."""

    def __init__(self, run: Path, which: str = "best") -> None:
        """Find the checkpoint. Errors: CheckpointError."""
        self.home, self.asked = run, which
        self.recipe, self.checkpoint = open_checkpoint(run, which, verify=False)
        self.data, self.model = self.recipe.data, self.recipe.model
        self.method = self.recipe.method.model_dump(mode="json")
        self.which, self.sha256, self.note = (
            self.checkpoint.which,
            self.checkpoint.sha256,
            self.checkpoint.note,
        )
        self.facts = {"run": str(run.resolve()), "recipe": self.recipe.name}
        self.label = f"run {run.resolve().name} ({self.which})"

    def load(self, device: torch.device) -> Embeds:
        """The trained method. CheckpointError when training has replaced the checkpoint's weights since."""
        _, method, found = load_run(self.home, device, self.asked)
        if found.sha256 != self.sha256:
            raise _replaced(found)
        return for_embedding(method, device)


class TowerWeights(Weights):
    """A tower as its makers trained it. Its file is found, or downloaded, when it is first needed."""

    def __init__(self, spec: TowerSpec) -> None:
        self.spec, self.data, self.model, self.note = spec, spec.data, spec.model, spec.note
        self.method, self.which = {"name": FROZEN}, FROZEN
        self.facts = {"model": spec.name}

    @cached_property
    def sha256(self) -> str:  # type: ignore[override]
        """Of the file of weights."""
        return self.spec.weights_sha256()

    @cached_property
    def home(self) -> Path:  # type: ignore[override]
        """In the cache: a folder per weights and backbone."""
        short = self.spec.name.partition("=")[0] if "=" in self.spec.name else Path(self.spec.name).name
        return cache_folder() / f"{file_part(short)}-{self.sha256[:8]}"

    @cached_property
    def label(self) -> str:  # type: ignore[override]
        """The tower and its weights."""
        return f"model {self.spec.label}, frozen, weights {self.sha256[:12]}"

    @cached_property
    def text_is_here(self) -> bool:  # type: ignore[override]
        """See `models.text_tower.text_is_here`."""
        with suppress(UsageError):
            self.check_text()
            return text_is_here(self.model.backbone, self._whole)
        return False

    def load(self, device: torch.device) -> Embeds:
        return for_embedding(self.spec.build(), device)

    def check_text(self) -> None:
        """See `models.text_tower.check_text_side`; networks that start random, or see contours, share no space with texts."""
        if self.model.weights == "none" or self.model.input != "rgb":
            super().check_text()
        check_text_side(self.model.backbone)

    def load_text(self) -> TextEncoder:
        """open_clip's, from the tower's own file where that is a whole CLIP; UsageError where the tower's is an image side
        alone and another one than open_clip's."""
        self.check_text()
        model, file = self.spec.model, self._whole
        name = self.spec.name.partition("=")[0]
        alone = (model, self.data.size) if file is None and model.weights != "pretrained" else None
        return load_text_side(model.backbone, file, f"give it as --model {name}=FILE", images=alone)

    @cached_property
    def _whole(self) -> Path | None:
        """The file of weights, where it holds the text side too."""
        file = Path(self.model.weights)
        return file if self.model.weights not in ("pretrained", "none") and holds_texts(file) else None


def choose_weights(
    run: str | Path | None = None, model: str | None = None, runs: Path = Path("runs"), which: str = "best"
) -> Weights:
    """The weights that the user means: `run` as `find_run` takes it, or `model` as `find_tower` takes it.

    With neither, the latest run under `runs`; where there is none, a tower whose weights are on this machine.
    Errors: UsageError (both given, or nothing there), CheckpointError.
    """
    if run is not None and model is not None:
        raise UsageError("--run and --model: give one of them")
    if run is None and model is None and not any_checkpoint(runs):
        model = cached_tower()
        if model is None:
            raise UsageError(
                f"{runs}: no run with a checkpoint yet, and no pretrained weights on this machine; search without training "
                f"with --model NAME (downloaded once: {', '.join(TOWERS)}; or a weight file), or train with `zssbir train`"
            )
    if model is not None:
        return TowerWeights(find_tower(model))
    chosen = find_run(run, runs, which)
    return RunWeights(chosen.path, chosen.which)
