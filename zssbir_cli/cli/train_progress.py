"""How `zssbir train` (and `zssbir demo`) shows a run's progress."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zssbir_cli.engine.profile import StepProfile
    from zssbir_cli.engine.report import Report

CLEAR = "\r\033[K"


class TrainHooks:
    """One updated line on a terminal, else a line each 10 % or 60 s; validations and notes always."""

    def __init__(self) -> None:
        self.terminal = sys.stderr.isatty()
        self.shown, self.last = 0.0, time.monotonic()

    def report(self, report: "Report") -> None:
        """Show a report of the loop (see `engine.report.Hooks`)."""
        if any(k.startswith("val/") for k in report.logs):
            self._print(progress_line(report))
        elif self.terminal:
            print(CLEAR + progress_line(report), end="", file=sys.stderr, flush=True)
        elif self._due(report.step / max(1, report.total_steps)):
            self._print(progress_line(report))

    def _due(self, share: float) -> bool:
        due = share - self.shown >= 0.1 or time.monotonic() - self.last >= 60 or share >= 1
        if due:
            self.shown, self.last = share, time.monotonic()
        return due

    def note(self, message: str) -> None:
        """Show a note of the loop."""
        self._print(message)

    def _print(self, line: str) -> None:
        print((CLEAR if self.terminal else "") + line, file=sys.stderr, flush=True)


def progress_line(report: "Report") -> str:
    """Step, epoch, values, speed, data wait, memory and time left, as one line."""
    head = f"step {report.step}/{report.total_steps}  epoch {report.epoch:.1f}/{report.epochs}"
    if any(k.startswith("val/") for k in report.logs):
        return f"{head}  held-out seen classes: {values(report.logs)}"
    speed = f"{report.images_per_s:.0f} items/s, {report.data_wait:.0%} waiting for data"
    return (
        f"{head}  {values(report.logs)}  {speed}, {report.memory_mb:.0f} MiB, {duration(report.eta_s)} left"
    )


def values(logs: Mapping[str, float]) -> str:
    """Named values as short text."""
    return "  ".join(f"{k} {v:.4g}" for k, v in logs.items())


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_profile(found: "StepProfile") -> None:
    """Tables of a step's phases and of its most expensive operators, on stdout (rank 0)."""
    from zssbir_cli.cli.console import table
    from zssbir_cli.compute.distributed import is_main

    if not is_main():
        return
    phases = [(name, ms, 100 * ms / found.step_ms) for name, ms in found.phases.items()]
    table(
        ["phase", "ms", "%"],
        phases,
        f"one step: {found.step_ms:.1f} ms (median of {found.steps}), {found.images_per_s:.1f} items/s, "
        f"peak memory {found.memory_mb:.0f} MiB",
    )
    table(["operator", "ms a step"], found.operators)
