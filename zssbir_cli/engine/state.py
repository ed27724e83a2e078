"""Where a run is, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


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
