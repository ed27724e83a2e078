"""The queries of a search: each file is read and decoded once, for its check, the network and the result's picture."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.data.square import ink_box, resize_photo, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.inputs.folder import photo_of, picture_files, read_photo, read_sketch, sketch_of
from zssbir_cli.types import AnyPath, Modality

Picture = AnyPath | Image.Image | npt.NDArray[np.uint8]
"""A file, a PIL image, or uint8 [H, W] or [H, W, 3]."""
Pictures = Picture | Sequence[Picture]
"""One or several; a folder stands for the pictures below it, in sorted order."""

BLANK = "blank: no ink found"
SHADED = 0.12
"""Share of pixels between black and white above which a cleaned sketch is likely a photo: of 180 drawings none has
more than 0.10, of 70 photos half have more than 0.14."""
LIKE_A_PHOTO = "looks like a photo, not a drawing; searched all the same"


@dataclass(frozen=True, eq=False)
class QueryImage:
    """A file, its pixels and what the user should know of it: a sketch as dark ink on white, uint8 [1, H, W], or a
    photo, uint8 [3, H, W]."""

    path: Path
    modality: Modality
    image: Tensor
    note: str = ""


def read_queries(
    sketches: Pictures, photos: Pictures = ()
) -> tuple[list[QueryImage], list[tuple[Path, str]]]:
    """The queries, sketches first, and those that are left out with the reason: broken or blank. A picture that is no
    file is called by its kind and number (`sketch 1`).

    Errors: DataError when a place does not exist or no query remains.
    """
    queries: list[QueryImage] = []
    left_out: list[tuple[Path, str]] = []
    for modality, places in ((Modality.SKETCH, sketches), (Modality.PHOTO, photos)):
        for number, picture in enumerate(expand(places), 1):
            path = (
                Path(picture)
                if isinstance(picture, str | Path)
                else Path(f"{modality.name.lower()} {number}")
            )
            try:
                queries.append(_read(picture, path, modality))
            except DataError as error:
                left_out.append((path, str(error).removeprefix(f"{path}: ")))
    if not queries:
        path, reason = left_out[0]
        more = f" (and {len(left_out) - 1:,} more are left out)" if len(left_out) > 1 else ""
        raise DataError(f"{path}: {reason}; nothing is left to search with{more}")
    return queries, left_out


def _read(picture: Picture, path: Path, modality: Modality) -> QueryImage:
    raw = None if isinstance(picture, str | Path) else _png(picture, path)
    if modality is Modality.PHOTO:
        return QueryImage(path, modality, read_photo(path) if raw is None else photo_of(raw, path))
    image = read_sketch(path) if raw is None else sketch_of(raw, path)
    if ink_box(image) is None:
        raise DataError(BLANK)
    shaded = float(((image > 40) & (image < 215)).float().mean())
    return QueryImage(path, modality, image, LIKE_A_PHOTO if shaded > SHADED else "")


def _png(picture: Any, path: Path) -> bytes:
    """A picture in memory as the file it could have been read from. DataError for what is no picture."""
    try:
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=1)
    except (AttributeError, TypeError, ValueError, OSError) as error:
        raise DataError(
            f"{path}: give a file, a PIL image, or uint8 [H, W] or [H, W, 3] ({reason(error)})"
        ) from None
    return buffer.getvalue()


def expand(pictures: Pictures, passed_over: list[tuple[Path, str]] | None = None) -> list[Picture]:
    """One or several pictures as a list, folders as their files; what else lies in these is added to `passed_over`.
    Errors: DataError: no such file."""
    if isinstance(pictures, str | Path | Image.Image | np.ndarray):
        pictures = [pictures]
    found: list[Picture] = []
    for picture in pictures:
        if not isinstance(picture, str | Path):
            found.append(picture)
            continue
        files, others = _existing(Path(picture))
        found += files
        if others and passed_over is not None:
            passed_over.append((Path(picture), f"passed over {others}, which are not pictures"))
    return found


def _existing(place: Path) -> tuple[list[Path], str]:
    if not place.exists():
        raise DataError(f"{place}: cannot be read (no such file or folder)")
    return picture_files(place)


class QueryInputs(Dataset[Tensor]):
    """Queries of one modality as network inputs, uint8 [1 or 3, size, size]."""

    def __init__(self, queries: Sequence[QueryImage], size: int, sketch_crop: bool = True) -> None:
        self.queries, self.size, self.sketch_crop = queries, size, sketch_crop

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, i: int) -> Tensor:
        query = self.queries[i]
        if query.modality is Modality.PHOTO:
            return resize_photo(query.image, self.size)
        return square_sketch(query.image, self.size, self.sketch_crop)
