"""Where a saved result lies, and which one the user means. Imports no torch: a misspelt name is answered at once."""

from pathlib import Path

from zssbir_cli.engine.runs import find_run, kept_as
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import file_part, suggestion


def queries_file(path: Path) -> Path:
    """Where the per-query values of the result `path` lie."""
    return path.with_suffix(".queries.npz")


def find_result(name: str, split: str, runs: Path = Path("runs")) -> Path:
    """The result that the user named: a result file, or a run (see `find_run`; then its result of `split`).

    Errors: UsageError (no such file or run), DataError (the run has no such result).
    """
    path = Path(name)
    if path.suffix in (".npz", ".h5", ".csv"):
        raise UsageError(
            f"{name}: not a result; evaluate it with `zssbir eval --embeddings {name} --out FOLDER` and compare the .json file"
        )
    if path.suffix == ".json":
        if path.is_file():
            return path
        beside = [p.name for p in path.parent.glob("*.json")]
        raise UsageError(f"--compare {name}: no such file{suggestion(path.name, beside)}")
    chosen = find_run(name, runs)
    which = kept_as(chosen.path, chosen.which)
    tail = "" if which == "best" else f"-{file_part(which)}"
    found = chosen.path / "eval" / f"{split}{tail}.json"
    if not found.is_file():
        raise DataError(f"{found}: no such result; run `zssbir eval --split {split} --run {name}` first")
    return found
