"""`zssbir eval`: from queries and a gallery to numbers that say what they mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Rows
from zssbir_cli.evaluation.bootstrap import Interval, intervals
from zssbir_cli.evaluation.inputs import Inputs
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.metrics import Metrics, evaluate

CURVE_LEVELS = 101
DEFAULT_K = (100, 200)


@dataclass(frozen=True)
class Measure:
    """One number: mean, interval over queries, interval over classes. `convention` is empty where it plays no
    role."""

    name: str
    convention: str
    value: float
    over_queries: Interval
    over_classes: Interval


@dataclass(frozen=True)
class Baseline:
    """A yardstick on the same queries and gallery: its measures 0-1, by name and convention."""

    name: str
    about: str
    values: Mapping[tuple[str, str], float]
    checkpoint: str = ""
    """sha256 of its weights, where it has some."""

    @classmethod
    def of(cls, name: str, about: str, metrics: Metrics, checkpoint: str = "") -> "Baseline":
        """The means of all measures in all conventions."""
        pairs = [(n, c) for n in metrics.names for c in (Metrics.conventions_of(n) or ("",))]
        return cls(name, about, {(n, c): metrics.get(n, c or "voc") for n, c in pairs}, checkpoint)


@dataclass(frozen=True)
class Evaluation:
    """Inputs, metrics with all per-query values, and the means with their intervals."""

    inputs: Inputs
    metrics: Metrics
    measures: tuple[Measure, ...]
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """For generalised protocols: `seen`, `unseen` and `harmonic` -> measure -> value."""
    baselines: tuple[Baseline, ...] = ()
    """Chance, and the frozen start of the run (`baselines`)."""
    asked: tuple[int, ...] = DEFAULT_K
    """The cuts that were asked for; those above the gallery are left out."""


def measure(
    inputs: Inputs,
    *,
    k: Sequence[int] = DEFAULT_K,
    device: str = "auto",
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate inputs: all measures, conventions, intervals, groups, duplicates. Errors: DataError, UsageError."""
    query, gallery, device = inputs.query, inputs.gallery, str(choose_device(device))
    most = most_relevant(query.labels, gallery.labels)
    asked, k = tuple(k), useful_cuts(k, len(gallery.labels), most)
    metrics = evaluate(
        query.rows, gallery.rows, query.labels, gallery.labels,
        k=k, classes=inputs.classes, curve_levels=CURVE_LEVELS, device=device, progress=progress,
    )  # fmt: skip
    notes = cut_notes(asked, k, metrics.gallery, most)
    if copies := duplicates(gallery.rows):
        notes += (
            f"{copies} of {len(gallery.labels)} photos of the gallery are exact copies of another one "
            "(`zssbir prepare --dedup` leaves copies out)",
        )
    return replace(evaluation_of(inputs, metrics, notes), asked=asked)


def most_relevant(query_labels: Ints, gallery_labels: Ints) -> int:
    """The most photos that are relevant to one query."""
    labels, counts = np.unique(gallery_labels, return_counts=True)
    return int(counts[np.isin(labels, query_labels)].max(initial=0))


def useful_cuts(asked: Sequence[int], gallery: int, relevant: int) -> tuple[int, ...]:
    """Those cuts that can tell rankings apart: below the gallery and, unless they were asked for, no larger than
    `relevant`, the most photos that are relevant to one query. Where there is none, 10 or less."""
    most = gallery - 1 if tuple(asked) != DEFAULT_K else min(gallery - 1, relevant)
    return tuple(dict.fromkeys(c for c in asked if c <= most)) or (max(1, min(10, most)),)


def evaluation_of(inputs: Inputs, metrics: Metrics, notes: tuple[str, ...] = ()) -> Evaluation:
    """Means of all measures in all conventions, with intervals and groups; `notes` come after those of `metrics`."""
    names = [(n, c) for n in metrics.names for c in (Metrics.conventions_of(n) or ("",))]
    kept = metrics.counted
    values = np.stack([metrics.per_query(n, c or "voc")[kept] for n, c in names], axis=1)
    by_query = intervals(values, None)
    by_class = intervals(values, metrics.query_labels[kept])
    measures = tuple(
        Measure(n, c, float(values[:, i].mean()), by_query[i], by_class[i]) for i, (n, c) in enumerate(names)
    )
    inputs = replace(inputs, notes=inputs.notes + metrics.notes + notes)
    return Evaluation(inputs, metrics, measures, _groups(inputs, metrics))


def cut_notes(asked: Sequence[int], kept: Sequence[int], gallery: int, relevant: int) -> tuple[str, ...]:
    """What to say, once, of cuts that are left out, and of kept ones at which no ranking can reach 100 %."""
    notes = []
    if over := " and ".join(str(k) for k in asked if k not in kept):
        why = f"no smaller than the gallery of {gallery}"
        if tuple(asked) == DEFAULT_K:
            why = f"a query has at most {relevant} relevant photos, in a gallery of {gallery}"
        notes.append(
            f"k = {over} left out: {why}; cuts are {', '.join(map(str, kept))} (choose others with -k)"
        )
    if high := max((k for k in kept if k > relevant), default=0):
        best = 100 * relevant / high
        notes.append(
            f"k = {high}: a query has at most {relevant} relevant photos, so that P@{high} cannot exceed {best:.2f} %"
        )
    return tuple(notes)


def duplicates(rows: Rows) -> int:
    """How many rows [N, D] equal an earlier row bit for bit."""
    data = np.ascontiguousarray(rows)
    return len(data) - len(np.unique(data.view(np.dtype((np.void, data.itemsize * data.shape[1]))).ravel()))


def _groups(inputs: Inputs, metrics: Metrics) -> dict[str, dict[str, float]]:
    """Means over seen and over unseen queries and their harmonic mean, where both take part."""
    seen = np.isin(metrics.query_labels, list(inputs.seen)) if inputs.seen else np.zeros(0, bool)
    if not seen.any() or seen.all():
        return {}
    sides = {"seen": metrics.select(seen), "unseen": metrics.select(~seen)}
    out: dict[str, dict[str, float]] = {}
    for name in metrics.names:
        for convention in Metrics.conventions_of(name) or ("",):
            label = f"{name} {convention}".strip()
            a, b = (sides[s].get(name, convention or "voc") for s in ("seen", "unseen"))
            harmonic = 2 * a * b / (a + b) if a + b else 0.0
            for group, value in (("seen", a), ("unseen", b), ("harmonic", harmonic)):
                out.setdefault(group, {})[label] = value
    return out
