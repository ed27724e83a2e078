"""Loose image files as network inputs: any folder of photos, no classes needed, and single sketches."""

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
from zssbir_cli.prepare.sources import FolderSource, is_image_name
from zssbir_cli.prepare.svg import is_svg, rasterise
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
        listing = source.listing
        chosen = [i for i, path in enumerate(listing.paths) if is_image_name(path)]
        if not chosen:
            raise DataError(f"{root}: no images below this folder ({len(listing.paths)} other files)")
        self.root, self.size = root, size
        self.names = [listing.paths[i] for i in chosen]
        self.digest = source.sha256()
        self.failed = torch.zeros(len(chosen), dtype=torch.uint8)
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
    if modality is Modality.SKETCH and is_svg(raw):
        raw = rasterise(raw, str(path))
    cleaned = clean(raw, modality, CleanOptions(quick=True))
    if cleaned.data is None:
        raise DataError(f"{path}: {cleaned.note}")
    return np.frombuffer(cleaned.data, np.uint8)
