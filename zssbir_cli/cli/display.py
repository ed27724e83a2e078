"""The one display of progress: a line that fits the terminal, or, where there is none, a line now and then."""

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from zssbir_cli.cli.console import note, table
from zssbir_cli.compute.memory import check_addresses

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from zssbir_cli.engine.profile import StepProfile
    from zssbir_cli.engine.report import Report

BAR = 20
EVERY_SECONDS = 60.0
LEAST_SECONDS = 1.0
"""Where there is no terminal, no two lines of one pass come closer than this."""


class Display:
    """Shows how far the work is; call it as a `Progress`. Notes printed meanwhile appear above its line."""

    def __init__(self, begun: str, *, live: bool = False) -> None:
        self.live, self.text = live, begun
        self.what, self.began, self.first = "", 0.0, 0
        self.shown, self.last, self.spoke = -1, 0.0, False
        self.main = os.environ.get("RANK", "0") == "0"
        if self.main and not live:
            note(f"{begun} ...")

    def __call__(self, what: str, done: int, total: int) -> None:
        if not self.main:
            return
        now = time.monotonic()
        if what != self.what:
            self.what, self.began, self.first = what, now, done
            self.shown, self.last = -1, now - LEAST_SECONDS
        text = progress_text(what, done, total, done - self.first, now - self.began, bar=self.live)
        self.line(text, done / max(1, total), now, LEAST_SECONDS)

    def line(self, text: str, share: float, now: float, apart: float = 0.0) -> None:
        """Show a ready line of work that is `share` (0-1) done, `apart` seconds or more after the one before."""
        tenth = int(10 * share + 1e-9)
        if self.live:
            self.text = text
        elif (tenth > self.shown and now - self.last >= apart) or now - self.last >= EVERY_SECONDS:
            self.shown, self.last = tenth, now
            note(text)

    def __rich__(self) -> "Text":
        from rich.text import Text

        return Text(self.text, no_wrap=True, overflow="ellipsis")


def progress_text(what: str, done: int, total: int, fresh: int, seconds: float, *, bar: bool) -> str:
    """One line: what, a bar, items, percent, speed and time left; `fresh` items took `seconds`."""
    share = done / total if total else 1.0
    parts = [f"{what}:"]
    if bar:
        full = int(BAR * share)
        parts.append("[" + "#" * full + "." * (BAR - full) + "]")
    parts.append(f"{done:,} of {total:,} ({int(100 * share + 1e-9)} %)")
    if fresh > 0 and seconds >= 1:
        rate = fresh / seconds
        parts.append(f"{rate:,.0f}/s," if rate >= 10 else f"{rate:.1f}/s,")
        parts.append(f"{duration((total - done) / rate)} left")
    return " ".join(parts)


def memory(mebibytes: float) -> str:
    """Peak memory as short text."""
    return "memory unknown" if math.isnan(mebibytes) else f"{mebibytes:,.0f} MiB"


def duration(seconds: float) -> str:
    """Seconds as h:mm:ss or m:ss."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def progress(begun: str) -> Iterator[Display]:
    """A display for as long as the context lasts; it shows `begun` at once. The line is gone afterwards."""
    console = _terminal()
    if console is None or os.environ.get("RANK", "0") != "0":
        yield Display(begun)
        return
    from rich.live import Live

    display = Display(begun, live=True)
    to_terminal = sys.stdout.isatty()  # what goes to a file or a pipe stays out of the display
    with Live(display, console=console, transient=True, refresh_per_second=5, redirect_stdout=to_terminal):
        yield display


def loading(command: str, what: str) -> AbstractContextManager[Display]:
    """The display of a command that begins by loading PyTorch and `what`. UsageError when PyTorch cannot be loaded here."""
    check_addresses()
    return progress(f"{command}: loading PyTorch and {what}")


def _terminal() -> "Console | None":
    """A console on stderr, no wider than the terminal is, or None where there is no terminal."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if console.is_dumb_terminal:
        return None
    try:
        real = os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:
        real = 0
    if 0 < real < console.width:  # a stale COLUMNS in the environment
        console.width = real
    return console


KEPT_FOR_FILES = ("monitor/", "clusters/")
"""Beginnings of values that stand in metrics.jsonl and the curves, and would drown the losses here."""


class TrainHooks:
    """Shows a run's reports on a display: one line that changes; validations and notes stay."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def report(self, report: "Report") -> None:
        """Show a report of the loop (see `engine.report.Hooks`)."""
        if any(k.startswith("val/") for k in report.logs):
            note(progress_line(report))
        else:
            self.display.line(
                progress_line(report), report.step / max(1, report.total_steps), time.monotonic()
            )

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
