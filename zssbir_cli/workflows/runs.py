"""`zssbir runs`: what each run folder says about itself, and what differs between two of them."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.engine.changes import ABSENT, changes
from zssbir_cli.engine.runs import (
    in_training,
    is_finished,
    is_outdated,
    latest_run,
    read_metrics,
    read_record,
    resume_point,
    run_folders,
)
from zssbir_cli.errors import UsageError
from zssbir_cli.files import parsed
from zssbir_cli.recipe.loader import load_recipe

VAL, LOSS = "val/mAP@all", "loss"


@dataclass(frozen=True)
class RunSummary:
    """One line of `zssbir runs`. Values that a run does not have are None."""

    path: Path
    recipe: str
    method: str
    data: str
    step: int
    """The step after which training would be resumed; of a run in training, the last one logged."""
    epoch: float
    loss: float | None
    """The last one logged up to that step."""
    best_val: float | None
    """Highest mAP@all (voc) on the held-out seen classes."""
    results: Mapping[str, float]
    """mAP@all (voc) of each evaluation in eval/, by split and protocol."""
    state: str
    """`finished`, `training` (now), `stopped` (can be resumed) or `unreadable`."""
    outdated: tuple[str, ...] = ()
    """Those of `results` whose weights training has replaced since."""

    def shown(self, name: str) -> str:
        """A result in percent, marked where it is outdated; `-` if there is none."""
        return percent(self.results.get(name)) + " (outdated)" * (name in self.outdated)


def list_runs(root: Path) -> list[RunSummary]:
    """Summaries of all run folders under `root`, in order of their names (the time they were started).

    Raises UsageError when there is no such folder. A damaged run is listed as unreadable.
    """
    check_folder(root)
    return [summary(path) for path in run_folders(root)]


def newest_of(root: Path) -> str:
    """Name of the run that commands take when none is named; empty when no run has a checkpoint."""
    try:
        return latest_run(root).name
    except UsageError:
        return ""


def check_folder(root: Path) -> None:
    """Refuse a folder of runs that is not there. Errors: UsageError."""
    if not root.is_dir():
        raise UsageError(
            f"{root}: no such folder; start a run with `zssbir train --recipe ...`, or give --runs"
        )


def summary(path: Path) -> RunSummary:
    """Read one run's folder."""
    try:
        recipe = load_recipe(path / "recipe.yaml")
        record = read_record(path)
        if record is None:
            raise ValueError
        state, step, epoch, rows = _progress(path, record)
        losses, values = ([float(row[k]) for row in rows if row.get(k) is not None] for k in (LOSS, VAL))
        results, outdated = _results(path)
        return RunSummary(
            path=path,
            recipe=recipe.name,
            method=recipe.method.name,
            data=str(record.get("data", {}).get("name", "?")),
            step=step,
            epoch=epoch,
            loss=losses[-1] if losses else None,
            best_val=max(values) if values else None,
            results=results,
            state=state,
            outdated=outdated,
        )
    except (OSError, ValueError, TypeError, AttributeError, LookupError, OverflowError, UsageError):
        return RunSummary(path, "?", "?", "?", 0, 0.0, None, None, {}, "unreadable")


def _progress(path: Path, record: Mapping[str, Any]) -> tuple[str, int, float, list[dict[str, Any]]]:
    """A run's state, its step and epoch, and the rows of its metrics up to there. Rows beyond the checkpoint are of steps
    that will be trained again. Errors: ValueError, TypeError, LookupError."""
    rows = read_metrics(path)
    saved = resume_point(path)
    if in_training(path):
        return (
            "training",
            int(rows[-1]["step"]) if rows else 0,
            float(rows[-1]["epoch"]) if rows else 0.0,
            rows,
        )
    finished = is_finished(path, record)
    step = int(saved["step"]) if saved else int(record["finished"]["steps"]) if finished else 0
    rows = [row for row in rows if int(row.get("step", 0)) <= step]
    logged = next((row for row in reversed(rows) if row.get("step")), None)
    epoch = (
        float(logged["epoch"]) * step / int(logged["step"])
        if logged
        else float((saved or {}).get("epoch", 0))
    )
    return "finished" if finished else "stopped", step, round(epoch, 4), rows


def _results(path: Path) -> tuple[dict[str, float], tuple[str, ...]]:
    """mAP@all in the voc convention of each report in eval/, by its file's name, and the names of outdated ones."""
    found: dict[str, float] = {}
    outdated = []
    for file in sorted((path / "eval").glob("*.json")):
        try:
            result = parsed(file.read_bytes())
            values = [
                m["value"] for m in result["measures"] if (m["name"], m["convention"]) == ("mAP@all", "voc")
            ]
        except (OSError, ValueError, LookupError, TypeError, OverflowError):
            continue
        if values:
            found[file.stem] = float(values[0])
            if is_outdated(path, result):
                outdated.append(file.stem)
    return found, tuple(outdated)


Rows = list[tuple[str, str, str]]


def compare_runs(a: Path, b: Path) -> dict[str, Rows]:
    """What differs between two runs, as (name, value in a, value in b): keys of the `recipe`, circumstances (`record`:
    versions, device, data ...) and `outcome`, which lists also what agrees."""
    recipes = [load_recipe(run / "recipe.yaml").model_dump(mode="json") for run in (a, b)]
    records = [read_record(run) or {} for run in (a, b)]
    for record in records:
        for key in ("finished", "started", "resumed"):
            record.pop(key, None)
        if isinstance(record.get("command"), list):
            record["command"] = shlex.join(map(str, record["command"]))
    left, right = summary(a), summary(b)
    outcome = [(n, _show(getattr(left, n)), _show(getattr(right, n))) for n in ("state", "step", "loss")]
    outcome.append(("best val: mAP@all %", percent(left.best_val), percent(right.best_val)))
    for key in sorted(left.results.keys() | right.results.keys()):
        outcome.append((f"eval {key}: mAP@all %", left.shown(key), right.shown(key)))
    return {"recipe": _differing(*recipes), "record": _differing(*records), "outcome": outcome}


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> Rows:
    def text(value: object) -> str:
        return "(absent)" if value is ABSENT else str(value)

    return [(c.key, text(c.old), text(c.new)) for c in changes(old, new)]


def percent(value: float | None) -> str:
    """A measure in percent with one decimal; `-` where a run has none."""
    return "-" if value is None else f"{100 * value:.1f}"


def _show(value: object) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
