"""Centring: taking away from embeddings what only tells sketches from photos."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.types import Modality

SAMPLE = 256
"""Training images of each modality over which the means are taken."""


class Centring(nn.Module):
    """z -> unit(unit(x) - mean of the unit embeddings of x's modality).

    The means are zero until `set_mean`, so that an untrained method embeds as without centring. They are
    functions of the weights that retrieval uses, and are neither averaged nor blended with the start.
    """

    sketch: Tensor
    photo: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("sketch", torch.zeros(dim))
        self.register_buffer("photo", torch.zeros(dim))

    def forward(self, embeddings: Tensor, modality: Modality) -> Tensor:
        """float [B, D] of one modality -> unit length, float32 [B, D]."""
        unit = functional.normalize(embeddings.float(), dim=1)
        return functional.normalize(unit - self._mean(modality), dim=1)

    def set_mean(self, embeddings: Tensor, modality: Modality) -> None:
        """Take the mean of float [N, D] embeddings (at unit length) as this modality's."""
        self._mean(modality).copy_(functional.normalize(embeddings.float(), dim=1).mean(0))

    def _mean(self, modality: Modality) -> Tensor:
        return self.sketch if modality is Modality.SKETCH else self.photo
