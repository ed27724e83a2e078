"""Frozen towers by name: an image tower of timm (with the text tower of open_clip, where there is one), a weight file
or a recipe's start, each with its own preprocessing."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.errors import UsageError
from zssbir_cli.files import file_sha256
from zssbir_cli.models.known import TOWERS, WEIGHT_FILES, Tower, unknown_model
from zssbir_cli.models.pretrained import check_backbone, is_cached, timm_file, weights_config
from zssbir_cli.models.timm_records import find_backbone
from zssbir_cli.models.weights import learnt_before, read_state
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import DataConfig, ModelConfig, Recipe
from zssbir_cli.types import Modality

GOOGLE_CLASSES = 1001
"""ImageNet with a class for the background: weights from TensorFlow, with its padding and inputs from -1 to 1."""


@dataclass(frozen=True)
class TowerSpec:
    """A tower, ready to be built. `name` finds it again from any folder; `label` is for people."""

    name: str
    label: str
    model: ModelConfig
    data: DataConfig
    seed: int = 0
    """For weights that are random (a recipe's start)."""
    note: str = ""
    """What the user should know of how the name was understood."""
    learnt: tuple[str, ...] = ()
    """Classes that the weights were trained on or selected by, where they are of a run of this program."""

    @property
    def preprocessing(self) -> str:
        """How pictures become inputs, in words."""
        mean, std = (", ".join(f"{x:.3g}" for x in v or ()) for v in (self.model.mean, self.model.std))
        return f"{self.data.size} px, bilinear, mean {mean}, std {std}"

    def weights_sha256(self) -> str:
        """sha256 of the file of weights (of the tensors, where they are random). Downloads them if need be.

        Errors: CheckpointError, DataError.
        """
        if self.model.weights == "none":
            digest = hashlib.sha256()
            for key, value in sorted(self.build().state_dict().items()):
                digest.update(key.encode() + value.numpy().tobytes())
            return digest.hexdigest()
        if self.model.weights == "pretrained":
            return file_sha256(timm_file(self.model.backbone, self.name))
        return file_sha256(Path(self.model.weights))

    def build(self) -> "FrozenTower":
        """The tower in eval mode, on the CPU. Errors: UsageError, CheckpointError."""
        seed_all(self.seed)  # random weights are then those that a run of this seed starts from
        return FrozenTower(self.model, self.data.size).eval()


class FrozenTower(nn.Module):
    """An encoder as it is, for sketches and photos."""

    def __init__(self, model: ModelConfig, size: int) -> None:
        from zssbir_cli.models.encoder import build_encoder

        super().__init__()
        self.encoder = build_encoder(model, size)

    @torch.no_grad()
    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, S, S] of either modality -> unit embeddings float32 [B, D]."""
        return functional.normalize(self.encoder(images).embedding.float(), dim=1)


def find_tower(name: str) -> TowerSpec:
    """What the user means by `--model`: a tower's name, a timm model with or without a tag, a weight file, or
    `BACKBONE=FILE`, or a recipe (.yaml), whose model is taken as it is before training.

    Errors: UsageError with the nearest names, CheckpointError (a file that is not one of weights).
    """
    if name in TOWERS:
        return _pretrained(name, TOWERS[name])
    if name.endswith((".yaml", ".yml")):
        path = find_recipe(name)
        return start_of(load_recipe(path), path)
    backbone, equals, file = name.partition("=")
    if equals and not Path(name).is_file():
        _refuse_runs(Path(file))
        return _of_file(Path(file), backbone)
    if Path(name).suffix.lower() in WEIGHT_FILES:
        _refuse_runs(Path(name))
        return _of_file(Path(name), _backbone_in(Path(name)))
    architecture = name.partition(".")[0]
    if find_backbone(architecture) is None:
        import timm

        raise unknown_model(name, timm.list_models())
    check_backbone(name, "--model")
    if weights_config(name) is None:
        raise UsageError(f"--model {name}: timm has no pretrained weights of it; write {name}=FILE")
    return _pretrained(name, _known(name))


def cached_tower() -> str | None:
    """The first of `TOWERS` whose weights are on this machine."""
    return next((name for name, tower in TOWERS.items() if is_cached(tower.backbone)), None)


def _known(backbone: str) -> Tower:
    """A backbone as a tower: with the options that its table entry has, if it has one."""
    return next((t for t in TOWERS.values() if t.backbone == backbone), Tower(backbone, backbone))


def _pretrained(name: str, tower: Tower) -> TowerSpec:
    check_backbone(tower.backbone, "--model")
    about = "" if tower.about == name else f"{tower.backbone}"
    return TowerSpec(name, f"{name} ({about})" if about else name, *_configs(tower, "pretrained"))


def _configs(tower: Tower, weights: str, **options: int | str) -> tuple[ModelConfig, DataConfig]:
    """The recipe's sections for a tower."""
    found = weights_config(tower.backbone)
    mean, std = (found.mean, found.std) if found else ((0.5,) * 3, (0.5,) * 3)
    model = ModelConfig(
        backbone=tower.backbone, weights=weights, options={**tower.options, **options}, mean=mean, std=std,
        tune="none",
    )  # fmt: skip
    return model, DataConfig(size=tower.size or (found.size if found else 224))


def _of_file(file: Path, backbone: str) -> TowerSpec:
    file = file.expanduser().absolute()
    tower = TOWERS.get(backbone) or _known(backbone)
    check_backbone(tower.backbone, "--model")
    state = read_state(file)
    google = any(v.ndim == 2 and len(v) == GOOGLE_CLASSES for v in state.values())
    padded = google and tower.backbone.startswith(("mobilenet", "efficientnet", "mnasnet"))
    options: dict[str, int | str] = {"pad_type": "same"} if padded else {}
    if (projection := state.get("visual.proj")) is not None:  # a whole open_clip checkpoint, of any width
        options["num_classes"] = projection.shape[1]
    model, data = _configs(tower, str(file), **options)
    note = ""
    if google:
        model = model.model_copy(update={"mean": (0.5,) * 3, "std": (0.5,) * 3})
        note = f"{file.name} has {GOOGLE_CLASSES:,} classes, as weights from TensorFlow have: inputs from -1 to 1"
        note += ", padding `same`" if padded else ""
    architecture = tower.backbone.partition(".")[0]  # the tag is of other weights
    return TowerSpec(f"{backbone}={file}", f"{file.name} ({architecture})", model, data, note=note)


def _backbone_in(file: Path) -> str:
    """The backbone that a weight file's name begins with. Errors: UsageError."""
    stem = file.name[: -len(file.suffix)]
    if stem in TOWERS or weights_config(stem):
        return stem
    import timm

    names = [
        m
        for m in timm.list_models()
        if stem.lower().startswith(m) and not stem[len(m) : len(m) + 1].isalnum()
    ]
    if names:
        return max(names, key=len)
    raise UsageError(
        f"--model {file}: its name does not begin with that of a timm model; write --model BACKBONE={file}"
    )


def _refuse_runs(file: Path) -> None:
    """Refuse the weight file of a run: as a tower it would lose its projection, its preprocessing and its name."""
    file = file.expanduser().absolute()
    if learnt_before(file) is not None:
        at_home = file.parent.parent.name == "checkpoints"
        run = str(file.parents[2]) if at_home else "with the folder of its run"
        raise UsageError(f"--model {file}: weights of a run of this program; write --run {run}")


def start_of(recipe: Recipe, path: Path) -> TowerSpec:
    """A recipe's backbone before training; `path`: the recipe's file, by which it is found again."""
    found = weights_config(recipe.model.backbone)
    default = {"mean": found.mean, "std": found.std} if found else {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    own = {key: value for key in ("mean", "std") if (value := getattr(recipe.model, key))}
    model = recipe.model.model_copy(update={**default, **own, "projection": 0, "tune": "none"})
    learnt: tuple[str, ...] = ()
    if model.weights not in ("pretrained", "none"):
        file = Path(model.weights).expanduser().absolute()
        model, learnt = model.model_copy(update={"weights": str(file)}), learnt_before(file) or ()
    note = f"{path.name}: its weights are random" if model.weights == "none" else ""
    spec = TowerSpec(
        str(path.absolute()), f"the start of {path.name} ({model.backbone})", model, recipe.data, note=note,
        learnt=learnt,
    )  # fmt: skip
    return replace(spec, seed=recipe.train.seed)
