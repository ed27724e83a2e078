"""What the loop trains and the profiler measures, as one object."""

from collections.abc import Callable
from dataclasses import dataclass

from zssbir_cli.compute.precision import Precision
from zssbir_cli.methods.base import Method, Probe, TrainData
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig

Validate = Callable[[Method], dict[str, float]]
"""Retrieval on held-out seen classes with the weights that the method holds; called on every rank."""


@dataclass(frozen=True)
class Job:
    """A method, its data, and how to train it."""

    method: Method
    data: TrainData
    optim: OptimConfig
    train: TrainConfig
    precision: Precision
    probe: Probe
    workers: int = 0
    validate: Validate | None = None
    """None where nothing is held out: `checkpoints/best` is then the last."""
    overfit: int | None = None
    """Train on the first so many batches again and again (for debugging)."""
