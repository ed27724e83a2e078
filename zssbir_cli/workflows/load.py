"""Weights that stay loaded, for programs: pictures to embeddings, and searches without starting again."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.gallery import Gallery, open_gallery
from zssbir_cli.embedding.weights import choose_weights
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.folder import Pictures, QueryInputs, expand, read_queries
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import AnyPath, Modality
from zssbir_cli.workflows.search import SearchResult, search_gallery

CHUNK = 256
"""Pictures that are in memory at a time."""


@dataclass(frozen=True)
class Retriever:
    """A model that embeds pictures and searches galleries. Made by `load`."""

    embedder: Embedder

    @property
    def note(self) -> str:
        """What one should know of the checkpoint that was taken ("" when there is nothing)."""
        return self.embedder.weights.note

    def embed(
        self, pictures: Pictures, *, modality: str = "photo", progress: Progress = silent
    ) -> npt.NDArray[np.float32]:
        """Embeddings float32 [N, D] of unit length, one row per picture, in the order given.

        pictures: files, folders (their pictures in sorted order), PIL images or uint8 arrays [H, W] or [H, W, 3].
        modality: `photo`, or `sketch` for drawings, which are cleaned and cropped as in training. Many photos are
        better embedded into a file (`zssbir.embed`), which is kept up to date.

        Errors: DataError naming a picture that is broken or blank; UsageError for another modality.
        """
        if modality.upper() not in Modality.__members__:
            raise UsageError(f"modality {modality!r}: photo or sketch")
        kind, given = Modality[modality.upper()], expand(pictures)
        rows = []
        for start in range(0, len(given), CHUNK):
            progress(f"embedding {modality}s", start, len(given))
            some = given[start : start + CHUNK]
            places = (some, ()) if kind is Modality.SKETCH else ((), some)
            found, bad = read_queries(*places, size=self.embedder.size, first=start + 1)
            if bad:
                raise DataError(f"{bad[0][0]}: {bad[0][1]}")
            inputs = QueryInputs(found, self.embedder.size, self.embedder.sketch_crop)
            rows.append(self.embedder.embed(inputs, kind).numpy())
        if not rows:
            raise DataError("nothing to embed: give at least one picture")
        return np.concatenate(rows)

    def open(self, photos: AnyPath, *, progress: Progress = silent) -> Gallery:
        """A gallery for `search`: an embeddings file of these weights, a prepared set (its test photos), or a folder
        of photos, embedded where that is due. Errors: DataError, UsageError."""
        return open_gallery(Path(photos), self.embedder.device, embedder=self.embedder, progress=progress)

    def search(
        self,
        sketches: Pictures,
        photos: Gallery | AnyPath,
        *,
        k: int = 20,
        like: Pictures = (),
        text: str = "",
        min_score: float = -1.0,
        progress: Progress = silent,
    ) -> SearchResult:
        """As `zssbir.search`, with these weights; a gallery from `open` is not looked at again each time."""
        gallery = photos if isinstance(photos, Gallery) else self.open(photos, progress=progress)
        return search_gallery(
            gallery, sketches, k=k, like=like, text=text, min_score=min_score, progress=progress
        )


def load(
    run: AnyPath | None = None,
    *,
    model: str | None = None,
    checkpoint: str = "best",
    runs: AnyPath = "runs",
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
) -> Retriever:
    """Load the weights of a run or of a frozen model (`embedding.weights.choose_weights`; default: the latest run under
    `runs`), to embed and search with.

    Errors: UsageError (no such run or device), CheckpointError (no such checkpoint, or a damaged one).

    >>> model = zssbir.load(device="cpu")
    >>> len(model.embed(["drawing.png"], modality="sketch"))
    1
    >>> gallery = model.open("photos")
    >>> model.search("drawing.png", gallery, k=1).found[0].hits[0].rank
    1
    """
    weights = choose_weights(run, model, Path(runs), checkpoint)
    embedder = Embedder(weights, choose_device(device), precision=precision, workers=workers)
    _ = embedder.method  # a damaged checkpoint is reported now
    return Retriever(embedder)
