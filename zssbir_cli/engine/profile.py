"""Where the time of a training step goes, measured on the real method and data."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from statistics import median

import torch

from zssbir_cli.engine import distributed
from zssbir_cli.engine.loader import training_stream
from zssbir_cli.engine.precision import Precision
from zssbir_cli.engine.report import memory_mb
from zssbir_cli.engine.step import Stepper, seed_all
from zssbir_cli.methods.base import Method, Probe, Progress, TrainData
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig

PHASES = ("data", "copy", "forward", "backward", "optimizer")


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


def profile_steps(
    method: Method,
    data: TrainData,
    *,
    optim: OptimConfig,
    train: TrainConfig,
    workers: int,
    precision: Precision,
    probe: Probe,
    steps: int = 10,
    warmup: int = 3,
    top: int = 12,
) -> StepProfile:
    """Take `warmup` steps, measure `steps` more by phase, then three under PyTorch's profiler; nothing is
    written.

    On a GPU the host waits for the device after each phase, which makes the sum a little larger than an
    undisturbed step. Raises DataError, DivergedError, UsageError.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # PyTorch's profiler writes about its own life to stderr
    distributed.local_rows(train.batch_size)
    stepper = Stepper(method, optim, train, precision)
    seed_all(train.seed, -1)
    method.before_epoch(0, probe)
    stepper.wrap()
    total, done = warmup + steps + 3, 0
    spent: dict[str, list[float]] = defaultdict(list)
    current: dict[str, float] = defaultdict(float)
    cuda = precision.device.type == "cuda"

    def wait() -> None:
        if cuda:
            torch.cuda.synchronize(precision.device)

    @contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        wait()
        current[name] += time.perf_counter() - start

    batches = min(data.plan.steps_per_epoch, total * optim.accumulate)
    with closing(
        training_stream(
            data, first=0, stop=total * optim.accumulate, workers=workers, pin=cuda, overfit=batches
        )
    ) as stream:

        def next_batch(_: int) -> dict[str, torch.Tensor]:
            with phase("data"):
                batch: dict[str, torch.Tensor] = next(stream)
            return batch

        def take() -> None:
            nonlocal done
            current.clear()
            wait()
            start = time.perf_counter()
            progress = Progress(done, total, 0, 1)
            stepper.step(next_batch, optim.accumulate, progress, stop=False)
            wait()
            current["step"] = time.perf_counter() - start
            done += 1
            for name, seconds in current.items():
                spent[name].append(seconds)

        stepper.phase = phase
        for _ in range(warmup):
            take()
        spent.clear()
        for _ in range(steps):
            take()
        measured = {name: median(values) * 1e3 for name, values in spent.items()}
        activities = [torch.profiler.ProfilerActivity.CPU]
        if cuda:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as recorded:
            for _ in range(3):
                take()
    step_ms = measured.pop("step")
    phases = {name: measured.get(name, 0.0) for name in PHASES}
    phases["other"] = max(0.0, step_ms - sum(phases.values()))
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    events = sorted(recorded.key_averages(), key=lambda e: -getattr(e, key))[:top]
    return StepProfile(
        steps=steps,
        step_ms=step_ms,
        phases=phases,
        operators=[(e.key, getattr(e, key) / 3e3) for e in events],
        images_per_s=train.batch_size * optim.accumulate / step_ms * 1e3,
        memory_mb=memory_mb(precision.device),
    )
