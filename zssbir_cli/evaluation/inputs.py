"""What is evaluated: queries and gallery of a protocol with a run's weights, or of a file of embeddings."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Embeddings, Rows, read_embeddings
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.data.prepared import Choice, PreparedSet
from zssbir_cli.embedding.parts import Embedder, embed_choice, embed_part, embeddings_path, is_fresh
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.protocols import Task, build_task, restrict
from zssbir_cli.progress import Progress, silent
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.types import Modality, Part, Role

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Side:
    """Queries or gallery: rows [N, D], labels int64 [N], names of the images, and where pictures of them are."""

    rows: Rows
    labels: Ints
    sources: tuple[str, ...] = ()
    pictures: tuple[tuple[Part, Modality, int], ...] = ()
    """Place of each image in `Inputs.prepared` (empty when there are no pictures)."""


@dataclass(frozen=True)
class Inputs:
    """All that an evaluation needs, and what it must say."""

    query: Side
    gallery: Side
    classes: tuple[str, ...]
    facts: Mapping[str, str]
    """Where the numbers come from: run, recipe, checkpoint, data set, split, protocol, ..."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seen: frozenset[int] = frozenset()
    """Labels of seen classes that take part (generalised protocols)."""
    prepared: PreparedSet | None = None


@dataclass(frozen=True)
class Options:
    """What to evaluate besides the split."""

    which: str = "best"
    data: Path | None = None
    classes: tuple[str, ...] = ()
    per_class: int | None = None
    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None


def latest_run(runs: Path) -> Path:
    """The newest run below `runs`. Errors: UsageError when there is none."""
    return RunDir.latest(runs)


def run_inputs(run: Path, split: str, options: Options, progress: Progress = silent) -> Inputs:
    """Queries and gallery of a protocol with a run's weights; embeds what is missing or stale.

    Errors: UsageError, DataError, CheckpointError.
    """
    if not (run / "recipe.yaml").is_file():
        raise UsageError(f"--run {run}: not a run's folder (no recipe.yaml); see `zssbir runs`")
    recipe = load_recipe(run / "recipe.yaml")
    own_root = Path(recipe.data.root).expanduser()
    prepared = PreparedSet.open(options.data or own_root)
    stock = {
        (part, modality): prepared.images(part, modality).labels
        for part, modality in prepared.manifest.counts
    }
    task = build_task(split, stock, options.seed)
    excluded, warnings = _trained_classes(prepared, own_root, options)
    wanted = _class_ids(prepared, options.classes)
    if excluded:
        pool = wanted if wanted is not None else range(len(prepared.classes))
        wanted = [c for c in pool if c not in excluded]
    task = restrict(task, stock, wanted, options.per_class, options.seed)
    if excluded:
        task = replace(task, notes=tuple(n for n in task.notes if not n.startswith("only ")))
    if not all(sum(len(c.index) for c in side) for side in (task.queries, task.gallery)):
        raise DataError(f"--split {split}: no sketches or no photos are left for these classes")
    folder = _checkpoint_folder(run, options.which)
    info = checkpoint.inspect(folder, verify=False)
    source = _Source(run, prepared, info.sha256, options, progress)
    query, gallery = source.side(task.queries, task), source.side(task.gallery, task)
    warnings += [f"prepare warned: {w}" for w in prepared.manifest.warnings]
    if leaks := prepared.manifest.leaks:
        warnings.append(f"{len(leaks)} leaks between training and test are on record, first: {leaks[0].what}")
    facts = {
        "run": str(run), "recipe": recipe.name, "method": recipe.method.name, "checkpoint": info.sha256,
        "epoch": str(info.epoch), "step": str(info.step), "data": prepared.manifest.name,
        "identity": prepared.identity, "split": prepared.manifest.split, "protocol": task.name,
        "protocol_description": task.description, "precision": source.precision, "seed": str(options.seed),
        "subset": "yes" if options.classes or options.per_class or excluded else "no",
        "cross": "no" if options.data is None or options.data.resolve() == own_root.resolve() else "yes",
    }  # fmt: skip
    seen = frozenset(c.id for c in prepared.manifest.classes if c.role is Role.SEEN)
    mixed = split.startswith("gzs")
    notes = list(task.notes)
    if excluded:
        names = ", ".join(sorted(prepared.classes[c] for c in excluded))
        notes.append(f"{len(excluded)} classes that the run was trained or selected on are excluded: {names}")
    return Inputs(
        query, gallery, tuple(prepared.classes), facts, tuple(notes), tuple(warnings),
        seen if mixed else frozenset(), prepared,
    )  # fmt: skip


def _checkpoint_folder(run: Path, which: str) -> Path:
    folder = run / "checkpoints" / which
    return run / "checkpoints" / "last" if which == "best" and not folder.exists() else folder


def _class_ids(prepared: PreparedSet, names: Sequence[str]) -> list[int] | None:
    if not names:
        return None
    known = {_plain(name): i for i, name in enumerate(prepared.classes)}
    unknown = [name for name in names if _plain(name) not in known]
    if unknown:
        raise UsageError(f"--classes {unknown[0]}: no such class in {prepared.root}")
    return [known[_plain(name)] for name in names]


def _plain(name: str) -> str:
    """A class name without case, spaces and punctuation: `hot-air_balloon` = `Hot air balloon`."""
    return "".join(c for c in name.casefold() if c.isalnum())


def _trained_classes(prepared: PreparedSet, own_root: Path, options: Options) -> tuple[set[int], list[str]]:
    """On another data set than the run's own: labels of classes that the run was trained or selected on."""
    if options.data is None or options.data.resolve() == own_root.resolve():
        return set(), []
    try:
        own = PreparedSet.open(own_root).manifest
    except DataError as error:
        raise DataError(
            f"{own_root}: the run's own data set is needed to exclude the classes it was trained on ({error})"
        ) from None
    known = {_plain(c.name) for c in own.classes if c.role is not Role.UNSEEN}
    return {i for i, name in enumerate(prepared.classes) if _plain(name) in known}, []


class _Source:
    """Embeddings of choices, from files that are fresh, else from the run's weights (loaded once)."""

    def __init__(
        self, run: Path, prepared: PreparedSet, sha256: str, options: Options, progress: Progress
    ) -> None:
        self.run, self.prepared, self.sha256, self.options = run, prepared, sha256, options
        self.progress, self.precision = progress, ""
        self._embedder: Embedder | None = None
        self._open: dict[Path, Embeddings] = {}

    def side(self, choices: Sequence[Choice], task: Task) -> Side:
        """The images of several choices, one after the other."""
        rows, labels, sources, places = [], [], [], []
        for choice in choices:
            if not len(choice.index):
                continue
            stored, index = self._rows(choice, task)
            rows.append(stored.embedding[index])
            labels.append(stored.label[index].astype(np.int64))
            sources += [stored.sources[i] for i in index]
            places += [(choice.part, choice.modality, int(i)) for i in choice.index]
            self.precision = stored.info.precision
        return Side(np.concatenate(rows), np.concatenate(labels), tuple(sources), tuple(places))

    def _rows(self, choice: Choice, task: Task) -> tuple[Embeddings, Ints]:
        """Embeddings that hold a choice, and its rows in them. Parts of the test protocols are kept whole."""
        whole = choice.part in (Part.TEST, Part.VAL)
        drawn = hashlib.sha256(choice.index.tobytes()).hexdigest()[:8]
        name = "" if whole else f"{task.name}-{choice.modality.name.lower()}-{drawn}"
        path = embeddings_path(self.run, self.options.which, self.prepared, choice.part, name)
        found = self._open.get(path)
        if found is None and path.exists():
            found = _readable(path)
            stale = found is None or not is_fresh(found, self.sha256, self.prepared, self.options.precision)
            found = (
                None
                if stale or (not whole and found is not None and len(found) != len(choice.index))
                else found
            )
        if found is None:
            if whole:
                found = embed_part(self.embedder, self.prepared, choice.part, path, self.progress)
            else:
                found = embed_choice(self.embedder, self.prepared, choice, path, self.progress)
        self._open[path] = found
        rows = found.rows_of(choice.modality)
        return found, rows[choice.index] if whole else rows

    @property
    def embedder(self) -> Embedder:
        """The run's weights, loaded on first use."""
        if self._embedder is None:
            o = self.options
            device = choose_device(o.device)
            self._embedder = Embedder.open(
                self.run, device, which=o.which, precision=o.precision, workers=o.workers
            )
        return self._embedder


def _readable(path: Path) -> Embeddings | None:
    try:
        return read_embeddings(path)
    except DataError:
        return None


def file_inputs(path: Path, classes: Sequence[str] = ()) -> Inputs:
    """Queries and gallery from a file of embeddings of any model. Errors: DataError, UsageError."""
    pair = read_user_embeddings(path)
    q, g = np.ones(len(pair.query_labels), bool), np.ones(len(pair.gallery_labels), bool)
    notes: tuple[str, ...] = ()
    if classes:
        wanted = [i for i, name in enumerate(pair.classes) if _plain(name) in {_plain(c) for c in classes}]
        if len(wanted) < len(classes):
            raise UsageError(f"--classes: {path} has only {len(wanted)} of these {len(classes)} classes")
        q, g = np.isin(pair.query_labels, wanted), np.isin(pair.gallery_labels, wanted)
        notes = (f"only {len(wanted)} classes",)
    facts = {
        "embeddings": str(path),
        "protocol": "file",
        "protocol_description": "queries and gallery of a file",
    }
    query = Side(pair.query[q], pair.query_labels[q], _some(pair.query_sources, q))
    gallery = Side(pair.gallery[g], pair.gallery_labels[g], _some(pair.gallery_sources, g))
    return Inputs(query, gallery, pair.classes, facts, notes)


def _some(names: tuple[str, ...], keep: npt.NDArray[np.bool_]) -> tuple[str, ...]:
    return tuple(n for n, k in zip(names, keep, strict=True) if k) if names else ()
