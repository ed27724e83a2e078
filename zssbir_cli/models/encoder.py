"""One encoder over any timm backbone: a global embedding and patch tokens, for transformers and CNNs."""

from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from zssbir_cli.compute.batchnorm import BATCH_NORMS
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import reason
from zssbir_cli.models.contours import contours
from zssbir_cli.models.folding import fold_batchnorm
from zssbir_cli.models.pretrained import check_backbone, timm_file
from zssbir_cli.models.tune import select_trained
from zssbir_cli.models.weights import load_weights, read_state
from zssbir_cli.recipe.schema import ModelConfig


class Features(NamedTuple):
    """What an encoder says of a batch.

    embedding: [B, D] (a transformer's CLS token or pooled tokens after the final norm; a CNN's pooled
    map; what the head makes of them where `model.options` keeps one with num_classes, as CLIP's projection).
    tokens: [B, N, C] patch tokens in row-major order, N = grid[0] * grid[1]; for a CNN the cells of
    its last feature map, C may differ from D.
    """

    embedding: Tensor
    tokens: Tensor
    grid: tuple[int, int]


class Encoder(nn.Module):
    """Wraps a timm model, headless or with the head that projects into CLIP's common space.

    Input: uint8 images [B, C, H, W], C = 1 or 3 (grey is repeated). Normalises on the device, so that loaders hand over plain uint8. `lr_scale` multiplies the learning rate of
    its parameters.
    """

    mean: Tensor
    std: Tensor
    normalisation: tuple[tuple[float, ...], tuple[float, ...]]
    """Mean and standard deviation per channel, 0-1."""

    def __init__(
        self,
        backbone: nn.Module,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        freeze_batchnorm: bool,
        as_contours: bool = False,
        lr_scale: float = 1.0,
    ) -> None:
        super().__init__()
        fold_batchnorm(backbone)
        self.backbone = backbone
        self.freeze_batchnorm = freeze_batchnorm
        self.as_contours = as_contours
        self.normalisation = (tuple(map(float, mean)), tuple(map(float, std)))
        self.lr_scale = lr_scale
        width: Any = backbone.num_features
        classes: Any = getattr(backbone, "num_classes", 0)
        self.projects = bool(classes)
        self.dim = int(classes or getattr(backbone, "head_hidden_size", None) or width)
        self.token_dim = int(width)
        self.prefix_tokens = int(getattr(backbone, "num_prefix_tokens", 0))
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    @property
    def any_size(self) -> bool:
        """Whether inputs may have any size: convolutional networks, without position embeddings."""
        return not hasattr(self.backbone, "patch_embed")

    def forward(self, images: Tensor) -> Features:
        """uint8 [B, 1 or 3, H, W] -> `Features`."""
        return self.features(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 [B, 1 or 3, H, W] -> float32 [B, 3, H, W]: zero mean and unit variance by mean / std, or contour
        maps less 1 (about zero mean on contours)."""
        if self.as_contours:
            return contours(images.float().expand(-1, 3, -1, -1) / 255) - 1
        return ((images.float() - self.mean) / self.std).expand(-1, 3, -1, -1)

    def features(self, x: Tensor) -> Features:
        """Normalised float images [B, 3, H, W] -> `Features`."""
        out = self.backbone.forward_features(x)  # type: ignore[operator]
        embedding = self.backbone.forward_head(out, pre_logits=not self.projects)  # type: ignore[operator]
        if out.ndim == 3:
            tokens, grid = (
                out[:, self.prefix_tokens :],
                self._token_grid(x, int(out.shape[1]) - self.prefix_tokens),
            )
        else:
            if out.shape[1] != self.token_dim:  # channels-last maps (Swin and the like)
                out = out.permute(0, 3, 1, 2)
            tokens, grid = out.flatten(2).transpose(1, 2), (int(out.shape[2]), int(out.shape[3]))
        return Features(embedding, tokens, grid)

    @staticmethod
    def _token_grid(x: Tensor, count: int) -> tuple[int, int]:
        rows = max(
            1, round((count * int(x.shape[2]) / int(x.shape[3])) ** 0.5)
        )  # plain numbers when traced too
        return rows, count // rows

    def train(self, mode: bool = True) -> "Encoder":
        """As `nn.Module.train`, but batch norm stays in eval mode when `freeze_batchnorm` is set, or when the
        layer is not trained (`model.tune`)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, BATCH_NORMS) and self._fixed(module):
                module.eval()
        return self

    def _fixed(self, norm: nn.Module) -> bool:
        own = list(norm.parameters())
        return self.freeze_batchnorm or (bool(own) and not any(p.requires_grad for p in own))


def build_encoder(config: ModelConfig, size: int, load: bool = True) -> Encoder:
    """Build the recipe's encoder for `size`-pixel inputs; `load=False` leaves its weights random because a
    checkpoint will fill them. Raises `UsageError` for an unknown backbone and `CheckpointError` for weights
    that cannot be had or do not fit."""
    check_backbone(config.backbone)
    backbone = _create(config, size, load)
    defaults = getattr(backbone, "pretrained_cfg", {}) or {}
    mean = config.mean or tuple(defaults.get("mean", (0.5, 0.5, 0.5)))
    std = config.std or tuple(defaults.get("std", (0.5, 0.5, 0.5)))
    frozen = config.freeze_batchnorm and config.weights != "none"
    select_trained(backbone, config.tune)
    return Encoder(
        backbone,
        mean=mean,
        std=std,
        freeze_batchnorm=frozen,
        as_contours=config.input == "contours",
        lr_scale=config.lr_scale,
    )


def _create(config: ModelConfig, size: int, load: bool) -> nn.Module:
    options: dict[str, Any] = {"num_classes": 0, **config.options}
    if config.drop_rate:
        options["drop_rate"] = config.drop_rate
    if config.drop_path:
        options["drop_path_rate"] = config.drop_path
    if not load or config.weights == "none":
        return _create_sized(config.backbone, size, options)
    if config.weights == "pretrained":
        file = timm_file(config.backbone)
        return _create_sized(
            config.backbone, size, options, pretrained_cfg_overlay={"file": str(file), "custom_load": False}
        )
    state = read_state(Path(config.weights).expanduser())
    if not (image_side := {k: v for k, v in state.items() if k.startswith("visual.")}):
        backbone = _create_sized(config.backbone, size, options)
        load_weights(backbone, state, config.weights)
        return backbone
    try:  # a whole CLIP: timm knows how its image side becomes this backbone, and is strict about it
        overlay = {"state_dict": image_side, "custom_load": False, "num_classes": options["num_classes"]}
        backbone = _create_sized(config.backbone, size, options, pretrained_cfg_overlay=overlay)
    except RuntimeError as error:
        raise CheckpointError(
            f"{config.weights}: the image side of this CLIP does not fit {config.backbone} ({reason(error)})"
        ) from error
    record: Any = backbone.pretrained_cfg
    record["state_dict"] = None
    return backbone


def _create_sized(name: str, size: int, options: dict[str, Any], **weights: Any) -> nn.Module:
    """Pass `img_size` to models that have a fixed input size; others (CNNs) do not know the argument."""
    options, wanted = {**options, **weights, "pretrained": bool(weights)}, options
    try:
        try:
            model: nn.Module = timm.create_model(name, img_size=size, **options)
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            model = timm.create_model(name, **options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(f"model.backbone {name!r} with options {wanted}: {error}") from error
    return model
