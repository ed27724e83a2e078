"""`zssbir eval`: a run's weights (or embeddings of any model) to numbers, a result file and a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zssbir_cli.engine.runs import RunChoice
from zssbir_cli.evaluation import results
from zssbir_cli.evaluation.inputs import Inputs, Options, file_inputs, run_inputs
from zssbir_cli.evaluation.measure import DEFAULT_K, Evaluation, measure
from zssbir_cli.evaluation.protocols import check_protocol
from zssbir_cli.progress import Progress, silent


@dataclass(frozen=True)
class EvalOutcome:
    """An evaluation, its result file and its report's folder (None: not written)."""

    evaluation: Evaluation
    result: Path | None
    report: Path | None


def evaluate_run(
    run: RunChoice,
    split: str = "zs",
    options: Options | None = None,
    *,
    k: Sequence[int] = DEFAULT_K,
    out: Path | None = None,
    report: bool = True,
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate a run (see `engine.runs.find_run`) on a protocol; the result goes to `out` or the run's eval/ folder.

    Errors: UsageError, DataError, CheckpointError.
    """
    check_protocol(split)
    options = options or Options()
    inputs = run_inputs(run, split, options, progress)
    return _finish(inputs, k, options.device, out, report, progress)


def evaluate_file(
    path: Path,
    classes: Sequence[str] = (),
    *,
    k: Sequence[int] = DEFAULT_K,
    device: str = "auto",
    out: Path | None = None,
    report: bool = True,
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate embeddings of any model (.npz, .h5 or .csv); written only when there is an `out` folder.

    Errors: UsageError, DataError.
    """
    return _finish(file_inputs(path, classes), k, device, out, report, progress)


def _finish(
    inputs: Inputs, k: Sequence[int], device: str, out: Path | None, report: bool, progress: Progress
) -> EvalOutcome:
    found = measure(inputs, k=k, device=device, progress=progress)
    target = results.target(found, out)
    if target is None:
        return EvalOutcome(found, None, None)
    results.write(found, target)
    if not report:
        return EvalOutcome(found, target, None)
    from zssbir_cli.evaluation.report import write_report

    return EvalOutcome(found, target, write_report(found, target.with_suffix(""), progress).parent)
