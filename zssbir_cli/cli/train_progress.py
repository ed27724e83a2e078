"""How `zssbir train` (and `zssbir demo`) shows a run's progress."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zssbir_cli.cli.console import note
from zssbir_cli.cli.display import duration, memory

if TYPE_CHECKING:
    from zssbir_cli.cli.display import Display
    from zssbir_cli.engine.profile import StepProfile
    from zssbir_cli.engine.report import Report


KEPT_FOR_FILES = ("monitor/", "clusters/")
"""Beginnings of values that stand in metrics.jsonl and the curves, and would drown the losses here."""


class TrainHooks:
    """Shows a run's reports on a display: one line that changes; validations and notes stay."""

    def __init__(self, display: "Display") -> None:
        self.display = display

    def report(self, report: "Report") -> None:
        """Show a report of the loop (see `engine.report.Hooks`)."""
        if any(k.startswith("val/") for k in report.logs):
            note(progress_line(report))
        else:
            self.display.line(progress_line(report), report.step / max(1, report.total_steps))

    def note(self, message: str) -> None:
        """Show a note of the loop."""
        note(message)


def progress_line(report: "Report") -> str:
    """Step, epoch, values, speed, data wait, memory and time left, as one line."""
    head = f"step {report.step}/{report.total_steps}  epoch {report.epoch:.1f}/{report.epochs}"
    if any(k.startswith("val/") for k in report.logs):
        return f"{head}  held-out seen classes: {values(report.logs)}"
    speed = f"{report.images_per_s:.0f} items/s, {report.data_wait:.0%} waiting for data"
    first = {k: v for k, v in report.logs.items() if k == "loss"}
    rest = {k: v for k, v in report.logs.items() if k != "loss" and not k.startswith(KEPT_FOR_FILES)}
    return (  # what matters most comes first: a narrow terminal cuts the end
        f"{head}  {values(first)}  {duration(report.eta_s)} left, {speed}, {memory(report.memory_mb)}  {values(rest)}"
    )


def values(logs: Mapping[str, float]) -> str:
    """Named values as short text."""
    return "  ".join(f"{k} {v:.4g}" for k, v in logs.items())


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
        f"peak memory: {memory(found.memory_mb)}",
    )
    table(["operator", "ms a step"], found.operators)
