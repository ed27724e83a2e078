"""Which images make up a batch: rows of image indices, a pure function of the seed and the epoch.

A per-class index is built once; drawing a row then costs no scan of the labels (the published sampler scans
all of them for every item).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Ints
from zssbir_cli.errors import DataError


class ClassIndex:
    """Images by class: `order[starts[c] : starts[c + 1]]` are the images of the c-th class present."""

    def __init__(self, labels: npt.NDArray[np.integer]) -> None:
        self.order = np.argsort(labels, kind="stable")
        self.classes, starts = np.unique(labels[self.order], return_index=True)
        self.starts = np.append(starts, len(labels))
        self.counts = np.diff(self.starts)

    def only(self, classes: Ints) -> "ClassIndex":
        """The index restricted to `classes`."""
        keep = np.isin(self.classes, classes)
        out = object.__new__(ClassIndex)
        parts = [self.order[a:b] for a, b in zip(self.starts[:-1][keep], self.starts[1:][keep], strict=True)]
        out.order = np.concatenate(parts) if parts else np.empty(0, np.int64)
        out.classes, out.counts = self.classes[keep], self.counts[keep]
        out.starts = np.append(0, np.cumsum(out.counts))
        return out

    def draw(self, slots: Ints, rng: np.random.Generator) -> Ints:
        """One random image of class number `slots[...]` each, with replacement between rows."""
        within = (rng.random(slots.shape) * self.counts[slots]).astype(np.int64)
        return self.order[self.starts[slots] + within]


@dataclass(frozen=True)
class RowPlan:
    """Rows (sketch, photo of its class, `negatives` photos of other classes).

    `classes_per_batch` = None draws each row's class at random; a number P fills the batch with P different
    classes, equally often. Only classes that have both sketches and photos are drawn.
    """

    sketches: ClassIndex
    photos: ClassIndex
    batch_size: int
    steps_per_epoch: int
    seed: int
    negatives: int = 0
    classes_per_batch: int | None = None

    @classmethod
    def build(
        cls,
        sketch_labels: npt.NDArray[np.integer],
        photo_labels: npt.NDArray[np.integer],
        *,
        batch_size: int,
        steps_per_epoch: int | None,
        seed: int,
        negatives: int = 0,
        classes_per_batch: int | None = None,
    ) -> "RowPlan":
        """Index the labels; by default an epoch draws as many rows as there are training photos.

        Raises DataError when fewer than two classes have both sketches and photos.
        """
        common = np.intersect1d(sketch_labels, photo_labels)
        if len(common) < 2:
            raise DataError(
                f"{len(common)} training classes have both sketches and photos; at least 2 are needed: check "
                "with `zssbir info`"
            )
        steps = steps_per_epoch or max(1, len(photo_labels) // batch_size)
        sketches, photos = (ClassIndex(labels).only(common) for labels in (sketch_labels, photo_labels))
        return cls(sketches, photos, batch_size, steps, seed, negatives, classes_per_batch)

    def batches(self, epoch: int) -> Ints:
        """Rows of epoch `epoch`: int64 [steps, batch, 2 + negatives]."""
        rng = np.random.default_rng([self.seed, epoch, 1])
        count = len(self.sketches.classes)
        shape = (self.steps_per_epoch, self.batch_size)
        slots = self._classes(rng, count, shape)
        columns = [self.sketches.draw(slots, rng), self.photos.draw(slots, rng)]
        for _ in range(self.negatives):
            other = (slots + rng.integers(1, count, shape)) % count
            columns.append(self.photos.draw(other, rng))
        return np.stack(columns, -1)

    def _classes(self, rng: np.random.Generator, count: int, shape: tuple[int, int]) -> Ints:
        wanted = self.classes_per_batch
        if wanted is None:
            return rng.integers(0, count, shape)
        wanted = min(wanted, count, shape[1])
        chosen = rng.random((shape[0], count)).argsort(1)[:, :wanted]
        return chosen[:, np.arange(shape[1]) % wanted]
