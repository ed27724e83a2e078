"""From queries and a gallery to numbers that say what they mean, and how they are shown."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats, Ints
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Embeddings, Rows
from zssbir_cli.data.embeddings_user import Pair
from zssbir_cli.data.manifest import NEAR
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.engine.provenance import Provenance
from zssbir_cli.errors import DataError
from zssbir_cli.evaluation.bootstrap import Interval, intervals
from zssbir_cli.evaluation.protocols import Task
from zssbir_cli.evaluation.published import Published, published
from zssbir_cli.names import counted, listed, named_classes
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.metrics import Metrics, evaluate
from zssbir_cli.types import Modality, Part

CURVE_LEVELS = 101
DEFAULT_K = (100, 200)


@dataclass(frozen=True)
class Side:
    """Queries or gallery: rows [N, D], labels int64 [N], names of the images, and where pictures of them are."""

    rows: Rows
    labels: Ints
    sources: tuple[str, ...] = ()
    pictures: tuple[tuple[Part, Modality, int], ...] = ()
    """Place of each image in `Inputs.prepared` (empty when there are no pictures; extra photos have none)."""

    def only(self, keep: npt.NDArray[np.bool_]) -> "Side":
        """Some of the images (without pictures)."""
        names = [n for n, k in zip(self.sources, keep, strict=True) if k] if self.sources else []
        return Side(self.rows[keep], self.labels[keep], tuple(names))


@dataclass(frozen=True)
class Distractors:
    """Photos of an embeddings file that join a gallery: their rows' numbers, and what to say of them."""

    stored: Embeddings
    index: Ints
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Inputs:
    """All that an evaluation needs, and what it must say."""

    query: Side
    gallery: Side
    classes: tuple[str, ...]
    about: Provenance
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seen: frozenset[int] = frozenset()
    """Labels of seen classes that take part (generalised protocols)."""
    prepared: PreparedSet | None = None
    task: Task | None = None
    """Whose images these are, of `prepared`."""
    extra: Distractors | None = None
    """Photos from elsewhere; they come last in the gallery, with label -1."""


def inputs_of_file(path: Path, pair: Pair, classes: Sequence[str] = ()) -> Inputs:
    """Queries and gallery of a file of embeddings of any model; `classes`: only these. Errors: DataError, UsageError."""
    query = Side(pair.query, pair.query_labels, pair.query_sources)
    gallery = Side(pair.gallery, pair.gallery_labels, pair.gallery_sources)
    notes = [*filter(None, [pair.note]), *_unlabelled(path, pair)]
    wanted = named_classes(classes, pair.classes, str(path))
    if wanted:
        query, gallery = (s.only(np.isin(s.labels, wanted)) for s in (query, gallery))
        notes.append(f"only {counted(len(wanted), 'class')}")
        if not len(query.labels) or not len(gallery.labels):
            raise DataError(f"{path}: no queries or no photos of these classes")
    else:
        query = query.only(query.labels >= 0)
    about = Provenance(
        "file", "queries and gallery of a file", embeddings=str(path), subset=bool(wanted),
        chosen=tuple(pair.classes[i] for i in wanted),
    )  # fmt: skip
    return Inputs(query, gallery, pair.classes, about, tuple(notes))


def _unlabelled(path: Path, pair: Pair) -> list[str]:
    """What to say of images without a label. DataError when no query has one."""
    queries, photos = int((pair.query_labels < 0).sum()), int((pair.gallery_labels < 0).sum())
    if queries == len(pair.query_labels):
        raise DataError(
            f"{path}: no query has a label; an evaluation needs the classes of queries and photos"
        )
    odd = [name for name in pair.classes if name.casefold() in ("nan", "none", "null", "<na>", "n/a")]
    lines = (
        (queries, f"{counted(queries, 'query')} without a label (-1): not counted"),
        (photos, f"{counted(photos, 'photo')} without a label (-1): in the gallery, relevant to no query"),
        (odd, f"{listed(odd)}: taken for a class; if that is a missing label, write -1 or an empty name"),
    )
    return [line for count, line in lines if count]


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
        return cls(name, about, {key: metrics.get(*key) for key in metrics.columns}, checkpoint)


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
    inputs: Inputs, *, k: Sequence[int] = DEFAULT_K, device: str = "auto", progress: Progress = silent
) -> Evaluation:
    """Evaluate inputs: all measures, conventions, intervals, groups, duplicates. Errors: DataError, UsageError."""
    query, gallery, device = inputs.query, inputs.gallery, str(choose_device(device))
    labels, counts = np.unique(gallery.labels, return_counts=True)
    kept = useful_cuts(k, len(gallery.labels), int(counts[np.isin(labels, query.labels)].max(initial=0)))
    metrics = evaluate(
        query.rows, gallery.rows, query.labels, gallery.labels,
        k=kept, classes=inputs.classes, curve_levels=CURVE_LEVELS, device=device, progress=progress,
    )  # fmt: skip
    notes: tuple[str, ...] = ()
    if copies := duplicates(gallery.rows):
        notes = (
            f"{copies} of {len(gallery.labels)} photos of the gallery are exact copies of another one "
            "(`zssbir prepare --dedup` leaves copies out)",
        )
    if inputs.about.embeddings and (found := in_both(query.rows, gallery.rows)):
        warning = (
            f"{found} of {len(query.labels)} queries stand in the gallery too, number for number: each finds itself first; "
            "leave them out of one side"
        )
        inputs = replace(inputs, warnings=(*inputs.warnings, warning))
    return evaluation_of(inputs, metrics, k, notes)


def useful_cuts(asked: Sequence[int], gallery: int, relevant: int) -> tuple[int, ...]:
    """Those cuts that can tell rankings apart: below the gallery and, unless they were asked for, no larger than
    `relevant`, the most photos that are relevant to one query. Where there is none, 10 or less."""
    most = gallery - 1 if tuple(asked) != DEFAULT_K else min(gallery - 1, relevant)
    return tuple(dict.fromkeys(c for c in asked if c <= most)) or (max(1, min(10, most)),)


def evaluation_of(
    inputs: Inputs, metrics: Metrics, asked: Sequence[int], notes: tuple[str, ...] = ()
) -> Evaluation:
    """Means of all measures in all conventions, with intervals and groups; `notes` come after those of `metrics`.
    asked: the cuts that were asked for, of which `metrics` has the useful ones."""
    kept = metrics.counted
    values = np.stack([of_query[kept] for of_query in metrics.columns.values()], axis=1)
    bounds = zip(intervals(values, None), intervals(values, metrics.query_labels[kept]), strict=True)
    measures = tuple(
        Measure(*key, metrics.get(*key), *both) for key, both in zip(metrics.columns, bounds, strict=True)
    )
    groups, told = _groups(inputs, metrics)
    notes = (*inputs.notes, *metrics.notes, *told, *_cut_notes(asked, metrics), *notes)
    inputs = replace(inputs, notes=notes)
    return Evaluation(inputs, metrics, measures, groups, asked=tuple(asked))


def _cut_notes(asked: Sequence[int], metrics: Metrics) -> list[str]:
    """What to say, once, of cuts that are left out, and of kept ones at which no ranking can reach 100 %."""
    notes, relevant = [], int(metrics.relevant.max())
    if over := " and ".join(str(k) for k in asked if k not in metrics.k):
        why = f"no smaller than the gallery of {metrics.gallery}"
        if tuple(asked) == DEFAULT_K:
            why = f"a query has at most {relevant} relevant photos, in a gallery of {metrics.gallery}"
        cuts = ", ".join(map(str, metrics.k))
        notes.append(f"k = {over} left out: {why}; cuts are {cuts} (choose others with -k)")
    if high := max((k for k in metrics.k if k > relevant), default=0):
        best = f"P@{high} cannot exceed {100 * relevant / high:.2f} %"
        notes.append(f"k = {high}: a query has at most {relevant} relevant photos, so that {best}")
    return notes


def duplicates(rows: Rows) -> int:
    """How many rows [N, D] equal an earlier row bit for bit."""
    data = np.ascontiguousarray(rows)
    width = data.itemsize * data.shape[1]
    words = data.view(np.uint64 if width % 8 == 0 else f"u{data.itemsize}")
    _, place, count = np.unique(np.bitwise_xor.reduce(words, 1), return_inverse=True, return_counts=True)
    data = data[count[place] > 1]  # sorting whole rows takes long, and the others differ from all
    return len(data) - len(np.unique(data.view(np.dtype((np.void, width))).ravel()))


def in_both(a: Rows, b: Rows) -> int:
    """How many rows of a [N, D] equal a row of b [M, D] bit for bit."""
    kept = np.isin(a[:, 0], b[:, 0])  # few do by chance
    there = {row.tobytes() for row in b[np.isin(b[:, 0], a[:, 0])]} if kept.any() else set()
    return sum(row.tobytes() in there for row in a[kept])


def copied_rows(a: Rows, b: Rows) -> npt.NDArray[np.bool_]:
    """Which rows of a [N, D] are a row of b [M, D] but for rounding, as the same picture in another batch has: bool [N]."""
    near = 1e-3 if np.float16 in (a.dtype, b.dtype) else 1e-5
    line: Floats = np.random.default_rng(0).standard_normal((b.shape[1],))
    line = line / np.linalg.norm(line)  # what lies together lies together on any line

    def unit(rows: Rows) -> Floats:
        wide = np.asarray(rows, np.float64)
        result: Floats = wide / np.linalg.norm(wide, axis=1, keepdims=True)
        return result

    held, found = unit(b), np.zeros(len(a), np.bool_)
    held = held[np.argsort(held @ line)]
    places = held @ line
    for start in range(0, len(a), 16_384):
        rows = unit(a[start : start + 16_384])
        first, last = (np.searchsorted(places, rows @ line + shift) for shift in (-near, near))
        for i in np.flatnonzero(last > first).tolist():
            away = held[first[i] : last[i]] - rows[i]
            found[start + i] = np.square(away).sum(1).min() < near**2
    return found


def _groups(inputs: Inputs, metrics: Metrics) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Means over seen and over unseen queries and their harmonic mean, where both take part; else what is missing."""
    seen = np.isin(metrics.query_labels, list(inputs.seen)) if inputs.seen else np.zeros(0, bool)
    if not seen.any() or seen.all():
        return {}, []
    for of_side, what in ((seen, "seen"), (~seen, "unseen")):
        if not (of_side & metrics.counted).any():
            return {}, [
                f"none of the {what} queries has a relevant photo: there are no means of seen and unseen ones"
            ]
    sides = metrics.select(seen), metrics.select(~seen)
    out: dict[str, dict[str, float]] = {"seen": {}, "unseen": {}, "harmonic": {}}
    for key in metrics.columns:
        a, b = (side.get(*key) for side in sides)
        harmonic = 2 * a * b / (a + b) if a + b else 0.0
        for group, value in zip(out.values(), (a, b, harmonic), strict=True):
            group[" ".join(key).strip()] = value
    return out, []


Cells = list[tuple[str, ...]]
"""Rows of a table of texts, the names of its columns first."""


def table_of(evaluation: Evaluation) -> Cells:
    """Measures with baselines and intervals, then published numbers that compare, in percent."""
    baselines = evaluation.baselines
    names = [b.name for b in baselines]
    rows: Cells = [("measure", "convention", "%", *names, "95 % over queries", "95 % over classes")]
    for m in evaluation.measures:
        beside = [f"{100 * b.values[m.name, m.convention]:.2f}" for b in baselines]
        spans = [f"{100 * i.low:.2f} - {100 * i.high:.2f}" for i in (m.over_queries, m.over_classes)]
        rows.append((m.name, m.convention or "-", f"{100 * m.value:.2f}", *beside, *spans))
    for p in comparable(evaluation):
        name = f"{p.title}, {p.backbone} (published)"
        rows.append((name, p.convention or "-", f"{p.value:.1f}", *[""] * (2 + len(baselines))))
    return rows


def groups_of(evaluation: Evaluation) -> Cells:
    """The same for seen and unseen queries; [] unless the protocol is a generalised one."""
    groups = evaluation.groups.values()
    names = evaluation.groups.get("seen", ())
    rows: Cells = [(name, *(f"{100 * group[name]:.2f}" for group in groups)) for name in names]
    return [("measure", "seen", "unseen", "harmonic mean"), *rows] if rows else []


def comparable(evaluation: Evaluation) -> list[Published]:
    """Published numbers of the same split, protocol, queries and gallery ([] for most data sets)."""
    about, metrics = evaluation.inputs.about, evaluation.metrics
    allowed = [
        leak for leak in about.leaks if not leak.startswith(NEAR)
    ]  # the benchmarks hold near copies themselves
    if not about.of_weights or about.subset or about.extra or allowed:
        return []
    return published(about.split, about.protocol, metrics.queries, metrics.gallery)


def context(evaluation: Evaluation) -> list[str]:
    """What one must know beside the numbers: protocol, sizes, weights, notes and warnings, one line each."""
    inputs, metrics = evaluation.inputs, evaluation.metrics
    relevant = metrics.relevant[metrics.counted]
    least, most = int(relevant.min()), int(relevant.max())
    count = f"{least:,}" if least == most else f"{least:,} to {most:,}"
    protocol, *about = inputs.about.describe()
    lines = [
        protocol,
        f"{counted(metrics.queries, 'query')} of {counted(len(np.unique(metrics.query_labels)), 'class')} against a gallery of "
        f"{counted(metrics.gallery, 'photo')} ({count} relevant to each)",
        *about,
    ]
    lines += [f"{b.name}: {b.about}" for b in evaluation.baselines if b.checkpoint]
    lines += [f"note: {n}" for n in inputs.notes]
    return lines + [f"WARNING: {w}" for w in inputs.warnings]
