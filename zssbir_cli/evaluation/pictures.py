"""Small pictures of sketches and photos, wherever they lie, for pages and sheets."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from zssbir_cli.data.embeddings import Embeddings
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.inputs.folder import read_photo, read_sketch
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.page import THUMB, square

UInt8 = npt.NDArray[np.uint8]


def from_prepared(prepared: PreparedSet, place: tuple[Part, Modality, int]) -> UInt8:
    """A stored image as a square thumbnail [side, side, 3]; a sketch cropped to its ink."""
    part, modality, number = place
    return _square(load_image(prepared.images(part, modality), number), modality)


def of_sketch(path: Path) -> UInt8:
    """A sketch file as a square thumbnail."""
    return _square(read_sketch(path), Modality.SKETCH)


def of_gallery(gallery: Embeddings, rows: Sequence[int]) -> list[UInt8 | None]:
    """Thumbnails of rows of an embeddings file; None where the image is not there any more."""
    root = Path(gallery.info.data_root)
    prepared = None
    if gallery.info.part and (root / "manifest.json").is_file():
        prepared = PreparedSet.open(root)
        if prepared.identity != gallery.info.data_identity:
            prepared = None
    out: list[UInt8 | None] = []
    first = {m: int(r[0]) for m in Modality if len(r := gallery.rows_of(m))}
    for row in rows:
        try:
            if prepared is not None:
                modality = Modality(int(gallery.modality[row]))
                out.append(
                    from_prepared(prepared, (Part(gallery.info.part), modality, row - first[modality]))
                )
            else:
                file = gallery.file_of(row)
                out.append(None if file is None else _square(read_photo(file), Modality.PHOTO))
        except (DataError, IndexError):
            out.append(None)
    return out


def _square(image: Tensor, modality: Modality) -> UInt8:
    if modality is Modality.SKETCH:
        return square(square_sketch(image, THUMB, crop=True).permute(1, 2, 0).numpy())
    return square(image.permute(1, 2, 0).numpy())
