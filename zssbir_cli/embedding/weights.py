"""Whose weights embed: those of a run's checkpoint, or of a frozen tower. One interface for both."""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, Protocol

import torch
from torch import Tensor

from zssbir_cli.embedding.load import load_run, open_checkpoint
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import cache_folder
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.text_tower import check_text_side, holds_texts, load_text_side, text_is_here
from zssbir_cli.models.towers import TowerSpec, find_tower
from zssbir_cli.names import file_part
from zssbir_cli.recipe.schema import DataConfig, ModelConfig, Recipe
from zssbir_cli.types import Modality

FROZEN = "frozen"
"""What stands for a method and a checkpoint where nothing was trained."""


class Embeds(Protocol):
    """What turns images into vectors: a method, or a frozen tower."""

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, H, W] -> float32 [B, D], unit length."""
        ...


class Weights(Protocol):
    """Weights, how their inputs are made, and where embeddings made with them are kept."""

    @property
    def data(self) -> DataConfig: ...

    @property
    def model(self) -> ModelConfig: ...

    @property
    def method(self) -> dict[str, Any]:
        """The method's settings, `name` among them."""
        ...

    @property
    def which(self) -> str:
        """The checkpoint: `best`, ...; `frozen` for a tower."""
        ...

    @property
    def sha256(self) -> str: ...

    @property
    def home(self) -> Path:
        """The folder whose `embeddings/` is theirs."""
        ...

    @property
    def facts(self) -> dict[str, str]:
        """What an embeddings file says of them: run and recipe, or model."""
        ...

    @property
    def label(self) -> str:
        """Which weights these are, for people."""
        ...

    @property
    def note(self) -> str:
        """What the user should know of the choice of weights; mostly empty."""
        ...

    def load(self, device: torch.device) -> Embeds:
        """Load the weights, in eval mode. Errors: CheckpointError."""
        ...

    def check_text(self) -> None:
        """Raise UsageError unless there is a text side."""
        ...

    @property
    def text_is_here(self) -> bool:
        """Whether there is a text side that needs no download."""
        ...

    def load_text(self) -> TextEncoder:
        """Load the text side. Errors: UsageError, CheckpointError."""
        ...


@dataclass(frozen=True)
class RunWeights:
    """A checkpoint of a run."""

    home: Path
    asked: str
    recipe: Recipe
    checkpoint: CheckpointInfo

    @classmethod
    def open(cls, run: Path, which: str) -> "RunWeights":
        """Find the checkpoint. Errors: CheckpointError."""
        return cls(run, which, *open_checkpoint(run, which, verify=False))

    @property
    def data(self) -> DataConfig:
        """The recipe's."""
        return self.recipe.data

    @property
    def model(self) -> ModelConfig:
        """The recipe's."""
        return self.recipe.model

    @property
    def method(self) -> dict[str, Any]:
        """The recipe's."""
        return self.recipe.method.model_dump(mode="json")

    @property
    def which(self) -> str:
        """The checkpoint that is used."""
        return self.checkpoint.which

    @property
    def sha256(self) -> str:
        """Of `model.safetensors`."""
        return self.checkpoint.sha256

    @property
    def facts(self) -> dict[str, str]:
        """Folder and recipe."""
        return {"run": str(self.home.resolve()), "recipe": self.recipe.name}

    @property
    def label(self) -> str:
        """The run's name."""
        return f"run {self.home.resolve().name} ({self.which})"

    @property
    def note(self) -> str:
        """The checkpoint's."""
        return self.checkpoint.note

    def load(self, device: torch.device) -> Embeds:
        """The trained method. CheckpointError when training has put other weights in the checkpoint's place since."""
        _, method, found = load_run(self.home, device, self.asked)
        if found.sha256 != self.sha256:
            raise CheckpointError(
                f"{found.path}: training has replaced these weights meanwhile; run the same command again"
            )
        embeds: Embeds = method.to(memory_format=torch.channels_last)
        return embeds

    def check_text(self) -> NoReturn:
        """A run is not known to share a space with texts. Raises UsageError."""
        raise UsageError(
            f"text: {self.label} has no text side; use a frozen model that has one, e.g. --model clip"
        )

    @property
    def text_is_here(self) -> bool:
        """There is none."""
        return False

    def load_text(self) -> NoReturn:
        """There is none. Raises UsageError."""
        self.check_text()


@dataclass(frozen=True)
class TowerWeights:
    """A tower as its makers trained it."""

    spec: TowerSpec

    @classmethod
    def find(cls, name: str) -> "TowerWeights":
        """See `find_tower`."""
        return cls(find_tower(name))

    @property
    def data(self) -> DataConfig:
        """Its own preprocessing."""
        return self.spec.data

    @property
    def model(self) -> ModelConfig:
        """Its backbone."""
        return self.spec.model

    @property
    def method(self) -> dict[str, Any]:
        """Its name alone."""
        return {"name": FROZEN}

    @property
    def which(self) -> str:
        """There is one."""
        return FROZEN

    @cached_property
    def sha256(self) -> str:
        """Of the file of weights."""
        return self.spec.weights_sha256()

    @cached_property
    def home(self) -> Path:
        """In the cache: a folder per weights and backbone."""
        short = self.spec.name.partition("=")[0] if "=" in self.spec.name else Path(self.spec.name).name
        return cache_folder() / f"{file_part(short)}-{self.sha256[:8]}"

    @property
    def facts(self) -> dict[str, str]:
        """By which name it is found again."""
        return {"model": self.spec.name}

    @property
    def label(self) -> str:
        """The tower and its weights."""
        return f"model {self.spec.label}, frozen, weights {self.sha256[:12]}"

    @property
    def note(self) -> str:
        """How its name was understood."""
        return self.spec.note

    def load(self, device: torch.device) -> Embeds:
        """The tower."""
        return self.spec.build().to(device).to(memory_format=torch.channels_last)

    def check_text(self) -> None:
        """See `models.text_tower.check_text_side`; networks that start random, or see contours, share no space with texts."""
        if self.spec.model.weights == "none" or self.spec.model.input != "rgb":
            raise UsageError(
                f"text: {self.label} has no text side; use a frozen model that has one, e.g. --model clip"
            )
        check_text_side(self.spec.model.backbone)

    @property
    def text_is_here(self) -> bool:
        """See `models.text_tower.text_is_here`."""
        with suppress(UsageError):
            self.check_text()
            return text_is_here(self.spec.model.backbone, self._whole)
        return False

    def load_text(self) -> TextEncoder:
        """open_clip's, from the tower's own file where that is a whole CLIP; UsageError where the tower's is an image side
        alone and another one than open_clip's."""
        self.check_text()
        model, file = self.spec.model, self._whole
        name = self.spec.name.partition("=")[0]
        alone = (model, self.spec.data.size) if file is None and model.weights != "pretrained" else None
        return load_text_side(model.backbone, file, f"give it as --model {name}=FILE", images=alone)

    @cached_property
    def _whole(self) -> Path | None:
        """The file of weights, where it holds the text side too."""
        file = Path(self.spec.model.weights)
        return file if self.spec.model.weights not in ("pretrained", "none") and holds_texts(file) else None
