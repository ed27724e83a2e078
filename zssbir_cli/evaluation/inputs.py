"""What is evaluated: queries and gallery of a protocol with the weights of a run or of a frozen tower, or of a file of embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Ints
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Embeddings, Rows
from zssbir_cli.data.embeddings_user import Pair, read_user_embeddings
from zssbir_cli.data.prepared import ImageRows, PreparedSet
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.own import Knows, data_of, leak_lines
from zssbir_cli.embedding.parts import embed_choice, embed_part
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights
from zssbir_cli.engine.provenance import Provenance
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.extra import Distractors, find_distractors
from zssbir_cli.evaluation.protocols import Stock, Task, build_task, restrict
from zssbir_cli.names import counted, find_class, listed, split_names, suggestion
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import ROLE_OF_PART, Modality, Part, Role


@dataclass(frozen=True)
class Side:
    """Queries or gallery: rows [N, D], labels int64 [N], names of the images, and where pictures of them are."""

    rows: Rows
    labels: Ints
    sources: tuple[str, ...] = ()
    pictures: tuple[tuple[Part, Modality, int], ...] = ()
    """Place of each image in `Inputs.prepared` (empty when there are no pictures; extra photos have none)."""


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
    """Photos of elsewhere; they come last in the gallery, with label -1."""


@dataclass(frozen=True)
class Options:
    """What to evaluate besides the weights and the split."""

    data: Path | None = None
    extra: Path | None = None
    """More photos for the gallery (`extra.find_distractors`)."""
    classes: tuple[str, ...] = ()
    """Names of classes, or texts that separate them by commas."""
    per_class: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None


def inputs_of(weights: Weights, split: str, options: Options, progress: Progress = silent) -> Inputs:
    """Queries and gallery of a protocol with the weights of a run or of a frozen tower; embeds what is missing or stale.

    On another data set than the one that a run learnt from (whatever its path), classes that it was
    trained on or selected by are left out and named. Errors: UsageError, DataError, CheckpointError.
    """
    data = data_of(weights, options.data)
    prepared = data.prepared
    stock = {
        (part, modality): prepared.images(part, modality).labels
        for part, modality in prepared.manifest.counts
    }
    wanted = _class_ids(prepared, options.classes)
    task = _restricted(build_task(split, stock, options.seed), stock, wanted, data, weights, options)
    images = _Images(weights, prepared, options, progress)
    query, gallery = images.side(task.queries), images.side(task.gallery)
    extra = None
    if options.extra is not None:
        searched = [prepared.classes[c] for c in np.unique(query.labels)]
        extra = find_distractors(options.extra, images.embedder, searched, progress)
        gallery = _with(gallery, extra)
    excluded = tuple(sorted(prepared.classes[c] for c in data.used))
    about = Provenance(
        protocol=task.name, protocol_description=task.description, **_about(weights),
        precision=images.precision, data=prepared.manifest.name, split=prepared.manifest.split,
        identity=prepared.identity, seed=options.seed, cross=not data.own, excluded=excluded,
        subset=bool(options.classes or options.per_class or excluded), leaks=_leaks(data),
        chosen=tuple(prepared.classes[c] for c in wanted or ()), most_per_class=options.per_class or 0,
        extra=str(options.extra or ""), extra_photos=len(extra.index) if extra else 0,
    )  # fmt: skip
    seen = frozenset(c.id for c in prepared.manifest.classes if c.role is Role.SEEN)
    notes = (
        *_notes(weights, data, task, excluded),
        *_class_notes(prepared, task, wanted),
        *(extra.notes if extra else ()),
    )
    return Inputs(
        query, gallery, tuple(prepared.classes), about, notes, _warnings(data),
        seen if split.startswith("gzs") else frozenset(), prepared, task, extra,
    )  # fmt: skip


def same_images(inputs: Inputs, weights: Weights, options: Options, progress: Progress = silent) -> Inputs:
    """The same queries and gallery with other weights. Errors: DataError, CheckpointError."""
    assert inputs.prepared is not None
    assert inputs.task is not None
    images = _Images(weights, inputs.prepared, options, progress)
    query, gallery = images.side(inputs.task.queries), images.side(inputs.task.gallery)
    extra = None
    if options.extra is not None:
        searched = [inputs.classes[c] for c in np.unique(query.labels)]
        extra = find_distractors(options.extra, images.embedder, searched, progress)
        gallery = _with(gallery, extra)
    return replace(inputs, query=query, gallery=gallery, extra=extra, notes=(), warnings=())


def _with(gallery: Side, extra: Distractors) -> Side:
    """The gallery with extra photos, which have no label."""
    labels = np.concatenate([gallery.labels, np.full(len(extra.index), -1, np.int64)])
    rows = np.concatenate([gallery.rows, extra.rows])
    return Side(rows, labels, (*gallery.sources, *extra.sources), gallery.pictures)


def _about(weights: Weights) -> dict[str, Any]:
    """What a result says of the weights."""
    facts = {"method": weights.method["name"], "which": weights.which, "checkpoint": weights.sha256}
    if isinstance(weights, RunWeights):
        run, info = str(weights.home), weights.checkpoint
        return {**facts, "run": run, "recipe": weights.recipe.name, "epoch": info.epoch, "step": info.step}
    assert isinstance(weights, TowerWeights)
    return {**facts, "model": weights.spec.label, "preprocessing": weights.spec.preprocessing}


def _restricted(
    task: Task, stock: Stock, wanted: list[int] | None, data: Knows, weights: Weights, options: Options
) -> Task:
    """The task without the classes that the run was trained on, and for the classes that were asked for.

    Errors: DataError that says why nothing is left.
    """
    prepared, used, parts = data.prepared, data.used, _parts(task)
    if wanted is not None and len(other := _outside(prepared, task, wanted)) == len(wanted):
        raise DataError(f"--classes: {', '.join(other)}: none of these takes part in --split {task.name}")
    pool = wanted if wanted is not None else range(len(prepared.classes))
    kept = [c for c in pool if c not in used]
    found = restrict(
        task, stock, kept if used or wanted is not None else None, options.per_class, options.seed
    )
    if all(sum(len(c.index) for c in side) for side in (found.queries, found.gallery)):
        return found
    if used:
        names = ", ".join(prepared.classes[c] for c in pool if c in used and _takes_part(prepared, c, parts))
        raise DataError(
            f"--split {task.name}: nothing is left of {prepared.root}: {weights.label} was trained on or selected by {names}; "
            f"evaluate on the set that it learnt from ({data.learnt.name}, identity {data.learnt.identity})"
        )
    raise DataError(f"--split {task.name}: no sketches or no photos of these classes")


def _parts(task: Task) -> set[Part]:
    return {c.part for c in (*task.queries, *task.gallery)}


def _takes_part(prepared: PreparedSet, label: int, parts: set[Part]) -> bool:
    return prepared.manifest.classes[label].role in {ROLE_OF_PART[p] for p in parts}


def _outside(prepared: PreparedSet, task: Task, wanted: Sequence[int]) -> list[str]:
    """Classes that were asked for and have another role than the protocol evaluates, with that role."""
    classes, inside = prepared.manifest.classes, _inside(prepared, task, wanted)
    return [f"{classes[c].name} ({classes[c].role})" for c in wanted if classes[c].name not in inside]


def _inside(prepared: PreparedSet, task: Task, wanted: Sequence[int]) -> set[str]:
    parts = _parts(task)
    return {prepared.classes[c] for c in wanted if _takes_part(prepared, c, parts)}


def _class_notes(prepared: PreparedSet, task: Task, wanted: Sequence[int] | None) -> list[str]:
    if wanted is None:
        return []
    count = len(_inside(prepared, task, wanted))
    notes = [f"only {count} classes" if count != 1 else "only one class: every photo is relevant"]
    if other := _outside(prepared, task, wanted):
        notes.append(f"asked for, but no part of --split {task.name}: {', '.join(other)}")
    return notes


def _leaks(data: Knows) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*data.learnt.leaks, *leak_lines(data.prepared.manifest))))


def _notes(weights: Weights, data: Knows, task: Task, excluded: Sequence[str]) -> tuple[str, ...]:
    notes = [weights.note, data.note, *task.notes]
    if excluded:
        names = ", ".join(excluded)
        notes.append(f"{len(excluded)} classes that the run was trained or selected on are excluded: {names}")
    if task.name.startswith("gzs") and not data.own:
        notes.append("the seen classes are those of this data set; these weights were not trained on them")
    if task.name.startswith("gzs") and (val := data.prepared.manifest.classes_of(Role.VAL)):
        notes.append(
            f"the {len(val)} validation classes of the data set are neither queries nor in the gallery"
        )
    return tuple(n for n in notes if n)


def _warnings(data: Knows) -> tuple[str, ...]:
    own, here = data.learnt.leaks, leak_lines(data.prepared.manifest)
    warnings = [f"prepare warned: {w}" for w in data.prepared.manifest.warnings]
    if own and own != here:
        warnings.append(
            f"the run learnt from a set with {len(own)} leaks between training and test, first: {own[0]}"
        )
    if here:
        warnings.append(f"{len(here)} leaks between training and test are on record, first: {here[0]}")
    return tuple(warnings)


def _class_ids(prepared: PreparedSet, names: Sequence[str]) -> list[int] | None:
    """Labels of the classes that the user named, each once. Errors: UsageError."""
    if not names:
        return None
    found = []
    for name in [name for given in names for name in split_names(given, prepared.classes)]:
        known = find_class(name, prepared.classes)
        if known is None:
            near = suggestion(name, prepared.classes)
            raise UsageError(f"--classes {name}: no such class in {prepared.root}{near}")
        found += [i for i, other in enumerate(prepared.classes) if other == known]  # two where it is leaked
    return list(dict.fromkeys(found))


class _Images:
    """Embeddings of choices, from files that are fresh, else computed."""

    def __init__(self, weights: Weights, prepared: PreparedSet, options: Options, progress: Progress) -> None:
        self.prepared, self.progress = prepared, progress
        self.embedder = Embedder.of(
            weights, choose_device(options.device), precision=options.precision, workers=options.workers
        )
        self._precisions: set[str] = set()
        self._open: dict[Part, Embeddings] = {}

    def side(self, choices: Sequence[ImageRows]) -> Side:
        """The images of several choices, one after the other."""
        rows, labels, sources, places = [], [], [], []
        for choice in choices:
            if not len(choice.index):
                continue
            stored, index = self._rows(choice)
            rows.append(stored.embedding[index])
            labels.append(stored.label[index].astype(np.int64))
            sources += [stored.sources[i] for i in index]
            places += [(choice.part, choice.modality, int(i)) for i in choice.index]
            self._precisions.add(stored.info.precision)
        return Side(np.concatenate(rows), np.concatenate(labels), tuple(sources), tuple(places))

    @property
    def precision(self) -> str:
        """In which precision the images were embedded; all of them where files differ."""
        return " and ".join(sorted(self._precisions))

    def _rows(self, choice: ImageRows) -> tuple[Embeddings, Ints]:
        """Embeddings that hold a choice, and its rows in them. Parts of the test protocols are kept whole."""
        if choice.part not in (Part.TEST, Part.VAL):
            found = embed_choice(self.embedder, self.prepared, choice, progress=self.progress)
            return found, found.rows_of(choice.modality)
        if choice.part not in self._open:
            self._open[choice.part] = embed_part(
                self.embedder, self.prepared, choice.part, progress=self.progress
            )
        found = self._open[choice.part]
        return found, found.rows_of(choice.modality)[choice.index]


def file_inputs(path: Path, classes: Sequence[str] = ()) -> Inputs:
    """Queries and gallery from a file of embeddings of any model. Errors: DataError, UsageError."""
    pair = read_user_embeddings(path)
    q, g = pair.query_labels >= 0, np.ones(len(pair.gallery_labels), bool)
    notes, wanted = (*filter(None, [pair.note]), *_unlabelled(path, pair)), list[int]()
    if classes:
        wanted = [
            _in_file(path, n, pair.classes) for text in classes for n in split_names(text, pair.classes)
        ]
        q, g = np.isin(pair.query_labels, wanted), np.isin(pair.gallery_labels, wanted)
        notes += (f"only {counted(len(set(wanted)), 'class')}",)
        if not q.any() or not g.any():
            raise DataError(f"{path}: no queries or no photos of these classes")
    about = Provenance(
        "file",
        "queries and gallery of a file",
        embeddings=str(path),
        subset=bool(classes),
        chosen=tuple(dict.fromkeys(pair.classes[i] for i in wanted)),
    )
    query = Side(pair.query[q], pair.query_labels[q], _some(pair.query_sources, q))
    gallery = Side(pair.gallery[g], pair.gallery_labels[g], _some(pair.gallery_sources, g))
    return Inputs(query, gallery, pair.classes, about, notes)


def _unlabelled(path: Path, pair: Pair) -> tuple[str, ...]:
    """What to say of images without a label. DataError when no query has one."""
    queries, photos = int((pair.query_labels < 0).sum()), int((pair.gallery_labels < 0).sum())
    if queries == len(pair.query_labels):
        raise DataError(
            f"{path}: no query has a label; an evaluation needs the classes of queries and photos"
        )
    left_out = (f"{counted(queries, 'query')} without a label (-1): not counted",) if queries else ()
    beside = f"{counted(photos, 'photo')} without a label (-1): in the gallery, relevant to no query"
    odd = [name for name in pair.classes if name.casefold() in ("nan", "none", "null", "<na>", "n/a")]
    missing = f"{listed(odd)}: taken for a class; where that is a missing label, write -1 or an empty name"
    return (*left_out, *((beside,) if photos else ()), *((missing,) if odd else ()))


def _in_file(path: Path, name: str, known: Sequence[str]) -> int:
    found = find_class(name, known)
    if found is None:
        raise UsageError(f"--classes {name}: no such class in {path}{suggestion(name, known)}")
    return known.index(found)


def _some(names: tuple[str, ...], keep: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(n for n, k in zip(names, keep, strict=True) if k) if names else ()
