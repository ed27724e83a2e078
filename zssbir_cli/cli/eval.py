"""`zssbir eval`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option
from zssbir_cli.errors import UsageError
from zssbir_cli.types import ROWS_FILES, TREC_FORMS

if TYPE_CHECKING:
    from zssbir_cli.evaluation.compare import Compared
    from zssbir_cli.evaluation.measure import Evaluation
    from zssbir_cli.workflows.eval import EvalOutcome

MODES = {
    "compare": ("split", "json_", "runs"),
    "qrels": ("run", "ties", "k", "out", "json_"),
    "embeddings": ("classes", "k", "report", "out", "export", "device", "json_"),
}
"""Options that stand in for a run, and the other options that mean something together with each."""


def evaluate(
    context: typer.Context,
    split: options.Split = "zs",
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    data: options.Data = None,
    embeddings: Path | None = option(
        None, "FILE", "Evaluate a .npz, .h5 or .csv file of any model instead of a run."
    ),
    qrels: Path | None = option(
        None, "FILE", "Relevance judgements in TREC format: evaluates the ranking in --run FILE."
    ),
    ties: str = option(
        "expected", "RULE", "How --qrels ranks equal scores: expected (random order) or trec (by name)."
    ),
    compare: tuple[str, str] | None = option(
        None, "A B", "Compare two results (runs or result files), paired by query."
    ),
    classes: options.Classes = None,
    gallery_extra: Path | None = option(
        None, "PATH", "Extra gallery photos, relevant to no query: a folder, embeddings file or data set."
    ),
    baselines: bool = flag(
        "Show chance and the run's frozen start beside it.", "--baselines/--no-baselines", default=True
    ),
    per_class: options.PerClass = None,
    seed: int = option(0, "N", "Seed of the images that a protocol or --per-class draws.", min=0),
    k: list[int] = option([100, 200], "N", "Cut-off of mAP@k, P@k and recall@k (repeatable).", "-k", min=1),
    report: bool = flag("Write the HTML page, Markdown and figures.", "--report/--no-report", default=True),
    out: Path | None = options.out(
        "Folder of the result.  [default: that of the run, or RUNS/frozen/...]", folder=True
    ),
    export: str = option(
        "",
        "FORM",
        "trec: also TREC files, the first 1,000 photos per query; trec-all: all.",
        show_default=False,
    ),
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = None,
    runs: options.Runs = Path("runs"),
    json_: options.Json = False,
) -> None:
    """Measure retrieval: mAP, P@k, R-precision and recall in every convention, with confidence intervals.

    Example: zssbir eval --split zs --run latest

    Without training: zssbir eval --model siglip --data data/sketchy
    """
    from zssbir_cli.cli.display import loading

    _refuse_idle(context)
    options.one_of_run_and_model(context)
    options.needs_data(model, data)
    _check_files(export, embeddings, qrels, run, gallery_extra)
    if compare is not None:
        _compare(compare, split, runs, json_)
        return
    only = () if classes is None else (classes,)
    with loading("eval", "the weights") as progress:
        from zssbir_cli.workflows import eval as workflow

        if qrels is not None:
            outcome = workflow.evaluate_ranking(qrels, run, ties, k=k, out=out)
        elif embeddings is not None:
            outcome = workflow.evaluate_file(
                embeddings, classes=only, k=k, device=device, out=out, report=report, export=export, progress=progress
            )  # fmt: skip
        else:
            outcome = workflow.evaluate_run(
                run, model=model, split=split, checkpoint=checkpoint, runs=runs, data=data, classes=only,
                gallery_extra=gallery_extra, baselines=baselines, per_class=per_class, seed=seed, k=k, out=out, report=report, export=export, device=device,
                precision=precision, workers=workers, progress=progress,
            )  # fmt: skip
    _print_outcome(outcome, json_)


def _check_files(
    export: str, embeddings: Path | None, qrels: Path | None, run: str | None, extra: Path | None
) -> None:
    """Refuse what cannot be read or written, before torch is loaded. Errors: UsageError."""
    ranking = Path(run) if run is not None and qrels is not None else None
    if export:
        options.one_of("--export", export, TREC_FORMS)
    if embeddings is not None:
        options.one_of("--embeddings", str(embeddings), ROWS_FILES, embeddings.suffix.lower())
    named = {"--embeddings": embeddings, "--qrels": qrels, "--run": ranking, "--gallery-extra": extra}
    for name, place in named.items():
        if place is not None:
            options.exists(place, name)


def _print_outcome(outcome: "EvalOutcome", json_: bool) -> None:
    import json

    from zssbir_cli.cli.console import note

    if json_:
        print(json.dumps(outcome.as_json(), indent=1))
    else:
        _print_result(outcome.evaluation)
    if outcome.result is None:
        note("not written to a file: give --out FOLDER to keep the result (and to compare it)")
    else:
        page = [f"{outcome.report}/report.html"] if outcome.report else []
        note(f"written: {' and '.join(map(str, (outcome.result, *page, *outcome.exported)))}")


def _compare(names: tuple[str, str], split: str, runs: Path, json_: bool) -> None:
    import json

    from zssbir_cli.evaluation.saved import find_result

    results = [find_result(name, split, runs) for name in names]  # before torch is loaded
    from zssbir_cli.evaluation.compare import compare_results, compared_json

    compared = compare_results(*results)
    print(json.dumps(compared_json(compared), indent=1)) if json_ else _print_comparison(compared)


def _refuse_idle(context: typer.Context) -> None:
    """Refuse options that would do nothing. Errors: UsageError."""
    given = options.given(context)
    mode = next((name for name in MODES if name in given), None)
    if mode is not None:
        options.allow_only(context, given[mode], mode, *MODES[mode])
    elif "ties" in given:
        raise UsageError("--ties is for a ranking in TREC format (--qrels FILE --run FILE)")
    values = context.params
    if mode == "embeddings" and "report" in given and values["report"] and "out" not in given:
        raise UsageError("--report needs --out FOLDER with --embeddings")
    if mode == "compare" and "split" in given and all(Path(name).is_file() for name in values["compare"]):
        raise UsageError("--split has no effect between two result files; leave it out")
    from zssbir_cli.evaluation.protocols import DRAWN

    if "seed" in given and values["split"] not in DRAWN and values["per_class"] is None:
        raise UsageError(
            f"--seed has no effect with --split {values['split']}, which draws nothing; leave it out"
        )


def _print_result(found: "Evaluation") -> None:
    from zssbir_cli.cli.console import note, table
    from zssbir_cli.evaluation.measure import context, groups_of, table_of

    for line in context(found):
        note(line)
    gallery = f"{found.metrics.queries:,} queries, gallery of {found.metrics.gallery:,}"
    head, *rows = table_of(found)
    table(head, rows, f"{found.inputs.about.headline}: {gallery} (percent)", spare=2)
    if groups := groups_of(found):
        table(groups[0], groups[1:])


def _print_comparison(compared: "Compared") -> None:
    from zssbir_cli.cli.console import note, table

    for line in compared.notes:
        note(f"note: {line}")
    rows = []
    for name, a, b, d in compared.rows:
        q, c = d.over_queries, d.over_classes
        rows.append(
            (name, f"{100 * a:6.2f}", f"{100 * b:6.2f}", f"{100 * d.mean:+6.2f}", f"{100 * q.low:+.2f} ... {100 * q.high:+.2f}",
             f"{100 * c.low:+.2f} ... {100 * c.high:+.2f}", f"{100 * d.better:.0f} / {100 * d.worse:.0f}", f"{d.p:.4f}")
        )  # fmt: skip
    columns = (
        "measure", "A %", "B %", "B - A", "95 % over queries", "95 % over classes", "B better / worse %", "p",
    )  # fmt: skip
    table(columns, rows, f"A = {compared.a}; B = {compared.b}; paired on {compared.queries:,} queries")
