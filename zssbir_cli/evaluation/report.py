"""The report of an evaluation: a self-contained HTML page, Markdown, and the figures as PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure

from zssbir_cli.errors import DataError
from zssbir_cli.evaluation import pictures
from zssbir_cli.evaluation.measure import Evaluation
from zssbir_cli.evaluation.results import comparable, context, headline, markdown
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.projection import confusion, tsne
from zssbir_cli.retrieval.search import Neighbours, search
from zssbir_cli.viz import report_figures as figures
from zssbir_cli.viz.report_page import Thumb, escape, figure, page, strip, table

SAMPLE = 2000
"""Queries that the confusion matrix looks at (all, if there are fewer)."""
MAP_CLASSES, MAP_SKETCHES, MAP_PHOTOS = 20, 15, 25
"""Classes of the map, and sketches and photos of each."""
SHOWN = 5
"""Best and worst queries that are shown, and photos of each: 10."""
Ints = npt.NDArray[np.int64]


def write_report(evaluation: Evaluation, folder: Path, progress: Progress = silent) -> Path:
    """Write report.html, report.md and the figures into `folder`; returns the page's path. DataError: disk."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        drawn = _figures(evaluation, folder, progress)
        (folder / "report.md").write_text(markdown(evaluation), encoding="utf-8")
        path = folder / "report.html"
        partial = folder / "report.html.partial"
        partial.write_text(page(headline(evaluation), _body(evaluation, drawn)), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot write the report ({error.strerror or error})") from error
    return path


def _body(evaluation: Evaluation, drawn: dict[str, str]) -> list[str]:
    metrics, inputs = evaluation.metrics, evaluation.inputs
    lines = context(evaluation)
    k = metrics.k[0]
    cards = [
        (evaluation.metrics.get("mAP@all"), "mAP@all (voc)"),
        *((metrics.get(f"mAP@{c}"), f"mAP@{c} (voc)") for c in metrics.k),
        (metrics.get(f"P@{k}"), f"P@{k}"),
    ]
    parts = [f"<h1>{escape(headline(evaluation))}</h1>"]
    parts += [f"<p>{escape(line)}</p>" for line in lines[:3] if not line.startswith(("WARNING", "note"))]
    parts.append('<div class="cards">')
    parts += [f'<div class="card"><b>{100 * v:.1f}</b><span>{escape(n)}, %</span></div>' for v, n in cards]
    parts.append("</div>")
    parts += [f'<div class="warn">{escape(w)}</div>' for w in inputs.warnings]
    if inputs.notes:
        parts.append("<ul>" + "".join(f"<li>{escape(n)}</li>" for n in inputs.notes) + "</ul>")
    parts += ["<h2>Measures</h2>", _measures(evaluation)]
    if evaluation.groups:
        parts += ["<h2>Seen and unseen queries</h2>", _groups(evaluation)]
    parts += ['<h2>Classes</h2><div class="two">', drawn["classes"], drawn["precision_recall"], "</div>"]
    parts += ["<h2>What is taken for what</h2>", drawn["confusion"]]
    if "queries" in drawn:
        parts += ["<h2>Best and worst queries</h2>", drawn["queries"]]
    parts += ["<h2>Map</h2>", drawn["map"]]
    parts.append(
        "<footer>AP conventions: voc = precision interpolated (largest at this rank or later), divided by min(k, R); "
        "plain = without interpolation; hits = divided by the hits found in the first k. P@k = hits in the first k / "
        "k; P@min(k,R) divides by min(k, R). R = photos of the query's class in the gallery. Means run over queries. "
        "Equal scores count by their expectation over random order. Intervals: bootstrap, 2,000 resamples.<br>"
        + escape("; ".join(inputs.about.describe()[1:]))
        + "</footer>"
    )
    return parts


def _measures(evaluation: Evaluation) -> str:
    rows, classes = [], []
    for m in evaluation.measures:
        q, c = m.over_queries, m.over_classes
        rows.append(
            (m.name, m.convention or "–", f"{100 * m.value:.2f}", f"{100 * q.low:.2f} – {100 * q.high:.2f}",
             f"{100 * c.low:.2f} – {100 * c.high:.2f}")
        )  # fmt: skip
        classes.append("first" if m.convention in ("voc", "") else "")
    for p in comparable(evaluation):
        name = f"{p.measure}, {p.method} {p.year}, {p.backbone} (published)"
        rows.append((name, p.convention or "–", f"{p.value:.1f}", "", ""))
        classes.append("pub")
    return table(("measure", "convention", "%", "95 % over queries", "95 % over classes"), rows, classes)


def _groups(evaluation: Evaluation) -> str:
    sides = ("seen", "unseen", "harmonic")
    rows = [
        (name, *(f"{100 * evaluation.groups[g][name]:.2f}" for g in sides))
        for name in evaluation.groups["seen"]
    ]
    return table(("measure", "seen", "unseen", "harmonic mean"), rows)


def _figures(evaluation: Evaluation, folder: Path, progress: Progress) -> dict[str, str]:
    """Draw all figures: PNG files in `folder`, HTML in the result."""
    metrics, inputs = evaluation.metrics, evaluation.inputs
    kept = [
        c for c in np.unique(metrics.query_labels) if (metrics.counted & (metrics.query_labels == c)).any()
    ]
    names = [inputs.classes[c] if c < len(inputs.classes) else str(c) for c in kept]
    k = metrics.k[0]
    ap, at_k = (np.array([metrics.per_class(n)[int(c)] for c in kept]) for n in ("mAP@all", f"P@{k}"))
    curves = np.stack([metrics.select(metrics.query_labels == c).mean_curve() for c in kept])
    out: dict[str, str] = {}

    def add(name: str, drawing: Figure, caption: str) -> None:
        figures.save_png(drawing, folder / f"{name}.png")
        out[name] = figure(figures.to_svg(drawing, name), caption)

    add(
        "classes",
        figures.class_bars(names, ap, at_k, f"P@{k}"),
        "Per class; the dashed line is the mean over classes.",
    )
    add("precision_recall", figures.precision_recall(metrics.recall_levels, metrics.mean_curve(), curves),
        "Interpolated precision at each recall.")  # fmt: skip
    sample = _sample_of(metrics.counted)
    depth = int(min(100, metrics.relevant[metrics.counted].min()))
    top = _top(evaluation, sample, max(depth, 10), progress)
    found = inputs.gallery.labels[top.rows[:, :depth]]
    everything = np.unique(np.concatenate([metrics.query_labels[sample], found[found >= 0].ravel()]))
    position = {int(c): i for i, c in enumerate(everything)}
    shares = confusion(
        np.vectorize(lambda c: position.get(int(c), 0))(found),
        np.array([position[int(c)] for c in metrics.query_labels[sample]]), len(everything),
    )  # fmt: skip
    labels = [inputs.classes[c] if c < len(inputs.classes) else str(c) for c in everything]
    add("confusion", figures.confusion_matrix(labels, shares, depth),
        f"Classes of the first {depth} photos, from {len(sample):,} queries.")  # fmt: skip
    if inputs.prepared is not None:
        out["queries"] = _extremes(evaluation)
    add("map", *_map(evaluation))
    return out


def _sample_of(counted: npt.NDArray[np.bool_]) -> Ints:
    rows = np.flatnonzero(counted)
    return np.sort(np.random.default_rng(0).permutation(rows)[:SAMPLE]).astype(np.int64)


def _top(evaluation: Evaluation, queries: Ints, k: int, progress: Progress = silent) -> Neighbours:
    """The first k photos of some queries (unit rows, so that inner products are cosines)."""
    inputs = evaluation.inputs
    gallery = np.asarray(inputs.gallery.rows, np.float32)
    gallery = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    parts = []
    for a in range(0, len(queries), 256):
        rows = torch.from_numpy(np.asarray(inputs.query.rows[queries[a : a + 256]], np.float32))
        parts.append(search(rows, gallery, k))
        progress("first photos of the queries", min(a + 256, len(queries)), len(queries))
    return Neighbours(np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts]))


def _extremes(evaluation: Evaluation) -> str:
    """Strips of the best and the worst queries, each of another class."""
    metrics = evaluation.metrics
    ap = metrics.per_query("mAP@all")
    order = np.flatnonzero(metrics.counted)[np.argsort(ap[metrics.counted], kind="stable")]
    best, worst = (_of_different_classes(o, metrics.query_labels) for o in (order[::-1], order))
    chosen = np.array(best + worst)
    top = _top(evaluation, chosen, 10)
    parts = []
    for i, query in enumerate(chosen):
        if i in (0, len(best)):
            parts.append(f"<h3>{'Best' if i == 0 else 'Worst'}</h3>")
        parts.append(_strip(evaluation, int(query), top.rows[i], float(ap[query])))
    return "".join(parts)


def _of_different_classes(order: Ints, labels: Ints) -> list[int]:
    """The first `SHOWN` of an order whose classes differ."""
    taken: dict[int, int] = {}
    for query in order:
        taken.setdefault(int(labels[query]), int(query))
        if len(taken) == SHOWN:
            break
    return list(taken.values())


def _strip(evaluation: Evaluation, query: int, rows: Sequence[int], ap: float) -> str:
    inputs = evaluation.inputs
    assert inputs.prepared is not None
    wanted = int(inputs.query.labels[query])
    thumbs = []
    for row in rows:
        label = int(inputs.gallery.labels[row])
        image = pictures.from_prepared(inputs.prepared, inputs.gallery.pictures[row])
        thumbs.append(Thumb(image, inputs.classes[label], "hit" if label == wanted else "miss"))
    sketch = pictures.from_prepared(inputs.prepared, inputs.query.pictures[query])
    return strip(Thumb(sketch, f"{inputs.classes[wanted]}, AP {100 * ap:.1f}"), thumbs)


def _map(evaluation: Evaluation) -> tuple[Figure, str]:
    inputs, metrics = evaluation.inputs, evaluation.metrics
    rng = np.random.default_rng(0)
    classes = np.intersect1d(metrics.query_labels[metrics.counted], inputs.gallery.labels)
    shown = np.sort(rng.permutation(classes)[:MAP_CLASSES])
    rows, labels, kinds = [], [], []
    for i, c in enumerate(shown):
        for side, most, sketch in ((inputs.query, MAP_SKETCHES, True), (inputs.gallery, MAP_PHOTOS, False)):
            index = np.sort(rng.permutation(np.flatnonzero(side.labels == c))[:most])
            taken = np.asarray(side.rows[index], np.float32)
            rows.append(taken / np.linalg.norm(taken, axis=1, keepdims=True))
            labels += [i] * len(index)
            kinds += [sketch] * len(index)
    names = [inputs.classes[c] if c < len(inputs.classes) else str(c) for c in shown]
    drawing = figures.embedding_map(tsne(np.concatenate(rows)), np.array(labels), np.array(kinds), names)
    what = f"t-SNE of up to {MAP_SKETCHES} sketches (triangles) and {MAP_PHOTOS} photos (dots) of {len(shown)} classes."
    return drawing, what
