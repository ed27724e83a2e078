"""An exponential moving average of the trainable weights, used for retrieval."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor, nn


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
