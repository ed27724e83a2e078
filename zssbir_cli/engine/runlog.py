"""The run folder: the one place that knows its layout, and who writes into it (rank 0 alone).

`runs/<time>-<recipe name>/` holds recipe.yaml, run.json, metrics.jsonl, checkpoints/, embeddings/, eval/ and
pictures; `runs/latest` points to the newest.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from zssbir_cli.compute import distributed
from zssbir_cli.engine import runs
from zssbir_cli.engine.runs import LOCK, read_record, rows_of
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import Lock, Locked, reason, write_bytes, write_json, write_text
from zssbir_cli.names import file_part

Json = Mapping[str, Any]


@dataclass
class RunDir:
    """One run's folder. `recipe` is the resolved recipe and `data` what is learnt from (`Learnt.as_json`);
    checkpoints carry both, and resuming compares them."""

    path: Path
    recipe: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    rows: int = 0
    """Lines of metrics.jsonl so far."""
    _last: dict[str, Any] = field(default_factory=dict)
    _tail: list[bytes] = field(default_factory=list)
    """The last line, and those that could not be written yet."""
    _start: int = 0
    """Where `_tail` begins in the file."""

    @classmethod
    def create(
        cls, root: Path, name: str, *, recipe: Json, recipe_yaml: str, data: Json, record: Json
    ) -> "RunDir":
        """Make a new run folder under `root` (on rank 0; the others learn its path).

        Raises UsageError when the folder cannot be written.
        """
        path, problem = root, ""
        if distributed.is_main():
            try:
                path = _new_folder(root, name)
                write_text(path / "recipe.yaml", recipe_yaml)
                write_json(path / "run.json", record)
            except OSError as error:
                problem = (
                    f"{root}: cannot write the run's folder ({reason(error)}); choose another with --runs"
                )
        path, problem = distributed.from_main((path, problem))
        if problem:
            raise UsageError(problem)
        return cls(path, recipe, data)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Only one process trains in a run's folder. Raises Locked (on every rank), DataError."""
        with ExitStack() as stack:
            problem: DataError | None = None
            if distributed.is_main():
                try:
                    stack.enter_context(Lock(self.path / LOCK, "training"))
                except Locked as error:
                    problem = error
                except OSError as error:
                    problem = DataError(f"{self.path}: cannot be written ({reason(error)})")
            if problem := distributed.from_main(problem):
                raise problem
            yield

    @property
    def checkpoints(self) -> Path:
        """Folder of `last`, `last.previous`, `best` and `epoch-NNNN`."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per line and step, in order."""
        return self.path / "metrics.jsonl"

    def append(self, row: Json) -> str | None:
        """Add a row to metrics.jsonl, or its values to the last row when that is of the same step (rank 0). Returns
        what went wrong, if anything: the row is then kept in memory and written with the next one."""
        if not distributed.is_main():
            return None
        finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()}
        if self._last.get("step") == row.get("step") and self.rows:
            self._last |= finite
            self._tail.pop()
        else:
            self._last = finite
            self.rows += 1
        self._tail.append((json.dumps(self._last) + "\n").encode())
        return self._write_tail()

    def _write_tail(self) -> str | None:
        """Make `_tail` what stands in metrics.jsonl from byte `_start` on; where that fails, the file keeps what it
        had."""
        try:
            self.metrics_file.touch()
            with self.metrics_file.open("rb+", buffering=0) as file:
                file.seek(self._start)
                had = file.read()
                try:
                    _write_from(file, self._start, b"".join(self._tail))
                except OSError:
                    _write_from(file, self._start, had)
                    raise
        except OSError as error:
            return f"{self.metrics_file}: {reason(error)}"
        self._start += sum(map(len, self._tail[:-1]))
        self._tail = self._tail[-1:]
        return None

    def trim(self, rows: int) -> None:
        """Keep the first `rows` lines of metrics.jsonl: those from before the checkpoint, up to one that is damaged
        (rank 0)."""
        if distributed.is_main() and self.metrics_file.exists():
            lines = self.metrics_file.read_bytes().splitlines(keepends=True)[:rows]
            kept = list(rows_of(lines))
            self.rows, self._last, self._tail = len(kept), kept[-1] if kept else {}, lines[: len(kept)][-1:]
            write_bytes(self.metrics_file, b"".join(lines[: len(kept)]))
            self._start = self.metrics_file.stat().st_size - sum(map(len, self._tail))

    def record(self) -> dict[str, Any]:
        """What run.json holds; empty when there is none or it is damaged."""
        return read_record(self.path) or {}

    def update_record(self, values: Json) -> str | None:
        """Add to run.json (rank 0). Returns what went wrong, if anything."""
        if not distributed.is_main():
            return None
        file = self.path / "run.json"
        try:
            write_json(file, {**self.record(), **values})
        except OSError as error:
            return f"{file}: {reason(error)}"
        return None

    def point_latest(self) -> str | None:
        """Make this the latest run (rank 0). Returns what went wrong, if anything."""
        return runs.point_latest(self.path) if distributed.is_main() else None


def _new_folder(root: Path, name: str) -> Path:
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{file_part(name)}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        path = root / (base if number == 1 else f"{base}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise FileExistsError(17, "too many runs of the same second", str(root / base))


def _write_from(file: IO[bytes], start: int, data: bytes) -> None:
    """Make `data` what an unbuffered file holds from `start` on."""
    file.seek(start)
    done = file.write(data)
    while done < len(data):  # the disk took a part; the next call says why
        done += file.write(data[done:])
    file.truncate(start + len(data))
