"""`zssbir eval`: a run's weights (or embeddings of any model) to numbers, a result file and a report."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.engine.runs import RunChoice
from zssbir_cli.errors import UsageError
from zssbir_cli.evaluation import results
from zssbir_cli.evaluation.inputs import Inputs, Options, file_inputs, run_inputs
from zssbir_cli.evaluation.measure import DEFAULT_K, Evaluation, measure
from zssbir_cli.evaluation.protocols import check_protocol
from zssbir_cli.evaluation.trec import evaluate_trec
from zssbir_cli.evaluation.trec_files import write_trec
from zssbir_cli.progress import Progress, silent

EXPORTS = {"": 0, "trec": 1000, "trec-all": None}
"""Forms of export, and photos of each query in the run file (None: the whole gallery; "": no export)."""


@dataclass(frozen=True)
class EvalOutcome:
    """An evaluation, its result file and its report's folder (None: not written), and exported files."""

    evaluation: Evaluation
    result: Path | None
    report: Path | None
    exported: tuple[Path, ...] = ()


def evaluate_run(
    run: RunChoice,
    split: str = "zs",
    options: Options | None = None,
    *,
    k: Sequence[int] = DEFAULT_K,
    out: Path | None = None,
    report: bool = True,
    export: str = "",
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate a run (see `engine.runs.find_run`) on a protocol; the result goes to `out` or the run's eval/ folder.

    export: a key of `EXPORTS`; the files lie beside the result. Errors: UsageError, DataError, CheckpointError.
    """
    check_protocol(split)
    check_export(export)
    options = options or Options()
    inputs = run_inputs(run, split, options, progress)
    return _finish(inputs, k, options.device, out, report, export, progress)


def evaluate_file(
    path: Path,
    classes: Sequence[str] = (),
    *,
    k: Sequence[int] = DEFAULT_K,
    device: str = "auto",
    out: Path | None = None,
    report: bool = True,
    export: str = "",
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate embeddings of any model (.npz, .h5 or .csv); written only when there is an `out` folder.

    Errors: UsageError, DataError.
    """
    check_export(export)
    if export and out is None:
        raise UsageError(f"--export {export} needs --out FOLDER with --embeddings")
    return _finish(file_inputs(path, classes), k, device, out, report, export, progress)


def evaluate_ranking(
    qrels: Path,
    run: str | Path | None,
    ties: str = "expected",
    *,
    k: Sequence[int] = DEFAULT_K,
    out: Path | None = None,
) -> EvalOutcome:
    """Evaluate a run file in TREC's format (see `evaluation.trec`); written only when there is an `out` folder.

    Errors: UsageError; DataError naming file and line.
    """
    if run is None:
        raise UsageError("--qrels needs --run FILE too: the ranking in TREC format")
    found = evaluate_trec(qrels, Path(run), ties, k)
    target = results.target(found, out)
    if target is not None:
        results.write(found, target)
    return EvalOutcome(found, target, None)


def check_export(export: str) -> None:
    """Errors: UsageError for an unknown form of export."""
    if export not in EXPORTS:
        raise UsageError(f"--export {export}: one of {', '.join(name for name in EXPORTS if name)}")


def _finish(
    inputs: Inputs,
    k: Sequence[int],
    device: str,
    out: Path | None,
    report: bool,
    export: str,
    progress: Progress,
) -> EvalOutcome:
    found = measure(inputs, k=k, device=device, progress=progress)
    target = results.target(found, out)
    if target is None:
        return EvalOutcome(found, None, None)
    results.write(found, target)
    outcome = EvalOutcome(found, target, None)
    if export:
        on = str(choose_device(device))
        files = write_trec(inputs, target.with_suffix(""), EXPORTS[export], on, progress)
        outcome = replace(outcome, exported=files)
    if not report:
        return outcome
    from zssbir_cli.evaluation.report import write_report

    return replace(outcome, report=write_report(found, target.with_suffix(""), progress).parent)
