"""Reports as TensorBoard event files (the extra `tensorboard`)."""

from pathlib import Path
from typing import Any

from zssbir_cli.engine.report import Hooks, Report
from zssbir_cli.errors import UsageError


class TensorBoardHooks:
    """Writes every report below `folder`, and passes reports and notes on to `inner`."""

    def __init__(self, folder: Path, inner: Hooks) -> None:
        """Raises UsageError when the package is not installed (before training starts)."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UsageError(
                "--tensorboard needs the package: python -m pip install '.[tensorboard]'"
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
        """Pass on."""
        self._inner.note(message)

    def close(self) -> None:
        """Write what is still in memory."""
        if self._writer is not None:
            self._writer.close()
