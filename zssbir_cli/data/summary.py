"""A prepared set in figures: rows for the summary table of `prepare` and for `info`."""

from dataclasses import dataclass

import numpy as np

from zssbir_cli.data.manifest import Manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.types import ROLE_OF_PART, Modality, Part


@dataclass(frozen=True)
class PartSummary:
    """Counts of one part."""

    part: Part
    classes: int
    sketches: int
    photos: int
    megabytes: float


@dataclass(frozen=True)
class ClassCounts:
    """Images of one class."""

    name: str
    role: str
    sketches: int
    photos: int


def summarise(manifest: Manifest) -> list[PartSummary]:
    """One row per part that holds images, in the order of `Part`."""
    rows = []
    for part in Part:
        shards = [s for s in manifest.shards if s.part is part]
        if shards:
            count = {m: sum(s.count for s in shards if s.modality is m) for m in Modality}
            classes = len(manifest.classes_of(ROLE_OF_PART[part]))
            size = sum(s.bytes for s in shards) / 1e6
            rows.append(PartSummary(part, classes, count[Modality.SKETCH], count[Modality.PHOTO], size))
    return rows


def count_classes(prepared: PreparedSet) -> list[ClassCounts]:
    """Images per class over all parts, by class id."""
    n = len(prepared.manifest.classes)
    counts = {m: np.zeros(n, np.int64) for m in Modality}
    for part in Part:
        for modality in Modality:
            counts[modality] += np.bincount(prepared.images(part, modality).labels, minlength=n)
    return [
        ClassCounts(c.name, str(c.role), *(int(counts[m][c.id]) for m in Modality))
        for c in prepared.manifest.classes
    ]
