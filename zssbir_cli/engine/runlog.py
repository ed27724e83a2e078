"""The run folder: the one place that knows its layout, and who writes into it (rank 0 alone).

`runs/<time>-<recipe name>/` holds recipe.yaml, run.json, metrics.jsonl, checkpoints/, embeddings/, eval/ and
pictures; `runs/latest` points to the newest.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zssbir_cli.compute import distributed
from zssbir_cli.errors import UsageError

Json = Mapping[str, Any]


@dataclass
class RunDir:
    """One run's folder. `recipe` is the resolved recipe and `data` the identity of the data set; checkpoints
    carry both, and resuming compares them."""

    path: Path
    recipe: Json = field(default_factory=dict)
    data: Json = field(default_factory=dict)
    rows: int = 0
    _unwritten: str = ""

    @classmethod
    def create(
        cls, root: Path, name: str, *, recipe: Json, recipe_yaml: str, data: Json, record: Json
    ) -> "RunDir":
        """Make a new run folder under `root` (on rank 0; the others learn its path) and point `latest` to it.

        Raises UsageError when the folder cannot be written.
        """
        path, problem = root, ""
        if distributed.is_main():
            try:
                path = _new_folder(root, name)
                (path / "recipe.yaml").write_text(recipe_yaml)
                write_json(path / "run.json", record)
                _point_latest(root, path)
            except OSError as error:
                problem = (
                    f"{root}: cannot write the run's folder ({error.strerror}); choose another with --runs"
                )
        path, problem = distributed.from_main((path, problem))
        if problem:
            raise UsageError(problem)
        return cls(path, recipe, data)

    @classmethod
    def latest(cls, root: Path = Path("runs")) -> Path:
        """The newest run's folder under `root`. Raises UsageError when there is none."""
        pointer = root / "latest"
        target = pointer
        if pointer.is_file():
            target = root / pointer.read_text().strip()
        if not (target / "run.json").is_file():
            raise UsageError(
                f"{root}: no run here yet; start one with `zssbir train --recipe ...`, or name a folder"
            )
        return target.resolve()

    @property
    def checkpoints(self) -> Path:
        """Folder of `last`, `last.previous`, `best` and `epoch-NNNN`."""
        return self.path / "checkpoints"

    @property
    def metrics_file(self) -> Path:
        """One JSON object per line, in order of steps."""
        return self.path / "metrics.jsonl"

    def append(self, row: Json) -> str | None:
        """Add a line to metrics.jsonl (rank 0). Returns what went wrong, if anything: the line is then kept
        in memory and written with the next one."""
        if not distributed.is_main():
            return None
        self.rows += 1
        finite = {k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in row.items()}
        self._unwritten += json.dumps(finite) + "\n"
        size = self.metrics_file.stat().st_size if self.metrics_file.exists() else 0
        try:
            with self.metrics_file.open("a") as file:
                file.write(self._unwritten)
        except OSError as error:
            if self.metrics_file.exists():
                os.truncate(self.metrics_file, size)
            return f"{self.metrics_file}: {error.strerror}"
        self._unwritten = ""
        return None

    def trim(self, rows: int) -> None:
        """Keep the first `rows` lines of metrics.jsonl: those from before the checkpoint (rank 0)."""
        self.rows = rows
        if distributed.is_main() and self.metrics_file.exists():
            lines = self.metrics_file.read_text().splitlines(keepends=True)
            replace_text(self.metrics_file, "".join(lines[:rows]))

    def record(self) -> dict[str, Any]:
        """What run.json holds; empty when there is none."""
        file = self.path / "run.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found

    def update_record(self, values: Json) -> str | None:
        """Add to run.json (rank 0). Returns what went wrong, if anything."""
        if not distributed.is_main():
            return None
        file = self.path / "run.json"
        try:
            write_json(file, {**self.record(), **values})
        except OSError as error:
            return f"{file}: {error.strerror}"
        return None


def _new_folder(root: Path, name: str) -> Path:
    base = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}"
    root.mkdir(parents=True, exist_ok=True)
    for number in range(1, 1000):
        path = root / (base if number == 1 else f"{base}-{number}")
        try:
            path.mkdir()
            return path
        except FileExistsError:
            continue
    raise FileExistsError(17, "too many runs of the same second", str(root / base))


def _point_latest(root: Path, path: Path) -> None:
    """`latest` -> the run, replaced at once; a text file where the file system has no symbolic links."""
    link = root / ".latest.partial"
    link.unlink(missing_ok=True)
    try:
        link.symlink_to(path.name)
    except OSError:
        link.write_text(path.name + "\n")
    link.replace(root / "latest")


def write_json(path: Path, value: Json) -> None:
    """Write a JSON file that is either whole or the old one."""
    replace_text(path, json.dumps(value, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Replace a file's text at once."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl; a half-written last line is ignored."""
    rows = []
    for line in (run / "metrics.jsonl").read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
