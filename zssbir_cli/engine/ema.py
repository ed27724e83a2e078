"""An exponential moving average of the trainable weights, used for retrieval."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@torch.no_grad()
def move_towards(averages: Iterable[Tensor], weights: Iterable[Tensor], share: Tensor) -> None:
    """average <- average + share * (weight - average) in place, for each pair; `share` is a scalar tensor."""
    for average, weight in zip(averages, weights, strict=True):
        average.lerp_(weight, share.to(average.dtype))


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
        move_towards(self.average.values(), self._live.values(), (1 - decay) * (1 - skipped))
        self.updates += 1

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The module holds the averaged weights inside this context, and its own again after it."""
        own = {name: p.detach().clone() for name, p in self._live.items()}
        try:
            self._copy(self.average)
            yield
        finally:
            self._copy(own)

    @torch.no_grad()
    def _copy(self, source: dict[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(source[name])
