"""`zssbir eval`: weights of a run or a frozen model (or embeddings of any program) to numbers, a result file and a report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, choose_weights
from zssbir_cli.errors import UsageError
from zssbir_cli.evaluation import results
from zssbir_cli.evaluation.baselines import with_chance, with_start
from zssbir_cli.evaluation.inputs import Options, inputs_of
from zssbir_cli.evaluation.measure import DEFAULT_K, Evaluation, inputs_of_file, measure
from zssbir_cli.evaluation.protocols import check_protocol
from zssbir_cli.evaluation.trec import evaluate_trec, write_trec
from zssbir_cli.files import check_writable
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import TREC_FORMS, AnyPath

OTHER_FOLDER = "; choose another folder with --out"
PHOTOS_OF = {"trec": 1000, "trec-all": None}
"""Photos of each query in the run file, by form of export (None: the whole gallery)."""


@dataclass(frozen=True)
class EvalOutcome:
    """An evaluation, its result file and its report's folder (None: not written), and exported files."""

    evaluation: Evaluation
    result: Path | None
    report: Path | None
    exported: tuple[Path, ...] = ()

    def value(self, measure: str = "mAP@all", convention: str = "voc") -> float:
        """A measure, 0-1; `convention` plays no role where there is only one. Errors: UsageError."""
        found = {m.convention: m.value for m in self.evaluation.measures if m.name == measure}
        value = found.get(convention, found.get(""))
        if value is None:
            known = ", ".join(dict.fromkeys(m.name for m in self.evaluation.measures))
            raise UsageError(f"no measure {measure} ({convention}) here: there are {known}")
        return value

    def as_json(self) -> dict[str, Any]:
        """All that the result file holds, as plain values."""
        return results.as_json(self.evaluation)


def evaluate_run(
    run: AnyPath | None = None,
    *,
    model: str | None = None,
    split: str = "zs",
    checkpoint: str = "best",
    runs: AnyPath = "runs",
    data: AnyPath | None = None,
    classes: Sequence[str] = (),
    gallery_extra: AnyPath | None = None,
    baselines: bool = True,
    per_class: int | None = None,
    seed: int = 0,
    k: Sequence[int] = DEFAULT_K,
    out: AnyPath | None = None,
    report: bool = True,
    export: str = "",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate a run or a frozen model on a protocol.

    The result goes to `out`, else to the run's eval/ folder, or for a model to `frozen/NAME-WEIGHTS/eval` under `runs`.

    Args:
        run, model, checkpoint: whose weights, as `embedding.weights.choose_weights` takes them (default: the latest run
            under `runs`).
        split: `zs` (unseen classes), `val`, or a generalised protocol (`evaluation.protocols.PROTOCOLS`).
        data: another prepared set than the run's own (a model has none); classes that the run has seen are left out
            and named.
        gallery_extra: more photos for the gallery, relevant to no query: a folder, an embeddings file or a prepared set.
        baselines: also measure chance and the run's frozen start (its embeddings are kept in the run).
        classes, per_class, seed: only these classes, at most `per_class` images of each, and how they are drawn.
        k: cuts. report: also write pages and figures. export: `trec` or `trec-all`, beside the result.

    Errors: UsageError, DataError, CheckpointError.

    >>> outcome = zssbir.evaluate(split="zs", k=[10])
    >>> 0 < outcome.value("mAP@all", "voc") < 1
    True
    """
    check_protocol(split)
    check_export(export)
    weights = choose_weights(run, model, Path(runs), checkpoint)
    kept = weights.home / "eval" if isinstance(weights, RunWeights) else Path(runs)
    check_writable(Path(out or kept), OTHER_FOLDER, folder=True)
    here, extra, place = (None if path is None else Path(path) for path in (data, gallery_extra, out))
    options = Options(here, extra, tuple(classes), per_class, seed, device, precision, workers)
    inputs = inputs_of(weights, split, options, progress)
    if isinstance(weights, TowerWeights) and place is None:
        place = Path(runs) / "frozen" / weights.home.name / "eval"
    found = measure(inputs, k=k, device=device, progress=progress)
    if baselines:
        found = with_start(with_chance(found), weights, options, progress)
    return _finish(found, device, place, report, export, progress)


def evaluate_file(
    path: AnyPath,
    *,
    classes: Sequence[str] = (),
    k: Sequence[int] = DEFAULT_K,
    device: str = "auto",
    out: AnyPath | None = None,
    report: bool = True,
    export: str = "",
    progress: Progress = silent,
) -> EvalOutcome:
    """Evaluate embeddings of any model (.npz, .h5 or .csv); written only when there is an `out` folder.

    Errors: UsageError, DataError.

    >>> import numpy as np
    >>> rows, labels = np.eye(3).repeat(2, axis=0), [0, 0, 1, 1, 2, 2]
    >>> np.savez("e.npz", query=rows, gallery=rows, query_labels=labels, gallery_labels=labels)
    >>> zssbir.evaluate_file("e.npz", k=[1]).value("mAP@all", "voc")
    1.0
    """
    check_export(export)
    if export and out is None:
        raise UsageError(f"--export {export} needs --out FOLDER with --embeddings")
    path, folder = Path(path), None if out is None else Path(out)
    if folder:
        check_writable(folder, OTHER_FOLDER, folder=True)
    inputs = inputs_of_file(path, read_user_embeddings(path), classes)
    found = with_chance(measure(inputs, k=k, device=device, progress=progress))
    return _finish(found, device, folder, report, export, progress)


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
    if out:
        check_writable(out, OTHER_FOLDER, folder=True)
    return _finish(evaluate_trec(qrels, Path(run), ties, k), "cpu", out, False, "", silent)


def check_export(export: str) -> None:
    """Errors: UsageError for an unknown form of export."""
    if export not in ("", *TREC_FORMS):
        raise UsageError(f"--export {export}: one of {', '.join(TREC_FORMS)}")


def _finish(
    found: Evaluation, device: str, out: Path | None, report: bool, export: str, progress: Progress
) -> EvalOutcome:
    target = results.target(found, out)
    if target is None:
        return EvalOutcome(found, None, None)
    results.write(found, target)
    stem, page, files = target.with_suffix(""), None, tuple[Path, ...]()
    if export:
        files = write_trec(found.inputs, stem, PHOTOS_OF[export], str(choose_device(device)), progress)
    if report:
        from zssbir_cli.evaluation.report import write_report

        page = write_report(found, stem, progress).parent
    return EvalOutcome(found, target, page, files)
