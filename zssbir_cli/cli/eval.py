"""`zssbir eval`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zssbir_cli.cli import options
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

GalleryExtra = Annotated[
    Path | None,
    typer.Option(
        "--gallery-extra",
        metavar="PATH",
        help="More photos for the gallery, relevant to no query: a folder, an embeddings file, a data set.",
    ),
]
Baselines = Annotated[
    bool,
    typer.Option(
        "--baselines/--no-baselines",
        help="Show chance and the run's frozen start beside the result (embedded once, then kept).",
    ),
]
Qrels = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Judgements in TREC format: evaluates the ranking that --run FILE holds."
    ),
]
Ties = Annotated[
    str,
    typer.Option(metavar="RULE", help="Equal scores with --qrels: expected (all orders) or trec (by name)."),
]


def evaluate(
    context: typer.Context,
    split: options.Split = "zs",
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    data: options.Data = None,
    embeddings: Path | None = typer.Option(
        None,
        "--embeddings",
        metavar="FILE",
        help="Evaluate a .npz, .h5 or .csv file of any model instead of a run.",
    ),
    qrels: Qrels = None,
    ties: Ties = "expected",
    compare: tuple[str, str] | None = typer.Option(
        None, "--compare", metavar="A B", help="Compare two results (runs or result files), paired by query."
    ),
    classes: options.Classes = None,
    gallery_extra: GalleryExtra = None,
    baselines: Baselines = True,
    per_class: options.PerClass = None,
    seed: int = typer.Option(0, "--seed", metavar="N", help="For what a protocol or --per-class draws."),
    k: list[int] = typer.Option(
        [100, 200], "-k", metavar="N", min=1, help="Cut of mAP@k, P@k and recall@k (repeatable)."
    ),
    report: bool = typer.Option(
        True, "--report/--no-report", help="Write the HTML page, Markdown and figures."
    ),
    out: Path | None = typer.Option(
        None,
        "--out",
        "-o",
        metavar="PATH",
        help="Folder of the result; default: the run's eval folder, RUNS/frozen/... for --model.",
    ),
    export: str = typer.Option(
        "",
        metavar="FORM",
        help="trec: also as TREC files, the first 1,000 photos of a query; trec-all: all photos.",
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
    from zssbir_cli.cli.display import progress as shown

    _refuse_idle(context)
    options.one_of_run_and_model(context)
    options.needs_data(model, data)
    _check_files(export, embeddings, qrels, gallery_extra)
    if compare is not None:
        _compare(compare, split, runs, json_)
        return
    only = () if classes is None else (classes,)
    with shown("eval: loading PyTorch and the weights") as progress:
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


def _check_files(export: str, embeddings: Path | None, qrels: Path | None, extra: Path | None) -> None:
    """Refuse what cannot be read or written, before torch is loaded. Errors: UsageError."""
    if export:
        options.one_of("--export", export, TREC_FORMS)
    if embeddings is not None:
        options.one_of("--embeddings", str(embeddings), ROWS_FILES, embeddings.suffix.lower())
    for flag, place in (("--embeddings", embeddings), ("--qrels", qrels), ("--gallery-extra", extra)):
        if place is not None:
            options.exists(place, flag)


def _print_outcome(outcome: "EvalOutcome", json_: bool) -> None:
    import json

    from zssbir_cli.cli.console import note
    from zssbir_cli.evaluation import results

    if json_:
        print(json.dumps(results.as_json(outcome.evaluation), indent=1))
    else:
        _print_result(outcome.evaluation)
    if outcome.result is None:
        note("not written to a file: give --out FOLDER to keep the result (and to compare it)")
    else:
        page = [f"{outcome.report}/report.html"] if outcome.report else []
        note(f"written: {' and '.join(map(str, (outcome.result, *page, *outcome.exported)))}")


def _compare(names: tuple[str, str], split: str, runs: Path, json_: bool) -> None:
    import json

    from zssbir_cli.evaluation.compare import compare_results, compared_json, find_result

    compared = compare_results(*(find_result(name, split, runs) for name in names))
    print(json.dumps(compared_json(compared), indent=1)) if json_ else _print_comparison(compared)


def _refuse_idle(context: typer.Context) -> None:
    """Refuse options that would do nothing. Errors: UsageError."""

    flags = {str(p.name): p.opts[0] for p in context.command.params}
    given = [name for name in flags if _was_given(context, name)]
    mode = next((mode for mode in MODES if mode in given), None)
    if mode is None and "ties" in given:
        raise UsageError("--ties is for a ranking in TREC format (--qrels FILE --run FILE)")
    for name in given if mode else ():
        if name != mode and name not in MODES[str(mode)]:
            raise UsageError(
                f"{flags[name]} does nothing together with {flags[str(mode)]}: leave one of them out"
            )


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _print_result(found: "Evaluation") -> None:
    from zssbir_cli.cli.console import note, table
    from zssbir_cli.evaluation import results

    for line in results.context(found):
        note(line)
    rows = []
    for m in found.measures:
        q, c = m.over_queries, m.over_classes
        rows.append(
            (m.name, m.convention or "-", f"{100 * m.value:6.2f}",
             *(f"{100 * b.values[m.name, m.convention]:.2f}" for b in found.baselines),
             f"{100 * q.low:.2f} - {100 * q.high:.2f}",
             f"{100 * c.low:.2f} - {100 * c.high:.2f}")
        )  # fmt: skip
    for p in results.comparable(found):
        rows.append(
            (
                f"{p.measure}, {p.method} {p.year}, published",
                p.convention or "-",
                f"{p.value:6.1f}",
                *[""] * (2 + len(found.baselines)),
            )
        )
    gallery = f"{found.metrics.queries:,} queries, gallery of {found.metrics.gallery:,}"
    title = f"{results.headline(found)}: {gallery} (percent)"
    yardsticks = [b.name for b in found.baselines]
    table(("measure", "convention", "%", *yardsticks, "95 % over queries", "95 % over classes"), rows, title)
    if found.groups:
        columns = ("seen", "unseen", "harmonic")
        body = [
            (name, *(f"{100 * found.groups[g][name]:6.2f}" for g in columns)) for name in found.groups["seen"]
        ]
        table(("measure", "seen", "unseen", "harmonic mean"), body)


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
        "measure",
        "A %",
        "B %",
        "B - A",
        "95 % over queries",
        "95 % over classes",
        "B better / worse %",
        "p",
    )
    table(columns, rows, f"A = {compared.a}; B = {compared.b}; paired on {compared.queries:,} queries")
