"""The report of an evaluation: a self-contained HTML page, Markdown, and the figures as SVG."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zssbir_cli import files
from zssbir_cli.arrays import Ints, UInt8
from zssbir_cli.data.prepared import ImageSet
from zssbir_cli.evaluation import pictures
from zssbir_cli.evaluation.measure import Evaluation, Inputs, comparable, context, groups_of, table_of
from zssbir_cli.evaluation.results import markdown
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.projection import confusion, pca
from zssbir_cli.retrieval.ranking import as_tensor
from zssbir_cli.retrieval.search import search
from zssbir_cli.viz import report_figures as figures
from zssbir_cli.viz.drawing import Drawing
from zssbir_cli.viz.page import Figure, Table, write_page
from zssbir_cli.viz.sheet import Mark, Tile

SAMPLE = 256
"""Queries that the confusion matrix looks at (all, if there are fewer)."""
BLOCK = 1 << 23
"""Scores that are looked at together."""
MAP_CLASSES, MAP_SKETCHES, MAP_PHOTOS = 20, 15, 25
"""Classes of the map, and sketches and photos of each."""
SHOWN = 5
"""Best and worst queries that are shown, and photos of each: 10."""
WIDE = 40
"""Classes from which on the confusion matrix takes a page's whole width."""


def write_report(evaluation: Evaluation, folder: Path, progress: Progress = silent) -> Path:
    """Write report.html, report.md and the figures into `folder`; returns the page's path. DataError: disk."""
    with files.writing(folder):
        drawn = _figures(evaluation, folder, progress)
        files.write_text(folder / "report.md", markdown(evaluation))
    return write_page(folder / "report.html", "report", **_values(evaluation, drawn))


def _values(evaluation: Evaluation, drawn: dict[str, Figure]) -> dict[str, object]:
    """What the template `report` shows."""
    metrics, inputs = evaluation.metrics, evaluation.inputs
    k = metrics.k[0]
    cards = [
        ("mAP@all (voc), %", metrics.get("mAP@all")),
        *((f"mAP@{c} (voc), %", metrics.get(f"mAP@{c}")) for c in metrics.k),
        (f"P@{k}, %", metrics.get(f"P@{k}")),
    ]
    said = {*inputs.warnings, *inputs.notes}
    lines = [x for x in context(evaluation) if x.removeprefix("WARNING: ").removeprefix("note: ") not in said]
    return {
        "title": inputs.about.headline,
        "lines": lines,
        "cards": [{"name": name, "value": f"{100 * value:.1f}"} for name, value in cards],
        "warnings": inputs.warnings,
        "notes": inputs.notes,
        "measures": _measures(evaluation),
        "groups": Table(groups[0], groups[1:]) if (groups := groups_of(evaluation)) else None,
        "figures": drawn,
        "strips": _extremes(evaluation) if inputs.prepared is not None else (),
        "facts": inputs.about.describe()[1:],
    }


def _measures(evaluation: Evaluation) -> Table:
    head, *rows = table_of(evaluation)
    styles = ["first" if m.convention in ("voc", "") else "" for m in evaluation.measures]
    return Table(head, rows, styles + ["published"] * len(comparable(evaluation)))


def _figures(evaluation: Evaluation, folder: Path, progress: Progress) -> dict[str, Figure]:
    """Draw all figures: SVG files in `folder`, and for the page."""
    metrics = evaluation.metrics
    counted = np.unique(metrics.query_labels[metrics.counted])
    names = [_name(evaluation, c) for c in counted]
    k = metrics.k[0]
    of_class = [metrics.per_class(name) for name in ("mAP@all", f"P@{k}")]
    ap, at_k = (np.array([values[c] for c in counted.tolist()]) for values in of_class)
    curves = np.stack([metrics.select(metrics.query_labels == c).mean_curve() for c in counted])
    chance = float(metrics.relevant[metrics.counted].mean()) / metrics.gallery
    out: dict[str, Figure] = {}

    def add(name: str, drawing: Drawing, alt: str, caption: str, wide: bool = False) -> None:
        document = drawing.svg()
        files.write_text(folder / f"{name}.svg", document)
        (folder / f"{name}.png").unlink(missing_ok=True)  # an older version's
        out[name] = Figure(document, alt, caption, wide)

    add("classes", figures.class_bars(names, ap, at_k, f"P@{k}"),
        f"mean AP of {len(names)} classes as bars", "Per class; the dashed line is the mean over classes.")  # fmt: skip
    add("precision_recall", figures.precision_recall(metrics.recall_levels, metrics.mean_curve(), curves, chance),
        "precision over recall", "Interpolated precision at each recall; chance: a random order.")  # fmt: skip
    drawing, caption, wide = _confusion(evaluation, progress)
    add("confusion", drawing, "confusion matrix of the classes", caption, wide)
    drawing, caption = _map(evaluation)
    add("map", drawing, "map of the embeddings", caption)
    return out


def _confusion(evaluation: Evaluation, progress: Progress) -> tuple[Drawing, str, bool]:
    """Which classes the first photos are of; photos without a label have a column of their own."""
    metrics = evaluation.metrics
    sample = np.sort(np.random.default_rng(0).permutation(np.flatnonzero(metrics.counted))[:SAMPLE])
    depth = int(min(100, metrics.relevant[metrics.counted].min()))
    found = evaluation.inputs.gallery.labels[_nearest(evaluation, sample, depth, progress)]
    everything, place = np.unique(np.append(found.ravel(), metrics.query_labels[sample]), return_inverse=True)
    cut = found.size
    shares = confusion(place[:cut].reshape(found.shape), place[cut:], len(everything))
    drawing = figures.confusion_matrix([_name(evaluation, c) for c in everything], shares, depth)
    caption = f"Classes of the first {depth} photos, from {len(sample):,} queries."
    return drawing, caption, len(everything) > WIDE


def _name(evaluation: Evaluation, label: int) -> str:
    """A class's name for its label; -1 means that a photo has none."""
    classes = evaluation.inputs.classes
    return "(no label)" if label < 0 else classes[label] if label < len(classes) else str(label)


def _nearest(evaluation: Evaluation, queries: Ints, k: int, progress: Progress) -> Ints:
    """The first k photos of some queries, to within rounding, in any order; int64 [Q, k]."""
    rows, gallery, parts = _query_rows(evaluation, queries), torch.from_numpy(_unit_gallery(evaluation)), []
    step = max(16, BLOCK // len(gallery))
    for a in range(0, len(rows), step):
        parts.append((rows[a : a + step] @ gallery.T).topk(k, sorted=False).indices.numpy())
        progress("first photos of the queries", min(a + step, len(rows)), len(rows))
    return np.concatenate(parts)


def _query_rows(evaluation: Evaluation, queries: Ints) -> torch.Tensor:
    return torch.from_numpy(np.asarray(evaluation.inputs.query.rows[queries], np.float32))


def _unit_gallery(evaluation: Evaluation) -> npt.NDArray[np.float32]:
    """Rows of unit length to within rounding (as embeddings files hold them), so that inner products order by cosine."""
    rows = np.asarray(evaluation.inputs.gallery.rows, np.float32)
    length = torch.linalg.vector_norm(as_tensor(rows), dim=1).numpy()
    if np.abs(length - 1).max() < 1e-5:
        return rows
    return np.asarray(rows / length[:, None], np.float32)


def _extremes(evaluation: Evaluation) -> list[dict[str, object]]:
    """Strips of the best and the worst queries, each of another class."""
    metrics = evaluation.metrics
    ap = metrics.per_query("mAP@all")
    order = np.flatnonzero(metrics.counted)[np.argsort(ap[metrics.counted], kind="stable")]
    best, worst = (_of_different_classes(end, metrics.query_labels) for end in (order[::-1], order))
    shown = strips(evaluation, [*best, *worst])
    parts = ("Best", shown[: len(best)]), ("Worst", shown[len(best) :])
    return [{"heading": heading, "strips": part} for heading, part in parts]


@dataclass(frozen=True)
class Strip:
    """A query and its best photos, best first."""

    query: Tile
    results: list[Tile]


def strips(evaluation: Evaluation, queries: Sequence[int], k: int = 10) -> list[Strip]:
    """Some queries of a prepared set with their first `k` photos; marks say which are of the query's class."""
    inputs = evaluation.inputs
    assert inputs.prepared is not None
    images = cache(inputs.prepared.images)  # each shard's index is read once, not for every picture
    ap, found = evaluation.metrics.per_query("mAP@all"), []
    top = search(_query_rows(evaluation, np.array(queries)), _unit_gallery(evaluation), k)
    for query, rows, scores in zip(queries, top.rows.tolist(), top.scores.tolist(), strict=True):
        wanted, results = int(inputs.query.labels[query]), []
        for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1):
            label = int(inputs.gallery.labels[row])
            mark: Mark = "hit" if label == wanted else "miss"
            name = _name(evaluation, label).replace("_", " ")
            results.append(Tile(_photo(inputs, row, images), name, f"{score:.3f}", rank, mark))
        *where, number = inputs.query.pictures[query]
        sketch = pictures.of_set(images(*where), number)
        name = _name(evaluation, wanted).replace("_", " ")
        found.append(Strip(Tile(sketch, name, f"AP {100 * ap[query]:.1f}", mark="query"), results))
    return found


def _of_different_classes(order: Ints, labels: Ints) -> list[int]:
    """The first `SHOWN` of an order whose classes differ."""
    taken: dict[int, int] = {}
    for query in order:
        taken.setdefault(int(labels[query]), int(query))
        if len(taken) == SHOWN:
            break
    return list(taken.values())


def _photo(inputs: Inputs, row: int, images: Callable[..., ImageSet]) -> UInt8 | None:
    """The picture of a photo of the gallery; None when it is not there any more."""
    own = len(inputs.gallery.pictures)
    if row < own or inputs.extra is None:
        *where, number = inputs.gallery.pictures[row]
        return pictures.of_set(images(*where), number)
    return pictures.of_gallery(inputs.extra.stored, [int(inputs.extra.index[row - own])])[0]


def _map(evaluation: Evaluation) -> tuple[Drawing, str]:
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
    names = [_name(evaluation, c) for c in shown]
    points, share = pca(np.concatenate(rows))
    drawing = figures.embedding_map(points, np.array(labels), np.array(kinds), names)
    what = (
        f"The first two principal components ({100 * share:.0f} % of the variance) of up to {MAP_SKETCHES} sketches "
        f"(triangles) and {MAP_PHOTOS} photos (dots) of {len(shown)} classes."
    )
    return drawing, what
