"""What the loop tells the outside world while it runs: rows of metrics.jsonl, reports to its hooks, TensorBoard files."""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from zssbir_cli.compute import distributed
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.errors import UsageError


@dataclass(frozen=True)
class Report:
    """State of a run since the last report."""

    step: int
    total_steps: int
    epoch: float
    """Epochs done, with fraction."""
    epochs: int
    logs: Mapping[str, float]
    """Means of the method's logs since the last report, and `lr`; or a validation's values (`val/...`)."""
    images_per_s: float
    """Global items (as the plan counts them) a second; 0 for a validation."""
    data_wait: float
    """Share of the time spent waiting for data, 0-1."""
    memory_mb: float
    """Peak memory of the GPU, or of this process on a CPU (NaN: unknown)."""
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
        self.reports.append(report)

    def note(self, message: str) -> None:
        self.notes.append(message)


class Reporter:
    """Measures speed with a clock that never jumps, writes rows and tells the hooks."""

    def __init__(
        self, run: RunDir, hooks: Hooks, *, total: int, epochs: int, items: float, device: torch.device
    ):
        self.run, self.hooks, self.device = run, hooks, device
        self.total, self.epochs, self.items = total, epochs, items
        self.start(0)

    def start(self, step: int) -> None:
        """The session begins at `step`; `items` are consumed by each step."""
        self.began = self._since = time.perf_counter()
        self.first = self._step = step
        self._waited = 0.0

    @property
    def seconds(self) -> float:
        """Duration of this session."""
        return time.perf_counter() - self.began

    def pause(self, since: float) -> None:
        """Leave the time since `since` (of time.perf_counter) out of the training speed."""
        self._since += time.perf_counter() - since

    def trained(self, step: int, means: Mapping[str, float], waited: float) -> None:
        """Report on the steps since the last call; `waited`: seconds of waiting for data so far."""
        span = max(1e-9, time.perf_counter() - self._since)
        images, wait = (step - self._step) * self.items / span, (waited - self._waited) / span
        self._since, self._step, self._waited = time.perf_counter(), step, waited
        self.log(step, {**means, "images_per_s": round(images, 2), "data_wait": round(wait, 4)})
        self._tell(step, means, images, wait)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Report the values of a validation."""
        self.log(step, metrics)
        self._tell(step, metrics, 0.0, 0.0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row to metrics.jsonl."""
        row = {"step": step, "epoch": round(step / self.total * self.epochs, 4), **values}
        problem = self.run.append(row)
        if problem:
            self.note(f"warning: {problem}; the row is kept in memory and written with the next one")

    def _tell(self, step: int, logs: Mapping[str, float], images_per_s: float, data_wait: float) -> None:
        if not distributed.is_main():
            return
        report = Report(
            step=step,
            total_steps=self.total,
            epoch=step / self.total * self.epochs,
            epochs=self.epochs,
            logs=logs,
            images_per_s=images_per_s,
            data_wait=data_wait,
            memory_mb=memory_mb(self.device),
            eta_s=self.seconds / max(1, step - self.first) * (self.total - step),
        )
        self.hooks.report(report)

    def note(self, message: str) -> None:
        """Tell the user one line (rank 0)."""
        if distributed.is_main():
            self.hooks.note(message)


def memory_mb(device: torch.device) -> float:
    """Peak memory in MiB: allocated by PyTorch on a GPU, resident size of the process on a CPU; NaN where the system
    does not tell (Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return math.nan
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


class TensorBoardHooks:
    """Writes every report below `folder`, and passes reports and notes on to `inner`."""

    def __init__(self, folder: Path, inner: Hooks) -> None:
        """Raises UsageError when the package is not installed (before training starts)."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the tensorboard extra: python -m pip install '.[tensorboard]'"
            ) from error
        self._writer: Any = None
        self._make, self._folder, self._inner = SummaryWriter, folder, inner

    def report(self, report: Report) -> None:
        """Write the values of a report at its step."""
        self._inner.report(report)
        if self._writer is None:  # the first step after a resume hides what a killed session wrote beyond it
            self._writer = self._make(str(self._folder), purge_step=report.step, flush_secs=10)
        for name, value in report.logs.items():
            self._writer.add_scalar(name, value, report.step)
        if report.images_per_s:
            self._writer.add_scalar("speed/items_per_s", report.images_per_s, report.step)
            self._writer.add_scalar("speed/data_wait", report.data_wait, report.step)

    def note(self, message: str) -> None:
        self._inner.note(message)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
