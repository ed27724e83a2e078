"""What the loop tells the outside world while it runs."""

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch


@dataclass(frozen=True)
class Report:
    """State of a run since the last report."""

    step: int
    total_steps: int
    epoch: float
    """Epochs done, with fraction."""
    epochs: int
    logs: Mapping[str, float]
    """Means of the method's logs since the last report, and `lr`; or the values of a validation
    (`val/...`)."""
    images_per_s: float
    """Global items (as the plan counts them) a second."""
    data_wait: float
    """Share of the time spent waiting for data, 0-1."""
    memory_mb: float
    """Peak memory of the GPU, or of this process on a CPU."""
    eta_s: float
    """Seconds to the end at the speed of this session."""


class Hooks(Protocol):
    """Receives reports and notes (on rank 0 only)."""

    def report(self, report: Report) -> None:
        """Called every few steps and after each validation."""
        ...

    def note(self, message: str) -> None:
        """Called with one line that the user should see."""
        ...


@dataclass
class Silent:
    """Hooks that only collect."""

    reports: list[Report] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def report(self, report: Report) -> None:
        """Keep the report."""
        self.reports.append(report)

    def note(self, message: str) -> None:
        """Keep the note."""
        self.notes.append(message)


def memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: allocated by PyTorch on a GPU, resident size of the process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
