"""The recipe: everything that determines a training run, as typed, frozen models. Imports no torch."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from zssbir_cli.methods.ama.config import AmaConfig
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.section import Section

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

    root: str = Field("data/demo", description="Folder of a prepared data set (what `zssbir prepare` wrote).")
    size: int = Field(224, ge=16, le=1024, description="Side of the square network input, pixels.")
    workers: int = Field(
        2, ge=0, le=128, description="Data-loading processes per rank; 0 loads in the main process."
    )
    sketch_crop: bool = Field(
        True, description="Crop sketches to their ink plus a margin and pad them to a square with white."
    )
    flip: bool = Field(False, description="Mirror sketch and photo at random (photo masks move along).")
    crop_scale: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Smallest share of a photo's area that a random crop keeps; 1 = no random crop.",
    )
    sketch_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Strength of random rotation, scale, shift and line thickness of sketches.",
    )
    color_jitter: float = Field(
        0.0, ge=0, le=1, description="Strength of random brightness, contrast and saturation of photos."
    )


class ModelConfig(Section):
    """The encoder: any timm backbone, shared by sketches and photos."""

    backbone: str = Field("vit_base_patch16_224", description="Name of a timm model, transformer or CNN.")
    weights: str = Field(
        "pretrained",
        description="`pretrained` (timm's download), `none` (random), or a .safetensors / .pth file.",
    )
    options: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Further arguments of `timm.create_model`, e.g. {pad_type: same}."
    )
    input: Literal["rgb", "contours"] = Field(
        "rgb",
        description="`contours` turns sketches and photos into maps of their edges first: for networks that start "
        "from random weights.",
    )
    mean: tuple[float, float, float] | None = Field(
        None, description="Input mean in 0-1 per channel; default: what timm records for the weights."
    )
    std: tuple[_Positive, _Positive, _Positive] | None = Field(
        None, description="Input standard deviation, likewise."
    )
    drop_rate: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the backbone.")
    drop_path: float = Field(0.0, ge=0, lt=1, description="Stochastic-depth rate of the backbone.")
    freeze_batchnorm: bool = Field(
        True,
        description="Keep batch-norm statistics fixed (small batches; equal results on any number of ranks).",
    )
    projection: int = Field(0, ge=0, description="Dimensions of a linear projection head; 0 = no head.")
    tune: str = Field(
        "all",
        pattern=r"^(all|norms|none|last:[1-9][0-9]*)$",
        description="Which weights of the backbone are trained: `all`, `norms` (scales and shifts of the norm layers), "
        "`last:N` (the last N blocks of a transformer or stages of a CNN, and what follows them) or `none`.",
    )
    lr_scale: float = Field(1.0, gt=0, description="Multiplies the learning rate for the backbone.")

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

    name: Literal["adam", "adamw", "sgd"] = Field(
        "adamw", description="Optimizer (fused where the device can)."
    )
    lr: float = Field(1e-4, gt=0, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="Not applied to biases and norms with adamw.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of sgd.")
    schedule: Literal["constant", "cosine"] = Field("cosine", description="Learning rate after the warm-up.")
    warmup_steps: int = Field(0, ge=0, description="Linear warm-up, in steps.")
    final_lr: float = Field(0.0, ge=0, description="Learning rate at the end of the cosine schedule.")
    clip_norm: float | None = Field(None, gt=0, description="Largest gradient norm; none = no clipping.")
    accumulate: int = Field(1, ge=1, description="Batches per optimizer step.")


class TrainConfig(Section):
    """Length, seed, precision and what is kept."""

    epochs: int = Field(10, ge=1, description="Length of the run.")
    steps_per_epoch: int | None = Field(
        None, ge=1, description="Batches per epoch; default: enough to draw every training photo about once."
    )
    batch_size: int = Field(
        32, ge=2, description="Global batch (sketch-photo items), whatever the number of ranks."
    )
    seed: int = Field(0, ge=0, description="Seed of all random numbers.")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16"] = Field(
        "auto", description="auto: bf16 where the device has fast bf16, else fp32. fp16 is for CUDA only."
    )
    ema: float | None = Field(
        None, gt=0, lt=1, description="Decay of an average of the weights that is used for retrieval."
    )
    blend: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        1.0,
        description="Retrieval uses start + blend * (trained - start) of all weights; 1 = the trained ones, 0 = the "
        "start. `auto`: the share that does best on the held-out seen classes.",
    )
    compile: bool = Field(False, description="Compile the encoder with torch.compile (pays on GPUs).")
    channels_last: bool = Field(True, description="channels-last memory format for CNN backbones.")
    validate_every: int = Field(
        1, ge=0, description="Epochs between validations on held-out seen classes; 0 = never."
    )
    checkpoint_every: int | None = Field(
        None, ge=1, description="Steps between checkpoints; default: each epoch."
    )
    keep_every: int | None = Field(None, ge=1, description="Also keep the checkpoint of every N-th epoch.")


class Recipe(Section):
    """A complete training recipe. `zssbir train` writes it, fully resolved, into the run's folder."""

    name: str = Field(description="Name of the recipe, part of the run's name.")
    description: str = Field("", description="One line for `zssbir recipes`.")
    method: MethodConfig
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
