"""What the drawing page shows at a time: a gallery, its masks, and numbers of its photos that outlast a renewal."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.embeddings import Embeddings
from zssbir_cli.embedding.gallery import Gallery
from zssbir_cli.evaluation.masks import GalleryMasks, masks_of_gallery


@dataclass(frozen=True)
class Opened:
    """A gallery as it is now. `masks`: what stored masks keep of its photos; None where there are none.

    `ids`: int64 [N], of each photo in the file's order. A page that shows an earlier answer asks for its photos by their
    ids, so a name keeps its id, and the id of a photo that is gone is not given again; `free` is the next one.
    """

    gallery: Gallery
    masks: GalleryMasks | None
    ids: Ints
    free: int

    @classmethod
    def first(cls, gallery: Gallery) -> "Opened":
        """A gallery that is opened: its photos are counted through."""
        count = len(gallery.rows)
        return cls(gallery, masks_of_gallery(gallery), np.arange(count), count)

    def renewed(self, stored: Embeddings) -> "Opened":
        """The same with another file. Errors: those of `Gallery.rows`."""
        before, info = self.gallery.stored.info, stored.info
        if info.part and info.data_identity == before.data_identity:  # a set lies where it was opened
            stored = replace(stored, info=replace(info, data_root=before.data_root))
        gallery = replace(self.gallery, stored=stored)
        known = dict(zip(self._names, self.ids.tolist(), strict=True))
        opened = Opened(gallery, masks_of_gallery(gallery, self.masks), np.empty(0, np.int64), self.free)
        ids = np.array([known.pop(name, -1) for name in opened._names], np.int64)
        new = np.flatnonzero(ids < 0)
        ids[new] = self.free + np.arange(len(new))
        return replace(opened, ids=ids, free=self.free + len(new))

    def number(self, id_: int) -> int | None:
        """Which photo of the gallery, from 0, has an id; None when there is none, or none any more."""
        number = int(self._numbers[id_]) if 0 <= id_ < self.free else -1
        return None if number < 0 else number

    @property
    def _names(self) -> tuple[str, ...]:
        rows = self.gallery.rows
        return self.gallery.stored.sources[rows.start : rows.stop]

    @cached_property
    def _numbers(self) -> Ints:
        numbers = np.full(self.free, -1)
        numbers[self.ids] = np.arange(len(self.ids))
        return numbers
