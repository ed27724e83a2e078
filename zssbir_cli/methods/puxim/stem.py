"""The published patch stem: a small convolution stack averaged with the patch embedding."""

from typing import Any

from torch import Tensor, nn

from zssbir_cli.errors import UsageError


class AveragedStem(nn.Module):
    """(patch embedding + convolution stem) / 2, in place of a ViT's patch embedding.

    The stem is 7/2, 3/2, 3/2 and 3/2 convolutions with 64-128-256-D channels and ReLU between, randomly
    initialised, as in the published code; an option, because it perturbs pretrained tokens. Other attributes
    are those of the wrapped patch embedding.
    """

    def __init__(self, patch_embed: nn.Module, dim: int) -> None:
        super().__init__()
        self.inner = patch_embed
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(128, 256, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(256, dim, 3, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> patch tokens [B, N, D]."""
        out: Tensor = (self.inner(x) + self.stem(x).flatten(2).transpose(1, 2)) / 2
        return out

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner":
                raise
            return getattr(self.inner, name)


def add_stem(backbone: nn.Module, dim: int) -> None:
    """Put the stem before a ViT's blocks. Raises UsageError for a backbone without 16-pixel patches."""
    patch_embed = getattr(backbone, "patch_embed", None)
    if tuple(getattr(patch_embed, "patch_size", ())) != (16, 16) or not isinstance(patch_embed, nn.Module):
        raise UsageError("method.stem needs a ViT with 16-pixel patches; set method.stem to false")
    backbone.patch_embed = AveragedStem(patch_embed, dim)
