"""Reads of byte ranges from many files, safe to share between threads and across fork."""

import os
import threading
from pathlib import Path
from typing import Any, BinaryIO

OPEN_FILES = 256
"""Most files that one table keeps open."""


class OpenFiles:
    """Opens each file at its first read and keeps the most recently opened ones.

    One lock covers opening, eviction and the read itself: a descriptor that another thread closes while it is
    in use would be reused by the system, and the read would return bytes of another file. A forked or
    unpickled copy starts empty, so no process reads through another's descriptors or waits for its lock.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = OPEN_FILES if limit is None else limit
        self._reset()

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Bytes `start` to `start + size`; fewer at the end of the file. Raises OSError."""
        if self._process != os.getpid():
            self._reset()
        with self._lock:
            file = self._open.get(path) or self._add(path)
            file.seek(start)
            return file.read(size)

    def _add(self, path: Path) -> BinaryIO:
        file = path.open("rb", buffering=0)
        if len(self._open) >= self._limit:
            self._open.pop(next(iter(self._open))).close()
        self._open[path] = file
        return file

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._open: dict[Path, BinaryIO] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_limit": self._limit}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._limit = state["_limit"]
        self._reset()
