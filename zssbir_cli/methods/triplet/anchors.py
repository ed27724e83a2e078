"""Heads with fixed classifier weights over the training classes: their names in the tower's own words, or the means of
their photos before training."""

import hashlib
import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from zssbir_cli.compute import distributed
from zssbir_cli.methods.base import Growing
from zssbir_cli.models.clip_text import TextEncoder, clean_class_name, encode_words

log = logging.getLogger("zssbir")


class Anchors(Growing):
    """A fixed linear classifier over the training classes. Empty until `fill`; a checkpoint holds what it was filled with.

    directions: unit embeddings float32 [C, D]; labels: int64 [C], ascending.
    """

    directions: Tensor
    labels: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.zeros(0, dim))
        self.register_buffer("labels", torch.zeros(0, dtype=torch.int64))

    @property
    def ready(self) -> bool:
        """Whether there are anchors."""
        return len(self.labels) > 0

    def forward(self, embeddings: Tensor, labels: Tensor, scale: float) -> Tensor:
        """Cross-entropy of scale * cosine over the anchors: unit embeddings [N, D], labels [N] of training classes."""
        return functional.cross_entropy(
            scale * embeddings @ self.directions.T, torch.searchsorted(self.labels, labels)
        )


class TextAnchors(Anchors):
    """The names of the classes, embedded by the tower's text side."""

    def fill(self, names: Mapping[int, str], encode: TextEncoder | None, prompt: str) -> None:
        """Anchors for `names` (label -> class name of the training classes, and of no others).

        Without an encoder (a network of random weights has no text side that would fit it) each anchor is a random
        direction that depends on the name alone, and the log says so.
        """
        order = sorted(names)
        if encode is None:
            if distributed.is_main():
                log.warning(
                    "text anchors: random directions, because the weights are random (model.weights: none)"
                )
            texts = torch.stack([_direction(names[label], self.directions.shape[1]) for label in order])
        else:
            texts = encode_words(encode, [clean_class_name(names[label]) for label in order], prompt)
        device = self.directions.device
        self.directions, self.labels = texts.to(device), torch.tensor(order, device=device)


class MeanAnchors(Anchors):
    """The means of the classes' photos, as the network embeds them before training."""

    def fill(self, classes: Iterable[int], photos: Tensor, labels: Tensor) -> None:
        """photos: embeddings [N, D] of some training photos; labels: int64 [N], each class among them."""
        order, device = torch.tensor(sorted(classes)), self.directions.device
        sums = torch.zeros(len(order), photos.shape[1])
        sums.index_add_(
            0, torch.searchsorted(order, labels), functional.normalize(photos.float().cpu(), dim=1)
        )
        self.directions, self.labels = functional.normalize(sums, dim=1).to(device), order.to(device)


def _direction(name: str, dim: int) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()[:8], "little") >> 1
    drawn = torch.randn(dim, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(drawn, dim=0)
