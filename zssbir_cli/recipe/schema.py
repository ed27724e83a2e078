"""The recipe: everything that determines a training run, as typed, frozen models. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from zssbir_cli.methods.ama.config import AmaConfig
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.section import Section, key

_Positive = Annotated[float, Field(gt=0)]
MethodConfig = Annotated[TripletConfig | PuximConfig | AmaConfig, Field(discriminator="name")]


NO_OPTIONS = {
    "checkpoint_path": "model.weights", "pretrained": "model.weights", "pretrained_cfg": "model.weights",
    "pretrained_cfg_overlay": "model.weights", "img_size": "data.size", "in_chans": "", "features_only": "",
}  # fmt: skip
"""Arguments of `timm.create_model` that are refused, and the keys to set instead: with `checkpoint_path`, the weights would
be others than the recipe says."""


class DataConfig(Section):
    """Which prepared data set, and how its images become tensors."""

    root: str = key("data/demo", "Folder of a prepared data set (what `zssbir prepare` wrote).")
    size: int = key(224, "Side of the square network input, pixels.", ge=16, le=1024)
    workers: int = key(2, "Data-loading processes per rank; 0 loads in the main process.", ge=0, le=128)
    sketch_crop: bool = key(
        True, "Crop sketches to their ink plus a margin and pad them to a square with white."
    )
    flip: bool = key(False, "Mirror sketch and photo at random (photo masks move along).")
    crop_scale: float = key(
        1.0, "Smallest share of a photo's area that a random crop keeps; 1 = no random crop.", gt=0, le=1
    )
    sketch_jitter: float = key(
        0.0, "Strength of random rotation, scale, shift and line thickness of sketches.", ge=0, le=1
    )
    color_jitter: float = key(
        0.0, "Strength of random brightness, contrast and saturation of photos.", ge=0, le=1
    )


class ModelConfig(Section):
    """The encoder: any timm backbone, shared by sketches and photos."""

    backbone: str = key("vit_base_patch16_224", "Name of a timm model, transformer or CNN.")
    weights: str = key(
        "pretrained", "`pretrained` (timm's download), `none` (random), or a .safetensors / .pth file."
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Further arguments of `timm.create_model`, e.g. {pad_type: same}."
    )
    input: Literal["rgb", "contours"] = key(
        "rgb",
        "`contours` turns sketches and photos into maps of their edges first: for networks that start "
        "from random weights.",
    )
    mean: tuple[float, float, float] | None = key(
        None,
        "Input mean in 0-1 per channel; default: what timm records for the weights. Not for `input: contours`.",
    )
    std: tuple[_Positive, _Positive, _Positive] | None = key(None, "Input standard deviation, likewise.")
    drop_rate: float = key(0.0, "Dropout rate of the backbone.", ge=0, lt=1)
    drop_path: float = key(0.0, "Stochastic-depth rate of the backbone.", ge=0, lt=1)
    freeze_batchnorm: bool = key(
        True, "Keep batch-norm statistics fixed (small batches; equal results on any number of ranks)."
    )
    projection: int = key(0, "Dimensions of a linear projection head; 0 = no head.", ge=0)
    tune: str = key(
        "all",
        "Which weights of the backbone are trained: `all`, `norms` (scales and shifts of the norm layers), "
        "`last:N` (the last N blocks of a transformer or stages of a CNN, and what follows them) or `none`.",
        pattern=r"^(all|norms|none|last:[1-9][0-9]*)$",
    )
    lr_scale: float = key(1.0, "Multiplies the learning rate for the backbone.", gt=0)

    @field_validator("options")
    @classmethod
    def _none_that_a_key_stands_for(
        cls, options: dict[str, bool | int | float | str]
    ) -> dict[str, bool | int | float | str]:
        for name in sorted(options.keys() & NO_OPTIONS.keys()):
            raise ValueError(
                f"{name} is not an option here" + (f"; set {key}" if (key := NO_OPTIONS[name]) else "")
            )
        return options


class OptimConfig(Section):
    """Optimizer and schedule."""

    name: Literal["adam", "adamw", "sgd"] = key("adamw", "Optimizer (fused where the device can).")
    lr: float = key(1e-4, "Peak learning rate.", gt=0)
    weight_decay: float = key(0.0, "Not applied to biases and norms with adamw.", ge=0)
    momentum: float = key(0.9, "Momentum of sgd.", ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = key("cosine", "Learning rate after the warm-up.")
    warmup_steps: int = key(0, "Linear warm-up, in steps.", ge=0)
    final_lr: float = key(0.0, "Learning rate at the end of the cosine schedule.", ge=0)
    clip_norm: float | None = key(None, "Largest gradient norm; none = no clipping.", gt=0)
    accumulate: int = key(1, "Batches per optimizer step.", ge=1)


class TrainConfig(Section):
    """Length, seed, precision and what is kept."""

    epochs: int = key(10, "Length of the run.", ge=1)
    steps_per_epoch: int | None = key(
        None, "Batches per epoch; default: enough to draw every training photo about once.", ge=1
    )
    batch_size: int = key(32, "Global batch (sketch-photo items), whatever the number of ranks.", ge=2)
    seed: int = key(0, "Seed of all random numbers.", ge=0)
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = key(
        "auto", "auto: bf16 where the device has fast bf16, else fp32. fp16 is for CUDA only."
    )
    ema: float | None = key(
        None, "Decay of an average of the weights that is used for retrieval.", gt=0, lt=1
    )
    blend: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = key(
        1.0,
        "Retrieval uses start + blend * (trained - start) of all weights; 1 = the trained ones, 0 = the "
        "start. `auto`: the share that does best on the held-out seen classes.",
    )
    compile: bool = key(False, "Compile the encoder with torch.compile (pays on GPUs).")
    channels_last: bool = key(True, "channels-last memory format for CNN backbones.")
    validate_every: int = key(1, "Epochs between validations on held-out seen classes; 0 = never.", ge=0)
    checkpoint_every: int | None = key(None, "Steps between checkpoints; default: each epoch.", ge=1)
    keep_every: int | None = key(None, "Also keep the checkpoint of every N-th epoch.", ge=1)


class Recipe(Section):
    """A complete training recipe. `zssbir train` writes it, fully resolved, into the run's folder."""

    name: str = Field(description="Name of the recipe, part of the run's name.")
    description: str = key("", "One line for `zssbir recipes`.")
    method: MethodConfig
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
