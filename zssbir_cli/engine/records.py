"""What a run's text files hold, read whatever their state. Imports no torch."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def read_record(run: Path) -> dict[str, Any] | None:
    """What a run's run.json holds; None when it is missing or damaged."""
    try:
        found = json.loads((run / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Rows of a run's metrics.jsonl, one a step (older versions wrote several), [] when there is none; what follows a
    damaged line is ignored."""
    file = run / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    for row in rows_of(file.read_bytes().splitlines() if file.is_file() else []):
        if rows and "step" in row and rows[-1].get("step") == row["step"]:
            rows[-1] |= row
        else:
            rows.append(row)
    return rows


def rows_of(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """The rows of a metrics.jsonl up to its first damaged line."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        yield row
