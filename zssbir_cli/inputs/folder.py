"""Loose image files as network inputs: any folder of photos, no classes needed, and single sketches."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.square import resize_photo, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.prepare.clean import CleanOptions, clean
from zssbir_cli.prepare.kinds import (
    HEAD_BYTES,
    is_picture_head,
    is_picture_name,
    may_be_picture,
    suffix,
)
from zssbir_cli.prepare.sources import FolderSource
from zssbir_cli.types import Modality


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


class SketchFiles(Dataset[Tensor]):
    """Sketch files (any image format, SVG, transparent ones) as uint8 [1, size, size]."""

    def __init__(self, paths: Sequence[Path], size: int, sketch_crop: bool = True) -> None:
        self.paths, self.size, self.sketch_crop = paths, size, sketch_crop

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        return square_sketch(read_sketch(self.paths[i]), self.size, self.sketch_crop)


class LoosePhotos(Dataset[Tensor]):
    """Photo files of any supported kind as uint8 [3, size, size]."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> Tensor:
        return resize_photo(read_photo(self.paths[i]), self.size)


def read_photo(path: Path) -> Tensor:
    """An image file of any supported kind as RGB uint8 [3, H, W]. DataError naming the file."""
    return photo_of(_read(path), path)


def photo_of(raw: bytes, path: Path) -> Tensor:
    """The bytes of an image file as RGB uint8 [3, H, W]. DataError naming the file."""
    return decode_photo(_checked(raw, path, Modality.PHOTO))


def read_sketch(path: Path) -> Tensor:
    """A sketch file, SVG included, as dark ink on white, uint8 [1, H, W]. DataError naming the file."""
    return decode_sketch(_checked(_read(path), path, Modality.SKETCH))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None


def _checked(raw: bytes, path: Path, modality: Modality) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    cleaned = clean(raw, modality, CleanOptions(quick=True))
    if cleaned.data is None:
        raise DataError(f"{path}: {cleaned.note}")
    return np.frombuffer(cleaned.data, np.uint8)
