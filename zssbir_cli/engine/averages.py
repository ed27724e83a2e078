"""Weights for retrieval other than the trained ones: their moving average, and a blend with the start."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn

from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Method
from zssbir_cli.recipe.schema import TrainConfig


class Ema:
    """avg <- d * avg + (1 - d) * weights after each step, with d = min(decay, (1 + n) / (10 + n)) at update
    n, so that the first steps do not pin the average to the start (as in TensorFlow's
    ExponentialMovingAverage)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self._live = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.average: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, skipped: Tensor) -> None:
        """Take in the present weights, unless the step was skipped (1 for yes, a scalar on the device)."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        share = (1 - decay) * (1 - skipped)
        for name, average in self.average.items():
            average.lerp_(self._live[name], share.to(average.dtype))
        self.updates += 1

    def applied(self) -> AbstractContextManager[None]:
        """The module holds the averaged weights inside this context, and its own again after it."""
        return holding(self._live, self.average)


@contextmanager
@torch.no_grad()
def holding(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> Iterator[None]:
    """The tensors `live` hold `values` inside this context, and their own again after it."""
    own = {name: tensor.detach().clone() for name, tensor in live.items()}
    try:
        copy_into(live, values)
        yield
    finally:
        copy_into(live, own)


@torch.no_grad()
def copy_into(live: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copy the value of the same name into each tensor."""
    for name, tensor in live.items():
        tensor.copy_(values[name])


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
