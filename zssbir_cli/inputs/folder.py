"""Loose image files as network inputs: any folder of photos, no classes needed, single sketches, and the queries of a search."""

import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.data.square import ink_box, resize_photo, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.preparation.archives import read_member
from zssbir_cli.preparation.clean import drawing, photo
from zssbir_cli.preparation.kinds import HEAD_BYTES, is_picture_head, is_picture_name, may_be_picture, suffix
from zssbir_cli.preparation.sources import FolderSource
from zssbir_cli.types import AnyPath, Modality


def pictures_below(place: Path) -> tuple[list[str], str]:
    """The pictures below a folder, as paths below it in sorted order, and what else lies there (`3 .txt, 1 .mp4`).

    Pictures are known by their suffix or, where that says nothing, by their content. DataError when there is none.
    """
    source = FolderSource(place)
    source.scan()
    found, others = [], Counter[str]()
    for path in source.listing.paths:
        if is_picture_name(path) or (may_be_picture(path) and _begins_as_picture(place / path)):
            found.append(path)
        else:
            others[suffix(path) or "without a suffix"] += 1
    if source.listing.remarks:
        others["link to what is listed already, or no regular file"] = len(source.listing.remarks)
    ranked = sorted(others, key=lambda kind: (-others[kind], kind))
    rest = ", ".join(f"{others[kind]:,} {kind}" for kind in ranked[:5])
    if len(others) > 5:
        rest += f" and {len(others) - 5} other kinds"
    if not found:
        raise DataError(f"{place}: no pictures below this folder ({rest or 'it is empty'})")
    return found, rest


def picture_files(place: Path) -> tuple[list[Path], str]:
    """A picture file as it is, a folder as the pictures below it, and what else lies there. DataError when no picture
    does."""
    if not place.is_dir():
        return [place], ""
    found, others = pictures_below(place)
    return [place / name for name in found], others


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture_head(file.read(HEAD_BYTES))
    except OSError:
        return True  # reading it later says why


def read_photo(path: Path) -> Tensor:
    """An image file of any supported kind, or a member of a tar (`shard.tar/cat.jpg`), as RGB uint8 [3, H, W]. DataError
    naming the file."""
    return photo_of(_read(path), path)


def photo_of(raw: bytes, path: Path, size: int | None = None) -> Tensor:
    """The bytes of an image file as RGB uint8 [3, H, W] (`preparation.clean.photo`). DataError naming the file."""
    try:
        return torch.from_numpy(np.require(photo(raw, size), requirements=["C", "W"])).permute(2, 0, 1)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def sketch_of(raw: bytes, path: Path) -> Tensor:
    """The bytes of a sketch file as dark ink on white, uint8 [1, H, W]. DataError naming the file."""
    try:
        return torch.from_numpy(np.require(drawing(raw), requirements=["C", "W"]))[None]
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        if (raw := read_member(path)) is not None:
            return raw
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


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
    raw: bytes = b""
    """A photo's file."""


def read_queries(
    sketches: Pictures, photos: Pictures = (), *, size: int | None = None, first: int = 1
) -> tuple[list[QueryImage], list[tuple[Path, str]]]:
    """The queries, sketches first, and those that are left out with the reason: broken or blank. A picture that is no
    file is called by its kind and number (`sketch 1`), counted from `first`. `size`: what photos will be resized to
    (`preparation.clean.photo`).

    Errors: DataError when a place does not exist or no query remains.
    """
    queries: list[QueryImage] = []
    left_out: list[tuple[Path, str]] = []
    for modality, places in ((Modality.SKETCH, sketches), (Modality.PHOTO, photos)):
        for number, picture in enumerate(expand(places), first):
            name = f"{modality.word} {number}"
            path = Path(picture if isinstance(picture, str | Path) else name)
            try:
                queries.append(_query(picture, path, modality, size))
            except DataError as error:
                left_out.append((path, str(error).removeprefix(f"{path}: ")))
    if not queries:
        path, reason = left_out[0]
        more = f" (and {len(left_out) - 1:,} more are left out)" if len(left_out) > 1 else ""
        raise DataError(f"{path}: {reason}; nothing is left to search with{more}")
    return queries, left_out


def _query(picture: Picture, path: Path, modality: Modality, size: int | None) -> QueryImage:
    raw = _read(path) if isinstance(picture, str | Path) else _png(picture, path)
    if modality is Modality.PHOTO:
        return QueryImage(path, modality, photo_of(raw, path, size), raw=raw)
    image = sketch_of(raw, path)
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
        if not Path(picture).exists():
            raise DataError(f"{picture}: cannot be read (no such file or folder)")
        files, others = picture_files(Path(picture))
        found += files
        if others and passed_over is not None:
            passed_over.append((Path(picture), f"passed over {others}, which are not pictures"))
    return found


class QueryInputs(Dataset[Tensor]):
    """Queries of one modality as network inputs, uint8 [1 or 3, size, size]. `of_files`: photos are decoded as those of a
    folder are, large ones at a part of their size, so that a photo is itself there."""

    def __init__(
        self, queries: Sequence[QueryImage], size: int, sketch_crop: bool = True, of_files: bool = False
    ) -> None:
        self.queries, self.size, self.sketch_crop, self.of_files = queries, size, sketch_crop, of_files

    def __len__(self) -> int:
        return len(self.queries)

    def __getitem__(self, i: int) -> Tensor:
        query = self.queries[i]
        if query.modality is Modality.PHOTO:
            image = photo_of(query.raw, query.path, self.size) if self.of_files else query.image
            return resize_photo(image, self.size)
        return square_sketch(query.image, self.size, self.sketch_crop)
