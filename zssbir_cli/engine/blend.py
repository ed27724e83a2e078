"""Blending of trained and start weights for retrieval (weight-space ensembling, Wortsman et al. 2022)."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from zssbir_cli.engine.ema import copy_into, holding
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Method
from zssbir_cli.recipe.schema import TrainConfig

SHARES = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""What `train.blend: auto` chooses from."""


def first_share(train: TrainConfig, validates: bool) -> float:
    """The share that holds until a validation chooses another. Raises UsageError for `auto` without validation."""
    if train.blend != "auto":
        return train.blend
    if not validates or not train.validate_every:
        raise UsageError(
            "train.blend: auto is chosen on held-out seen classes, but this run does not validate (data set without "
            "val classes, or train.validate_every = 0): set train.blend to a number such as 0.7"
        )
    return 1.0


class Blend:
    """Weights used for retrieval = start + share * (trained - start), over all floating-point tensors of the
    method's `retrieval_state()`, batch-norm statistics included, but not the means of `models.centring`, which are
    measured on the blend. Build it before the first step."""

    def __init__(self, method: Method) -> None:
        self._method = method
        self.start = {name: tensor.clone() for name, tensor in self._live().items()}

    def _live(self) -> dict[str, Tensor]:
        """The method's tensors of now: where ranks share batch norms, each step makes new ones of the statistics."""
        state = self._method.retrieval_state().items()
        return {k: v.detach() for k, v in state if v.is_floating_point() and "centring." not in k}

    def of(self, weights: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The blend of `weights`, which hold a tensor for every name in `start`, with the start."""
        return {name: torch.lerp(start, weights[name], share) for name, start in self.start.items()}

    def restore(self, start: Mapping[str, Tensor]) -> None:
        """Take the start from a checkpoint, whatever the method was built from this time."""
        copy_into(self.start, start)

    def applied(self, share: float) -> AbstractContextManager[None]:
        """The method holds the blend inside this context, and its own weights again after it."""
        live = self._live()
        return holding(live, self.of(live, share))
