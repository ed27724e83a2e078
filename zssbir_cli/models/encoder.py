"""One encoder over any timm backbone: a global embedding and patch tokens, for transformers and CNNs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zssbir_cli.compute.distributed import BATCH_NORMS
from zssbir_cli.compute.memory import out_of_memory
from zssbir_cli.models.backbone import create_backbone, unfit
from zssbir_cli.models.contours import contours
from zssbir_cli.models.folding import fold_batchnorm
from zssbir_cli.models.pretrained import check_backbone
from zssbir_cli.models.tune import select_trained
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
    checkpoint will fill them. Raises `UsageError` for an unknown backbone, an option or a size that it does not take,
    and `CheckpointError` for weights that cannot be had or do not fit."""
    check_backbone(config.backbone)
    encoder = _wrapped(create_backbone(config, size, load), config)
    if load:
        check_input(encoder, config, size)
    return encoder


def check_input(encoder: Encoder, config: ModelConfig, size: int, key: str = "data.size") -> None:
    """Embed a blank image of `size` pixels. Raises `UsageError` that names the option, or `key`, when that fails."""
    try:
        _try_blank(encoder, size)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise unfit(config, f"{key} = {size}", error, lambda other: _takes(other, size)) from error


def _takes(config: ModelConfig, size: int) -> bool:
    """Whether the backbone can be made and embeds an image of that size; weights do not matter."""
    try:
        _try_blank(_wrapped(create_backbone(config, size, load=False), config), size)
    except Exception:
        return False
    return True


def _try_blank(encoder: Encoder, size: int) -> None:
    modes = {module: module.training for module in encoder.modules()}
    try:
        with torch.no_grad():
            out = encoder.eval()(torch.full((1, 3, size, size), 255, dtype=torch.uint8))
    finally:
        for module, mode in modes.items():
            module.training = mode
    if out.embedding.shape != (1, encoder.dim):
        raise ValueError(
            f"an image becomes {list(out.embedding.shape)[1:]} numbers instead of one row of {encoder.dim}"
        )


def _wrapped(backbone: nn.Module, config: ModelConfig) -> Encoder:
    """The encoder around a backbone: normalisation, and what of it is trained."""
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
