"""Rows that are written as they are computed, so that a long embedding pass can be killed and continued."""

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zssbir_cli.errors import DataError


class Stage:
    """float32 rows in `<target>.rows`, and `<target>.rows.json`: how many are complete, for which key.

    `done`: rows on disk that belong to `key`; `failed`: numbers of images that could not be read.
    """

    def __init__(self, target: Path, key: dict[str, str | int]) -> None:
        self.rows_file = target.with_name(target.name + ".rows")
        self.state_file = target.with_name(target.name + ".rows.json")
        self.key, self.done, self.width = key, 0, 0
        self.failed: list[int] = []
        try:
            state = json.loads(self.state_file.read_text())
            size = self.rows_file.stat().st_size
            if state["key"] == key and size >= state["done"] * state["width"] * 4:
                self.done, self.width = int(state["done"]), int(state["width"])
                self.failed = [int(i) for i in state["failed"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass

    def append(self, rows: npt.NDArray[np.float32], failed: list[int]) -> None:
        """Add rows [n, D] behind the complete ones and record them. DataError when the disk is full."""
        self.width = self.width or rows.shape[1]
        try:
            self.rows_file.parent.mkdir(parents=True, exist_ok=True)
            with self.rows_file.open("r+b" if self.done else "wb") as file:
                file.seek(self.done * self.width * 4)
                file.truncate()
                file.write(np.ascontiguousarray(rows, np.float32).tobytes())
                file.flush()
                os.fsync(file.fileno())
            self.done += len(rows)
            self.failed += failed
            self._record()
        except OSError as error:
            raise DataError(
                f"{self.rows_file}: cannot write ({error.strerror}); make room and run the same command again"
            ) from error

    def _record(self) -> None:
        state = {"key": self.key, "done": self.done, "width": self.width, "failed": self.failed}
        partial = self.state_file.with_name(self.state_file.name + ".partial")
        partial.write_text(json.dumps(state))
        partial.replace(self.state_file)

    def rows(self) -> npt.NDArray[np.float32]:
        """The complete rows as a read-only memory map [done, D]."""
        return np.memmap(self.rows_file, np.float32, "r", 0, (self.done, self.width))

    def remove(self) -> None:
        """Delete both files."""
        self.rows_file.unlink(missing_ok=True)
        self.state_file.unlink(missing_ok=True)
