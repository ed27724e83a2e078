"""What the loop trains, as one object; where a run is, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

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
    """Train on the first `overfit` batches again and again (for debugging)."""


@dataclass(frozen=True)
class FitResult:
    """What came of a run: optimizer steps in all, last and best validation, speed of this session."""

    steps: int
    metrics: Mapping[str, float]
    best: Mapping[str, float]
    best_step: int
    seconds: float
    images_per_s: float
    data_wait: float
    blend: float
    """Share of the way from the start that the last checkpoint's retrieval weights are at (`train.blend`)."""


@dataclass
class State:
    """Where a run is and what it has found; goes into a checkpoint as it is."""

    step: int = 0
    epochs_ended: int = 0
    seconds: float = 0.0
    rows: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = -1
    blend: float = 1.0
