"""Where the time of a training step goes, measured on the real method and data."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from zssbir_cli.compute import distributed
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.engine.job import Job
from zssbir_cli.engine.loader import training_stream
from zssbir_cli.engine.report import memory_mb
from zssbir_cli.engine.step import Stepper
from zssbir_cli.methods.base import Batch, Position

PHASES = ("data", "copy", "forward", "backward", "optimizer")
WARMUP, TRACED, TOP = 3, 3, 12
"""Steps before the measured ones, and under PyTorch's profiler; operators that are shown."""


@dataclass(frozen=True)
class StepProfile:
    """Medians over the measured steps, in milliseconds; operators by their own time, per step."""

    steps: int
    step_ms: float
    phases: dict[str, float]
    """Milliseconds of each of `PHASES`, and `other` (schedules, logs, teachers)."""
    operators: list[tuple[str, float]]
    images_per_s: float
    memory_mb: float


def profile_steps(job: Job, steps: int) -> StepProfile:
    """Take a few steps, measure `steps` more by phase, then three under PyTorch's profiler; nothing is
    written.

    On a GPU the host waits for the device after each phase, which makes the sum a little larger than an
    undisturbed step. Raises DataError, DivergedError, UsageError.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # PyTorch's profiler writes about its own life to stderr
    distributed.local_rows(job.train.batch_size)
    accumulate, device = job.optim.accumulate, job.precision.device
    stepper = Stepper(job.method, job.optim, job.train, job.precision)
    seed_all(job.train.seed, -1)
    job.method.before_epoch(0, job.probe)
    stepper.wrap()
    total = (WARMUP + steps + TRACED) * accumulate
    stream = training_stream(
        job.data, first=0, stop=total, workers=job.workers, pin=device.type == "cuda",
        overfit=min(job.data.plan.steps_per_epoch, total),
    )  # fmt: skip
    with closing(stream):
        timer = _Timer(stepper, stream, accumulate)
        for _ in range(WARMUP):
            timer.step()
        measured = [timer.step() for _ in range(steps)]
        operators = timer.trace()
    step_ms = 1e3 * median(spent["step"] for spent in measured)
    phases = {name: 1e3 * median(spent[name] for spent in measured) for name in PHASES}
    phases["other"] = max(0.0, step_ms - sum(phases.values()))
    return StepProfile(
        steps=steps,
        step_ms=step_ms,
        phases=phases,
        operators=operators,
        images_per_s=job.train.batch_size * accumulate / step_ms * 1e3,
        memory_mb=memory_mb(device),
    )


class _Timer:
    """Takes real steps, and notes the seconds of each phase."""

    def __init__(self, stepper: Stepper, stream: Iterator[Batch], batches: int) -> None:
        self.stepper, self.stream, self.batches, self.done = stepper, stream, batches, 0
        self.device = stepper.precision.device
        self.spent: dict[str, float] = defaultdict(float)
        stepper.phase = self.phase

    def step(self) -> dict[str, float]:
        """One optimizer step: seconds of each phase, and of the whole `step`."""
        self.spent = defaultdict(float)
        self._wait()
        start = time.perf_counter()
        position = Position(self.done, self.done + 1, 0, 1)
        self.stepper.step(self._next_batch, self.batches, position, stop=False)
        self._wait()
        self.spent["step"] = time.perf_counter() - start
        self.done += 1
        return self.spent

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase, until the device has done its part."""
        start = time.perf_counter()
        yield
        self._wait()
        self.spent[name] += time.perf_counter() - start

    def trace(self) -> list[tuple[str, float]]:
        """The `TOP` operators of `TRACED` further steps with their own milliseconds a step."""
        cuda = self.device.type == "cuda"
        activities = [torch.profiler.ProfilerActivity.CPU]
        if cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as recorded:
            for _ in range(TRACED):
                self.step()
        key = "self_device_time_total" if cuda else "self_cpu_time_total"
        events = sorted(recorded.key_averages(), key=lambda e: -getattr(e, key))[:TOP]
        return [(e.key, getattr(e, key) / TRACED / 1e3) for e in events]

    def _next_batch(self, _: int) -> Batch:
        with self.phase("data"):
            return next(self.stream)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
