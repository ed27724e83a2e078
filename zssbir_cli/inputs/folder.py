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
