"""A prepared benchmark against the published table: per part, and class by class where it is known."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from zssbir_cli.benchmarks.splits import SPLITS, Split
from zssbir_cli.data.manifest import Manifest
from zssbir_cli.data.summary import ClassCounts
from zssbir_cli.types import Modality, Part, Role

ORIGINALS_PER_CLASS = 100  # of Sketchy's photos, all of which EXTEND repeats
Figures = dict[str, dict[str, int]]


@cache
def published_counts(dataset: str) -> Figures:
    """Images of a class in the lists that were published with ZSE-SBIR: `sketches`, `photos` and, for the classes
    of sketchy-ambiguity, `ambiguity_photos`.

    Sketchy: the sketches of the lists with the 50 per class that they hold out, and originals with EXTEND photos.
    TU-Berlin: the 30 test classes. The sums are those of the published table.
    """
    with Path(__file__).with_name("counts.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("dataset") == dataset]
    return {row.pop("class"): {what: int(n) for what, n in row.items() if n} for row in rows}


@dataclass(frozen=True)
class CountRow:
    """One line of the comparison; `published` None = no published figure."""

    what: str
    ours: int
    published: int | None
    exact: bool


def compare_counts(manifest: Manifest) -> list[CountRow]:
    """Counts beside the published ones; empty when the split is not a published one, or only a part of it."""
    split = SPLITS.get(manifest.split)
    if split is None or manifest.options.get("subset"):
        return []
    counts, p = manifest.counts, split.published
    val = len(manifest.classes_of(Role.VAL))

    def count(*parts: Part, modality: Modality) -> int:
        return sum(counts.get((part, modality), 0) for part in parts)

    trained, train = (Part.TRAIN, Part.VAL), "train + val" if val else "train"
    sketches = p.train_sketches + val * split.holdout if p.train_sketches is not None else None
    rows = [
        CountRow(f"{train} sketches", count(*trained, modality=Modality.SKETCH), sketches, split.exact_train),
        CountRow(
            f"{train} photos", count(*trained, modality=Modality.PHOTO), p.train_photos, split.exact_train
        ),
        CountRow("test sketches", count(Part.TEST, modality=Modality.SKETCH), p.test_sketches, True),
        CountRow("test photos", count(Part.TEST, modality=Modality.PHOTO), p.test_photos, True),
    ]
    if split.holdout:
        held = len(manifest.classes_of(Role.SEEN)) * split.holdout
        rows.insert(
            1, CountRow("hold-out sketches", count(Part.HOLDOUT, modality=Modality.SKETCH), held, True)
        )
    return rows


def differing_classes(manifest: Manifest, classes: list[ClassCounts]) -> list[str]:
    """One line per class whose number of images is not the published one (where that is known)."""
    split = SPLITS.get(manifest.split)
    if split is None or manifest.options.get("subset"):
        return []
    lines = []
    for c in classes:
        expected = _expected(split, c, dedup=bool(manifest.options.get("dedup")))
        if expected is None:
            continue
        sketches, photos = expected
        parts = [
            f"{ours:,} {kind} instead of {theirs:,}"
            for kind, ours, theirs in (("sketches", c.sketches, sketches), ("photos", c.photos, photos))
            if theirs is not None and ours != theirs
        ]
        if parts:
            lines.append(f"{c.name}: {', '.join(parts)}")
    return lines


def _expected(split: Split, c: ClassCounts, *, dedup: bool) -> tuple[int | None, int | None] | None:
    """Published sketches and photos of a class; None for what is not known."""
    known = published_counts(split.dataset).get(c.name)
    if known is None:
        return (80, None) if split.dataset == "tuberlin" else None
    sketches, photos = known["sketches"], known["photos"]
    if split.name == "sketchy-ambiguity" and c.role != Role.UNSEEN:
        return sketches, known["ambiguity_photos"]
    return sketches, photos - ORIGINALS_PER_CLASS if dedup and split.dataset == "sketchy" else photos
