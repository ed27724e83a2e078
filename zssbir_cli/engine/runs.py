"""Which run, and which of its checkpoints: the one place that turns what a user names into folders; what their text
files hold. Imports no torch."""

import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.engine.meta import EXPORTED, read_meta
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import is_locked, parsed, reason
from zssbir_cli.names import suggestion

META = "meta.json"
LATEST = "latest"
LOCK = ".lock"
"""Held by the process that trains the run."""


@dataclass(frozen=True)
class RunChoice:
    """A run's folder and the name of the checkpoint that was asked for."""

    path: Path
    which: str = "best"


@dataclass(frozen=True)
class CheckpointChoice:
    """A checkpoint's folder, and a note when it is not the one that was asked for."""

    path: Path
    note: str = ""

    @property
    def which(self) -> str:
        """`best`, `last`, `epoch-0004`, ..."""
        return self.path.name


def find_run(name: str | Path | None = None, runs: Path = Path("runs"), which: str = "best") -> RunChoice:
    """The run that is meant: a folder, its name under `runs`, a unique part of that name, `latest` (also None), a
    folder of runs (its latest), one of a run's checkpoints (which then wins over `which`), or a file that `zssbir export
    --format run` wrote.

    Raises UsageError that lists what is there.
    """
    if name is None or str(name) == LATEST:
        return RunChoice(latest_run(runs), which)
    path = Path(name).expanduser()
    if path.name == LATEST and not (path.is_dir() and not path.is_symlink() and is_run(path)):
        return RunChoice(latest_run(path.parent), which)
    if path.suffix.lower() == ".zip" and path.is_file():
        from zssbir_cli.engine.bundle import unpack_run

        return RunChoice(unpack_run(path), which)
    if path.parent.name == "checkpoints" and path.is_dir() and is_run(path.parent.parent):
        return RunChoice(path.parent.parent, path.name)
    if is_run(path):
        return RunChoice(path, which)
    if path.is_dir() and any(run_folders(path)):
        return RunChoice(latest_run(path), which)
    known = list(run_folders(runs))
    matches = [p for p in known if p.name == str(name)] or [p for p in known if str(name) in p.name]
    if len(matches) == 1:
        return RunChoice(matches[0], which)
    if matches:
        some = ", ".join(p.name for p in matches[-5:])
        raise UsageError(f"{name}: several runs under {runs} match this name ({some}); be more specific")
    some = ", ".join(p.name for p in known[-5:]) or "there is none"
    near = suggestion(str(name), [LATEST, *(p.name for p in known)])
    raise UsageError(
        f"{name}: not a run, and no run under {runs} has that name ({some}){near}; see `zssbir runs`"
    )


def is_run(path: Path) -> bool:
    """Whether a folder is a run's: it holds run.json, recipe.yaml or a checkpoint."""
    return any((path / n).is_file() for n in ("run.json", "recipe.yaml")) or has_checkpoint(path)


def has_checkpoint(run: Path) -> bool:
    """Whether a run has reached a checkpoint."""
    return any((run / "checkpoints").glob(f"*/{META}"))


def any_checkpoint(runs: Path) -> bool:
    """Whether a run under `runs`, or `runs` itself, has reached a checkpoint."""
    return has_checkpoint(runs) or any(map(has_checkpoint, run_folders(runs)))


def run_folders(runs: Path) -> Iterator[Path]:
    """All run folders under `runs`, by name (the time they were started)."""
    if runs.is_dir():
        yield from (p for p in sorted(runs.iterdir()) if p.is_dir() and not p.is_symlink() and is_run(p))


def latest_run(runs: Path = Path("runs")) -> Path:
    """The run under `runs` that last reached its first checkpoint or was resumed. Raises UsageError when none has."""
    pointer = runs / LATEST
    target = pointer
    with suppress(OSError, UnicodeDecodeError):
        if pointer.is_file():  # where there are no symbolic links
            target = runs / pointer.read_text("utf-8").strip()
    if target.name != LATEST or target.is_symlink():
        target = target.resolve()
        if has_checkpoint(target):
            return target
    reached = [p for p in run_folders(runs) if has_checkpoint(p)]
    if not reached:
        raise UsageError(
            f"{runs}: no run with a checkpoint yet; start one with `zssbir train --recipe ...`, or name a run"
        )
    saved = {
        run: max((m.stat().st_mtime for m in (run / "checkpoints").glob(f"*/{META}")), default=0.0)
        for run in reached
    }
    return max(reached, key=lambda run: saved[run]).resolve()


def point_latest(run: Path) -> str | None:
    """`latest` beside a run -> the run, replaced at once; a text file where there are no symbolic links.

    Returns what went wrong, if anything: training does not depend on it.
    """
    run = run.resolve()
    link = run.parent / f".{LATEST}.{os.getpid()}-{secrets.token_hex(4)}.partial"
    try:
        try:
            link.symlink_to(run.name)
        except (OSError, NotImplementedError):
            link.write_text(run.name + "\n", encoding="utf-8")
        _replace(link, run.parent / LATEST)
    except OSError as error:
        with suppress(OSError):
            link.unlink(missing_ok=True)
        return f"{run.parent / LATEST}: cannot point to this run ({reason(error)})"
    return None


def _replace(link: Path, target: Path) -> None:
    """Rename; where another process holds the target open (Windows), try again for a moment."""
    for attempt in range(5):
        try:
            link.replace(target)
            return
        except PermissionError:
            if attempt == 4 or target.is_dir():
                raise
            time.sleep(0.05)


def find_checkpoint(run: Path, which: str = "best") -> CheckpointChoice:
    """The folder of a run's checkpoint `which`: best, last, epoch-N, or one that a cut write left as `.previous`.

    A run that has not been validated yet has no `best`: then `last` is used, and the note says so. Raises
    CheckpointError when there is no such checkpoint, naming those that there are.
    """
    folder = run / "checkpoints"
    number = which.removeprefix("epoch-")
    if which.startswith("epoch-") and number.isdecimal():
        which = f"epoch-{int(number):04d}"
    if _is_there(folder / which):
        return CheckpointChoice(folder / which)
    if which != "best" and which == kept_as(run, "best"):
        return CheckpointChoice(folder / "best")
    before = folder / f"{which}.previous"
    if _is_there(before):
        return CheckpointChoice(
            before, f"{folder / which} is missing (a write was cut off): {before.name} is used"
        )
    there = sorted(p.parent.name for p in folder.glob(f"*/{META}"))
    if not there:
        raise CheckpointError(f"{run}: no checkpoint yet; train it with `zssbir train --resume {run}`")
    if which != "best" or _had_best(folder):
        lost = "was lost: give" if which == "best" else "does not exist; give"
        raise CheckpointError(f"{folder / which} {lost} --checkpoint {' or '.join(there)}")
    last = find_checkpoint(run, "last")
    return CheckpointChoice(
        last.path, f"{run.name} has no `best` yet (stopped before a validation): {last.which} is used"
    )


def kept_as(run: Path, which: str) -> str:
    """The name of a run's checkpoint in results: `which`, but for a run that was exported with another one than its best
    the name that it had."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return str(parsed((run / "checkpoints" / which / META).read_bytes()).get(EXPORTED, which))
    return which


def _is_there(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _had_best(folder: Path) -> bool:
    """Whether the last checkpoint says that a `best` was written before it."""
    for name in ("last", "last.previous"):
        with suppress(OSError, ValueError, AttributeError):
            meta = parsed((folder / name / META).read_bytes())
            return bool(meta.get("metrics")) or meta.get("best_step", -1) >= 0
    return False


def in_training(run: Path) -> bool:
    """Whether a process trains the run now."""
    return is_locked(run / LOCK)


def resume_point(run: Path) -> dict[str, Any] | None:
    """What the meta.json says of the checkpoint from which the run would be resumed; None when there is none, or it is
    damaged."""
    folder = run / "checkpoints"
    last = folder / "last"
    with suppress(OSError, ValueError):
        return read_meta((last if last.exists() else folder / "last.previous") / META)
    return None


def is_finished(run: Path, record: Mapping[str, Any] | None) -> bool:
    """Whether a run, whose run.json holds `record`, has been trained to its end, and not begun again from an earlier
    checkpoint since."""
    ended, saved = (record or {}).get("finished"), resume_point(run)
    if not ended:
        return False
    try:
        return saved is None or int(saved["step"]) >= int(ended["steps"])
    except (LookupError, TypeError, ValueError, OverflowError):
        return False


def is_outdated(run: Path, result: Mapping[str, Any]) -> bool:
    """Whether training has replaced the weights that a result in the run's eval/ was measured with."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        which = str(result["which"])
        meta = parsed((run / "checkpoints" / which / META).read_bytes())
        replaced = bool(meta["sha256"]["model.safetensors"] != result["checkpoint"])
        return replaced and meta.get(EXPORTED, which) == which
    return False


def read_record(run: Path) -> dict[str, Any] | None:
    """What a run's run.json holds; None when it is missing or damaged."""
    try:
        found = parsed((run / "run.json").read_bytes())
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
            row = parsed(line)
        except ValueError:
            return
        if not isinstance(row, dict):
            return
        yield row
