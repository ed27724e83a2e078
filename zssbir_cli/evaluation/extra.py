"""Extra photos in the gallery of an evaluation (distractors): relevant to no query."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.embeddings import Embeddings, Rows
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import class_key, counted, listed
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality


@dataclass(frozen=True)
class Distractors:
    """Photos of an embeddings file that join a gallery: their rows' numbers, and what is to tell of them."""

    stored: Embeddings
    index: Ints
    notes: tuple[str, ...]

    @property
    def rows(self) -> Rows:
        """Their embeddings [N, D]."""
        return self.stored.embedding[self.index]

    @property
    def sources(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self.stored.sources[i] for i in self.index.tolist())


def find_distractors(
    place: Path, embedder: Embedder, classes: Iterable[str], progress: Progress = silent
) -> Distractors:
    """Photos of a folder, of an embeddings file of the same weights, or of a prepared set's unseen classes.

    Photos that are known to show one of the `classes` that are searched for are left out and counted: they would be
    relevant. Errors: DataError (none left, other weights), UsageError (no such place).
    """
    if not place.exists():
        raise UsageError(f"--gallery-extra {place}: no such file or folder")
    opened = open_gallery(place, embedder.device, embedder=embedder, progress=progress)
    stored = opened.stored
    if stored.info.checkpoint != embedder.weights.sha256:
        raise DataError(f"--gallery-extra {place}: made with other weights than {embedder.weights.label}")
    index = stored.rows_of(Modality.PHOTO)
    shown = [_class_of(stored, i) for i in index.tolist()]
    wanted = {class_key(name): name for name in classes}
    relevant = np.array([key in wanted for key in shown])
    notes = [
        f"{counted(int((~relevant).sum()), 'photo')} of {place} beside the set's own, relevant to no query"
    ]
    if relevant.any():
        names = listed(sorted({wanted[key] for key in shown if key in wanted}))
        notes.append(
            f"{counted(int(relevant.sum()), 'photo')} of {place} left out: of classes that are queried ({names})"
        )
    if opened.folder and opened.folder.skipped:
        notes.append(f"{counted(len(opened.folder.skipped), 'file')} of {place} cannot be read")
    if relevant.all():
        raise DataError(f"--gallery-extra {place}: no photo that is not of a queried class")
    return Distractors(stored, index[~relevant], tuple(notes))


def _class_of(stored: Embeddings, row: int) -> str:
    """The key of the class that a photo is known to show: by its label, else by its folder's name; "" if neither."""
    label = int(stored.label[row])
    name = stored.info.classes[label] if label >= 0 else PurePosixPath(stored.sources[row]).parent.name
    return class_key(name) if name else ""
