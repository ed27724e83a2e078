"""What is evaluated: the queries and the gallery of a protocol, embedded with the weights of a run or of a frozen tower."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Embeddings, Rows
from zssbir_cli.data.prepared import ImageRows, PreparedSet
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.embedding.own import KnownData, data_of, leak_lines
from zssbir_cli.embedding.parts import embed_choice, embed_part
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights
from zssbir_cli.engine.provenance import Provenance
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.measure import Distractors, Inputs, Side, copied_rows
from zssbir_cli.evaluation.protocols import Stock, Task, build_task, restrict
from zssbir_cli.names import class_key, counted, listed, named_classes, table_address
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import ROLE_OF_PART, Part, Role


@dataclass(frozen=True)
class Options:
    """What to evaluate besides the weights and the split."""

    data: Path | None = None
    extra: Path | None = None
    """More photos for the gallery (`find_distractors`)."""
    classes: tuple[str, ...] = ()
    """Names of classes, or texts that separate them by commas."""
    per_class: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None


def inputs_of(weights: Weights, split: str, options: Options, progress: Progress = silent) -> Inputs:
    """Queries and gallery of a protocol with the weights of a run or of a frozen tower; embeds what is missing or stale.

    On another data set than the one a run was trained on (whatever its path), classes that it was
    trained on or selected by are left out and named. Errors: UsageError, DataError, CheckpointError.
    """
    data = data_of(weights, options.data)
    prepared, manifest = data.prepared, data.prepared.manifest
    stock = {(part, modality): prepared.images(part, modality).labels for part, modality in manifest.counts}
    wanted = named_classes(options.classes, prepared.classes, str(prepared.root)) if options.classes else None
    task = build_task(split, stock, options.seed)
    inside, outside = _taking_part(prepared, task, wanted or ())
    task = _restricted(task, stock, wanted, data, weights, options, outside)
    query, gallery, extra, precision = _embedded(weights, prepared, task, options, progress)
    excluded = tuple(sorted(prepared.classes[c] for c in data.used))
    about = Provenance(
        protocol=task.name, protocol_description=task.description, **_about(weights),
        precision=precision, data=manifest.name, split=manifest.split,
        identity=prepared.identity, seed=options.seed, cross=not data.own, excluded=excluded,
        subset=bool(options.classes or options.per_class or excluded),
        leaks=tuple(dict.fromkeys((*data.learnt.leaks, *leak_lines(manifest)))),
        chosen=tuple(prepared.classes[c] for c in wanted or ()), most_per_class=options.per_class or 0,
        extra=str(options.extra or ""), extra_photos=len(extra.index) if extra else 0,
    )  # fmt: skip
    notes = _notes(weights, data, task, excluded)
    if wanted is not None:
        notes.append(f"only {counted(len(inside), 'class')}")
    if outside:
        notes.append(f"asked for, but not part of --split {task.name}: {', '.join(outside)}")
    seen = {c.id for c in manifest.classes if c.role is Role.SEEN and split.startswith("gzs")}
    return Inputs(
        query, gallery, tuple(prepared.classes), about, (*notes, *(extra.notes if extra else ())),
        _warnings(data), frozenset(seen), prepared, task, extra,
    )  # fmt: skip


def same_images(inputs: Inputs, weights: Weights, options: Options, progress: Progress = silent) -> Inputs:
    """The same queries and gallery with other weights. Errors: DataError, CheckpointError."""
    assert inputs.prepared is not None
    assert inputs.task is not None
    query, gallery, extra, _ = _embedded(weights, inputs.prepared, inputs.task, options, progress)
    return replace(inputs, query=query, gallery=gallery, extra=extra, notes=(), warnings=())


def _embedded(
    weights: Weights, prepared: PreparedSet, task: Task, options: Options, progress: Progress
) -> tuple[Side, Side, Distractors | None, str]:
    """Queries, gallery with its extra photos, these photos, and the precision in which all were embedded."""
    device = choose_device(options.device)
    embedder = Embedder(weights, device, precision=options.precision, workers=options.workers)
    whole: dict[Part, Embeddings] = {}
    precisions = set[str]()

    def side(choices: Sequence[ImageRows]) -> Side:
        """The images of several choices, one after the other. Parts of the test protocols are kept whole."""
        rows, labels, sources, places = [], [], [], []
        for choice in (c for c in choices if len(c.index)):
            if choice.part in (Part.TEST, Part.VAL):
                if choice.part not in whole:
                    whole[choice.part] = embed_part(embedder, prepared, choice.part, progress=progress)
                stored = whole[choice.part]
                index = stored.rows_of(choice.modality)[choice.index]
            else:
                stored = embed_choice(embedder, prepared, choice, progress=progress)
                index = stored.rows_of(choice.modality)
            rows.append(stored.embedding[index])
            labels.append(stored.label[index].astype(np.int64))
            sources += [stored.sources[i] for i in index]
            places += [(choice.part, choice.modality, int(i)) for i in choice.index]
            precisions.add(stored.info.precision)
        return Side(np.concatenate(rows), np.concatenate(labels), tuple(sources), tuple(places))

    query, gallery, extra = side(task.queries), side(task.gallery), None
    if options.extra is not None:
        searched = [prepared.classes[c] for c in np.unique(query.labels)]
        extra = find_distractors(options.extra, embedder, searched, gallery.rows, progress)
        labels = np.concatenate([gallery.labels, np.full(len(extra.index), -1, np.int64)])
        rows = np.concatenate([gallery.rows, extra.stored.embedding[extra.index]])
        sources = (extra.stored.sources[row] for row in extra.index.tolist())
        gallery = Side(rows, labels, (*gallery.sources, *sources), gallery.pictures)
    return query, gallery, extra, " and ".join(sorted(precisions))


def _about(weights: Weights) -> dict[str, Any]:
    """What a result says of the weights."""
    facts = {"method": weights.method["name"], "which": weights.which, "checkpoint": weights.sha256}
    if isinstance(weights, RunWeights):
        run, info = str(weights.home), weights.checkpoint
        return {**facts, "run": run, "recipe": weights.recipe.name, "epoch": info.epoch, "step": info.step}
    assert isinstance(weights, TowerWeights)
    return {**facts, "model": weights.spec.label, "preprocessing": weights.spec.preprocessing}


def _taking_part(prepared: PreparedSet, task: Task, labels: Sequence[int]) -> tuple[set[str], list[str]]:
    """Names of the classes that the protocol evaluates, and those of another role, with that role."""
    roles = {ROLE_OF_PART[choice.part] for choice in (*task.queries, *task.gallery)}
    classes = [prepared.manifest.classes[label] for label in labels]
    inside = {c.name for c in classes if c.role in roles}
    return inside, [f"{c.name} ({c.role})" for c in classes if c.name not in inside]


def _restricted(
    task: Task, stock: Stock, wanted: list[int] | None, data: KnownData, weights: Weights, options: Options,
    outside: Sequence[str],
) -> Task:  # fmt: skip
    """The task without the classes that the run was trained on, and for the classes that were asked for.

    Errors: DataError that says why nothing remains.
    """
    prepared, used = data.prepared, data.used
    if wanted is not None and len(outside) == len(wanted):
        raise DataError(f"--classes: {', '.join(outside)}: none of these takes part in --split {task.name}")
    pool = list(range(len(prepared.classes))) if wanted is None else wanted
    kept = [c for c in pool if c not in used] if used or wanted is not None else None
    found = restrict(task, stock, kept, options.per_class, options.seed)
    if all(sum(len(c.index) for c in side) for side in (found.queries, found.gallery)):
        return found
    if used:
        names, _ = _taking_part(prepared, task, [c for c in pool if c in used])
        where = f"evaluate on the set it was trained on ({data.learnt.name}, identity {data.learnt.identity})"
        what, instead = weights.label, where
        if data.own or data.weights is None:
            what, instead = f"the start of {what}", "train from other weights, or evaluate on other classes"
        raise DataError(
            f"--split {task.name}: no class of {prepared.root} remains: {what} was trained on or selected by "
            f"{', '.join(sorted(names))}; {instead}"
        )
    raise DataError(f"--split {task.name}: no sketches or no photos of these classes")


def _notes(weights: Weights, data: KnownData, task: Task, excluded: Sequence[str]) -> list[str]:
    notes = [weights.note, data.note, *task.notes]
    if excluded:
        names = ", ".join(excluded)
        whose = "the run" if data.weights and not data.own else "the start of these weights"
        notes.append(f"{len(excluded)} classes that {whose} was trained or selected on are excluded: {names}")
    if task.name.startswith("gzs") and not data.own:
        notes.append("the seen classes are those of this data set; these weights were not trained on them")
    if task.name.startswith("gzs") and (val := data.prepared.manifest.classes_of(Role.VAL)):
        notes.append(
            f"the {len(val)} validation classes of the data set are neither queries nor in the gallery"
        )
    return [note for note in notes if note]


def _warnings(data: KnownData) -> tuple[str, ...]:
    own, here = data.learnt.leaks, leak_lines(data.prepared.manifest)
    warnings = [f"prepare warned: {w}" for w in data.prepared.manifest.warnings]
    if own and own != here:
        warnings.append(
            f"the run was trained on a set with {len(own)} leaks between training and test, first: {own[0]}"
        )
    if here:
        warnings.append(f"{len(here)} leaks between training and test are on record, first: {here[0]}")
    return tuple(warnings)


def find_distractors(
    place: Path, embedder: Embedder, classes: Iterable[str], gallery: Rows, progress: Progress = silent
) -> Distractors:
    """Photos of a folder, of an embeddings file of the same weights, or of a prepared set's unseen classes.

    Photos that are known to show one of the `classes` that are searched for are left out and counted: they would be
    relevant. So are copies of what the `gallery` holds [G, D]. Errors: DataError (none left, other weights), UsageError (no
    such place).
    """
    if not place.exists():
        raise UsageError(f"--gallery-extra {place}: no such file or folder")
    if table_address(place):
        raise UsageError(
            f"--gallery-extra {place}: a table is for `zssbir search`; give an embeddings file or a folder"
        )
    opened = open_gallery(place, embedder.device, embedder=embedder, progress=progress)
    stored = opened.stored
    if stored.info.checkpoint != embedder.weights.sha256:
        raise DataError(f"--gallery-extra {place}: made with other weights than {embedder.weights.label}")
    index = np.array(opened.rows)
    if stored.embedding.shape[1] != gallery.shape[1]:
        raise DataError(
            f"--gallery-extra {place}: {stored.embedding.shape[1]} dimensions, not the {gallery.shape[1]} of these weights"
        )
    wanted = {class_key(name): name for name in classes}
    shown = [{wanted[key] for key in _class_keys(stored, i) if key in wanted} for i in index.tolist()]
    relevant = np.array(list(map(bool, shown)))
    there = copied_rows(stored.embedding[index], gallery) & ~relevant
    added = ~(relevant | there)
    notes = [f"{counted(int(added.sum()), 'photo')} of {place} added to the gallery, relevant to no query"]
    if there.any():
        notes.append(
            f"{counted(int(there.sum()), 'photo')} of {place} left out: copies of photos that the gallery holds already"
        )
    if relevant.any():
        names = listed(sorted(set.union(*shown)))
        notes.append(
            f"{counted(int(relevant.sum()), 'photo')} of {place} left out: of classes that are queried ({names})"
        )
    if opened.folder and opened.folder.skipped:
        notes.append(f"{counted(len(opened.folder.skipped), 'file')} of {place} cannot be read")
    if relevant.all():
        raise DataError(f"--gallery-extra {place}: every photo is of a queried class")
    if not added.any():
        raise DataError(f"--gallery-extra {place}: the gallery holds every photo already")
    return Distractors(stored, index[added], tuple(notes))


def _class_keys(stored: Embeddings, row: int) -> set[str]:
    """Keys of the classes that a photo may show: by its label, else by the names of the folders that it lies in."""
    label = int(stored.label[row])
    if 0 <= label < len(stored.info.classes):
        return {class_key(stored.info.classes[label])}
    folders = PurePosixPath(stored.sources[row]).parent.parts
    return {class_key(name) for name in (*folders, PurePath(stored.info.data_root).name) if name}
