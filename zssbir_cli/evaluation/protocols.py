"""Who is a query and who is in the gallery: zero-shot, validation, and the four generalised protocols in use.

A protocol chooses images by part, modality and number; it never looks at embeddings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zssbir_cli.data.prepared import ImageRows
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality, Part

Stock = Mapping[tuple[Part, Modality], npt.NDArray[np.integer]]
"""Labels of every image that there is, by part and modality."""
SHARE = 0.2

PROTOCOLS: dict[str, str] = {
    "zs": "zero-shot: sketches of unseen classes against photos of unseen classes",
    "val": "validation: sketches of held-out seen classes against their photos",
    "gzs-sem-pcyc": "generalised (SEM-PCYC): seen sketches and photos are added, 20 % of the number of unseen ones each",
    "gzs-ocean": "generalised (OCEAN): whole seen classes are added, 20 % of the number of unseen classes",
    "gzs-dr-clip": "generalised (Dr. CLIP): whole seen classes are added, 20 % of the seen classes",
    "gzs-distractors": "generalised (distractors): unseen sketches only; all seen photos are added to the gallery",
    "gzs-distractors-equal": "generalised (distractors): as many seen photos are added as there are unseen ones",
}

DRAWN = frozenset(PROTOCOLS) - {"zs", "val", "gzs-distractors"}
"""Protocols that draw by a seed."""


@dataclass(frozen=True)
class Task:
    """Queries and gallery of an evaluation, as choices whose images follow each other in order."""

    name: str
    description: str
    queries: tuple[ImageRows, ...]
    gallery: tuple[ImageRows, ...]
    notes: tuple[str, ...] = ()


def check_protocol(name: str) -> None:
    """Raise UsageError for a name that is not in `PROTOCOLS`."""
    if name not in PROTOCOLS:
        raise UsageError(f"--split {name}: one of {', '.join(PROTOCOLS)}")


def build_task(name: str, stock: Stock, seed: int = 0) -> Task:
    """The task of a protocol over the images of a data set.

    Errors: UsageError for an unknown protocol; DataError when the set lacks what the protocol needs.
    """
    check_protocol(name)
    part = Part.VAL if name == "val" else Part.TEST
    queries, gallery = _all(stock, part, Modality.SKETCH), _all(stock, part, Modality.PHOTO)
    if not len(queries.index) or not len(gallery.index):
        what = "held-out seen classes" if part is Part.VAL else "unseen classes"
        raise DataError(
            f"--split {name}: the data set has {len(queries.index)} sketches and {len(gallery.index)} photos of {what}"
            f"; prepare it with {'--val-classes' if part is Part.VAL else '--unseen'}"
        )
    if name in ("zs", "val"):
        return Task(name, PROTOCOLS[name], (queries,), (gallery,))
    more_queries, more_gallery, notes = _seen(name, stock, queries, gallery, np.random.default_rng(seed))
    if not sum(len(c.index) for c in more_gallery):
        raise DataError(f"--split {name}: the data set holds no photos of seen classes")
    return Task(name, PROTOCOLS[name], (queries, *more_queries), (gallery, *more_gallery), notes)


def _all(stock: Stock, part: Part, modality: Modality) -> ImageRows:
    return ImageRows(part, modality, np.arange(len(stock.get((part, modality), ())), dtype=np.int64))


def _seen(
    name: str, stock: Stock, queries: ImageRows, gallery: ImageRows, rng: np.random.Generator
) -> tuple[list[ImageRows], list[ImageRows], tuple[str, ...]]:
    """Choices of seen sketches and photos that join, and what to know about them."""
    photos, trained_photos = _pool(stock, Modality.PHOTO)
    notes = ["the seen photos of the gallery were training images"] if trained_photos else []
    if name.startswith("gzs-distractors"):
        count = None if name == "gzs-distractors" else len(gallery.index)
        return [], [_sample(photos, count, rng)], tuple(notes)
    sketches, trained_sketches = _pool(stock, Modality.SKETCH)
    if trained_sketches:
        notes.append(
            "the seen queries were training images (the data set has no hold-out sketches): their scores are too high"
        )
    if name == "gzs-sem-pcyc":
        q, g = round(SHARE * len(queries.index)), round(SHARE * len(gallery.index))
        return [_sample(sketches, q, rng)], [_sample(photos, g, rng)], tuple(notes)
    seen = np.intersect1d(_labels(stock, sketches), _labels(stock, photos))
    unseen = np.unique(stock[gallery.part, gallery.modality])
    count = max(1, round(SHARE * (len(unseen) if name == "gzs-ocean" else len(seen))))
    classes = np.sort(rng.choice(seen, min(count, len(seen)), replace=False))
    notes.append(f"{len(classes)} of {len(seen)} seen classes are added")
    return [_of(stock, sketches, classes)], [_of(stock, photos, classes)], tuple(notes)


def _pool(stock: Stock, modality: Modality) -> tuple[ImageRows, bool]:
    """Seen images of a modality: the hold-out ones if there are any, else those of training (second value)."""
    held = _all(stock, Part.HOLDOUT, modality)
    return (held, False) if len(held.index) else (_all(stock, Part.TRAIN, modality), True)


def _labels(stock: Stock, choice: ImageRows) -> npt.NDArray[np.integer]:
    return np.asarray(stock[choice.part, choice.modality]) if len(choice.index) else np.empty(0, np.int64)


def _sample(pool: ImageRows, count: int | None, rng: np.random.Generator) -> ImageRows:
    if count is None or count >= len(pool.index):
        return pool
    return ImageRows(pool.part, pool.modality, np.sort(rng.choice(pool.index, count, replace=False)))


def _of(stock: Stock, pool: ImageRows, classes: npt.NDArray[np.integer]) -> ImageRows:
    index = np.flatnonzero(np.isin(_labels(stock, pool), classes)).astype(np.int64)
    return ImageRows(pool.part, pool.modality, index)


def restrict(
    task: Task, stock: Stock, classes: Sequence[int] | None, per_class: int | None, seed: int
) -> Task:
    """The same task for some classes and with at most `per_class` images of each class and modality."""
    if classes is None and per_class is None:
        return task
    rng = np.random.default_rng(seed)

    def cut(choice: ImageRows) -> ImageRows:
        labels = _labels(stock, choice)[choice.index]
        keep = np.isin(labels, classes) if classes is not None else np.ones(len(labels), bool)
        index = choice.index[keep]
        if per_class is not None:
            of_class = labels[keep]
            groups = [index[of_class == c] for c in np.unique(of_class)]
            chosen = [rng.choice(g, min(per_class, len(g)), replace=False) for g in groups]
            index = np.sort(np.concatenate(chosen)) if chosen else index
        return ImageRows(choice.part, choice.modality, index)

    notes = list(task.notes)
    if per_class is not None:
        notes.append(f"at most {per_class} sketches and photos per class")
    queries, gallery = (tuple(map(cut, side)) for side in (task.queries, task.gallery))
    return replace(task, queries=queries, gallery=gallery, notes=tuple(notes))
