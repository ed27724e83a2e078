"""Loose image files as network inputs: any folder of photos, no classes needed, and single sketches."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
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


class PhotoFolder(Dataset[Tensor]):
    """All images below a folder, in sorted order, as uint8 [3, size, size]. Picklable.

    An unreadable image becomes a grey square and its entry of `failed` (uint8 [N], shared with the loading
    processes) becomes 1; `why` tells the reason.
    """

    def __init__(self, root: Path, size: int) -> None:
        if not root.is_dir():
            raise DataError(f"{root}: not a folder of photos (unpack archives first)")
        source = FolderSource(root)
        source.scan()
        self.root, self.size = root, size
        self.names = pictures_of(source)
        if not self.names:
            raise DataError(f"{root}: no images below this folder ({_others(source)})")
        self.digest = source.sha256()
        self.failed = torch.zeros(len(self.names), dtype=torch.uint8)
        self.failed.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> Tensor:
        try:
            return resize_photo(read_photo(self.root / self.names[i]), self.size)
        except DataError:
            self.failed[i] = 1
            return torch.full((3, self.size, self.size), 128, dtype=torch.uint8)

    def why(self, i: int) -> str:
        """Why image `i` cannot be read ("" when it can)."""
        try:
            read_photo(self.root / self.names[i])
        except DataError as error:
            return str(error)
        return ""


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
        raise DataError(f"{place}: no pictures below this folder ({_others(source)})")
    return found


def _begins_as_picture(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return is_picture_head(file.read(HEAD_BYTES))
    except OSError:
        return True  # reading it later says why


def _others(source: FolderSource) -> str:
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


def read_photo(path: Path) -> Tensor:
    """An image file of any supported kind as RGB uint8 [3, H, W]. DataError naming the file."""
    return decode_photo(_checked(path, Modality.PHOTO))


def read_sketch(path: Path) -> Tensor:
    """A sketch file, SVG included, as dark ink on white, uint8 [1, H, W]. DataError naming the file."""
    return decode_sketch(_checked(path, Modality.SKETCH))


def _checked(path: Path, modality: Modality) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    cleaned = clean(raw, modality, CleanOptions(quick=True))
    if cleaned.data is None:
        raise DataError(f"{path}: {cleaned.note}")
    return np.frombuffer(cleaned.data, np.uint8)
