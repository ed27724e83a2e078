"""Loose image files as network inputs: any folder of photos, no classes needed, and single sketches."""

from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zssbir_cli.errors import DataError
from zssbir_cli.preparation.clean import drawing, photo
from zssbir_cli.preparation.kinds import (
    HEAD_BYTES,
    is_picture_head,
    is_picture_name,
    may_be_picture,
    suffix,
)
from zssbir_cli.preparation.sources import FolderSource


def pictures_of(source: FolderSource) -> list[str]:
    """The pictures of a scanned folder, as paths below it, in sorted order: known by their suffix or, where
    that says nothing, by their content."""
    paths = [p for p in source.listing.paths if may_be_picture(p)]
    return [p for p in paths if is_picture_name(p) or _begins_as_picture(source.path / p)]


def picture_files(place: Path) -> list[Path]:
    """A picture file as it is, a folder as the pictures below it.

    Raises:
        DataError: no pictures there.
    """
    if not place.is_dir():
        return [place]
    source = FolderSource(place)
    source.scan()
    found = [place / name for name in pictures_of(source)]
    if not found:
        raise DataError(f"{place}: no pictures below this folder ({describe_files(source)})")
    return found


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture_head(file.read(HEAD_BYTES))
    except OSError:
        return True  # reading it later says why


def describe_files(source: FolderSource) -> str:
    """What a folder without pictures holds: `3 .txt, 1 .mp4`."""
    kinds = Counter(suffix(path) or "no suffix" for path in source.listing.paths)
    return ", ".join(f"{n:,} {kind}" for kind, n in kinds.most_common(5)) or "it is empty"


def read_photo(path: Path) -> Tensor:
    """An image file of any supported kind as RGB uint8 [3, H, W]. DataError naming the file."""
    return photo_of(_read(path), path)


def photo_of(raw: bytes, path: Path, size: int | None = None) -> Tensor:
    """The bytes of an image file as RGB uint8 [3, H, W] (`preparation.clean.photo`). DataError naming the file."""
    try:
        return torch.from_numpy(np.require(photo(raw, size), requirements=["C", "W"])).permute(2, 0, 1)
    except DataError as error:
        raise DataError(f"{path}: {error}") from None


def read_sketch(path: Path) -> Tensor:
    """A sketch file, SVG included, as dark ink on white, uint8 [1, H, W]. DataError naming the file."""
    return sketch_of(_read(path), path)


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
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
