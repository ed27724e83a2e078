"""A gallery that stays open: queries are embedded and searched in batches by one thread of its own."""

import asyncio
import hashlib
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zssbir_cli.data.embeddings import Embeddings, read_embeddings
from zssbir_cli.embedding.gallery import Gallery, Hit
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.types import Modality
from zssbir_cli.web.opened import Opened

LARGEST_BATCH = 32
LONGEST_QUEUE = 2000
CHECK_SECONDS = 1.0
"""How often, at most, the gallery's file is looked at for a newer one."""


class Busy(Exception):
    """More queries are waiting than are worth waiting for."""


@dataclass(frozen=True)
class Query:
    """What to look for: a network input uint8 [C, S, S] of a modality, or a photo of the gallery by its `like`; `text`:
    words, alone or added to either."""

    image: Tensor | None = None
    modality: Modality = Modality.SKETCH
    like: int | None = None
    text: str = ""
    k: int = 24


@dataclass
class _Waiting:
    query: Query
    answer: "asyncio.Future[list[Hit]]"
    loop: asyncio.AbstractEventLoop


class LiveGallery:
    """An open gallery and the thread that answers. Close it with `close`.

    The file is opened again when it has been renewed by the same weights; searches under way finish on the old one.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.opened = Opened.first(gallery)
        """What is searched now; take it once where several of its parts have to fit together."""
        self.size, self.sketch_crop = gallery.embedder.size, gallery.embedder.sketch_crop
        """Side of the network input, pixels; whether drawings are cropped to their ink."""
        self.of_files = gallery.of_files
        """See `Gallery`."""
        self.reads_text = gallery.embedder.weights.text_is_here
        """Whether words can be searched for: the weights have a text side, and it is on this machine."""
        self._stamp, self._checked = _stamp(gallery.stored.path), time.monotonic()
        self.version = _version(self._stamp)
        """Of the file that is searched: another one whenever a renewed file is opened, in this process or a later one."""
        self.problem = ""
        """Why a renewed file is not used ("" when all is well)."""
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(LONGEST_QUEUE)
        self._thread = threading.Thread(target=self._work, name="zssbir-search", daemon=True)
        self._thread.start()

    @property
    def stored(self) -> Embeddings:
        """The embeddings being searched."""
        return self.opened.gallery.stored

    @property
    def photos(self) -> int:
        """Number of photos."""
        return len(self.opened.ids)

    async def find(self, query: Query) -> list[Hit]:
        """The photos nearest to a query, best first. Errors: Busy, DataError."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(query, loop.create_future(), loop)
        try:
            self._waiting.put_nowait(waiting)
        except queue.Full:
            raise Busy from None
        return await waiting.answer

    def close(self) -> None:
        """Stop the thread once it has answered what it has begun."""
        self._waiting.put(None)
        self._thread.join(10)

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while len(batch) < LARGEST_BATCH:
                try:
                    more = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            batch = [w for w in batch if not w.answer.cancelled()]
            self._renew()
            for waiting, answer in zip(batch, self._answers([w.query for w in batch]), strict=True):
                _tell(waiting, answer)

    def _answers(self, queries: Sequence[Query]) -> "list[list[Hit] | Exception]":
        """Hits, or why there are none; what is wrong with one query is no fault of those beside it."""
        try:
            return [*self.answer(queries)]
        except Exception as error:  # whatever it is, everybody who waits is told, and the thread lives on
            if len(queries) == 1:
                return [error]
            return [found for query in queries for found in self._answers([query])]

    def answer(self, queries: Sequence[Query]) -> list[list[Hit]]:
        """Answer several queries in one pass over the gallery."""
        if not queries:
            return []
        opened = self.opened
        vectors = self._vectors(queries, opened)
        most = max(q.k + (q.like is not None) for q in queries)
        found = opened.gallery.nearest(vectors, min(most, len(opened.ids)))
        return [_without(hits, query, opened) for query, hits in zip(queries, found, strict=True)]

    def _vectors(self, queries: Sequence[Query], opened: Opened) -> Tensor:
        embedder, rows = opened.gallery.embedder, opened.gallery.photos
        vectors = torch.empty(len(queries), rows.shape[1])
        for modality in Modality:
            which = [i for i, q in enumerate(queries) if q.image is not None and q.modality is modality]
            if which:
                images = torch.stack([queries[i].image for i in which])  # type: ignore[misc]
                vectors[which] = embedder.embed_batch(images, modality)
        for i, query in enumerate(queries):
            if query.like is not None:
                number = opened.number(query.like)
                if number is None:
                    raise DataError(f"there is no photo {query.like} in the gallery")
                vectors[i] = torch.from_numpy(np.asarray(rows[number], np.float32))
            if query.text:
                words = embedder.embed_text(query.text)[0]
                alone = query.image is None and query.like is None
                vectors[i] = words if alone else functional.normalize(vectors[i], dim=0) + words
        return vectors

    def _renew(self) -> None:
        if time.monotonic() - self._checked < CHECK_SECONDS:
            return
        self._checked, stamp = time.monotonic(), _stamp(self.stored.path)
        if stamp is None or stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            assert self.stored.path is not None
            found = read_embeddings(self.stored.path)
            if not self.opened.gallery.embedder.accepts(found.info):
                raise DataError("made with other weights or another preprocessing; restart to use it")
            # takes time: the old gallery and its masks serve meanwhile
            self.opened, self.problem = self.opened.renewed(found), ""
            self.version = _version(stamp)
        except Exception as error:  # the old one serves on
            self.problem = reason(error)
            print(f"{self.problem}; the gallery serves on as it was", file=sys.stderr, flush=True)


def _without(hits: Sequence[Hit], query: Query, opened: Opened) -> list[Hit]:
    """The first `query.k` hits, without the photo that the query is like; `row` is the photo's id."""
    named = [replace(hit, row=int(opened.ids[hit.row - opened.gallery.rows.start])) for hit in hits]
    kept = [hit for hit in named if hit.row != query.like][: query.k]
    return [replace(hit, rank=rank) for rank, hit in enumerate(kept, 1)]


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        status = path.stat() if path else None
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino) if status else None


def _version(stamp: tuple[int, int, int] | None) -> str:
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:12]


def _tell(waiting: _Waiting, result: "list[Hit] | Exception") -> None:
    def settle() -> None:
        if waiting.answer.done():
            return
        if isinstance(result, Exception):
            waiting.answer.set_exception(result)
        else:
            waiting.answer.set_result(result)

    waiting.loop.call_soon_threadsafe(settle)
