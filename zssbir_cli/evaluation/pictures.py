"""Small pictures of sketches and photos, wherever they lie, for pages and sheets."""

import io
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from zssbir_cli.arrays import UInt8
from zssbir_cli.data.embeddings import Embeddings
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.square import square_sketch
from zssbir_cli.embedding.listing import file_content
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.inputs.folder import read_photo
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.masks import kept_patches
from zssbir_cli.viz.page import THUMB, square


def of_set(images: ImageSet, number: int) -> UInt8:
    """A stored image as a square thumbnail [side, side, 3]; a sketch cropped to its ink."""
    return thumbnail(load_image(images, number), images.modality)


def of_gallery(gallery: Embeddings, rows: Sequence[int]) -> list[UInt8 | None]:
    """Thumbnails of rows of an embeddings file; None where the image is not there any more."""
    images = ((_image_of(gallery, row), Modality(int(gallery.modality[row]))) for row in rows)
    return [None if image is None else thumbnail(image, modality) for image, modality in images]


def jpeg_of_gallery(
    gallery: Embeddings, row: int, size: int, keep: npt.NDArray[np.bool_] | None = None
) -> bytes | None:
    """The image of a row as JPEG without metadata, its longer side at most `size` pixels; None when it is not
    there any more or cannot be read. `keep`: bool [a, b], patches of a photo that are shown, the others fade."""
    image = _image_of(gallery, row)
    if image is None:
        return None
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).squeeze(2).numpy()))
    picture.thumbnail((size, size), Image.Resampling.BICUBIC)
    if keep is not None:
        picture = Image.fromarray(kept_patches(np.asarray(picture), keep))
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=85)
    return out.getvalue()


def _image_of(gallery: Embeddings, row: int) -> Tensor | None:
    """The image of a row [C, H, W]; None when it is not there any more, is another now or cannot be read."""
    info, modality = gallery.info, Modality(int(gallery.modality[row]))
    try:
        if info.part and info.data_identity:
            images = _prepared_images(info.data_root, info.data_identity, Part(info.part), modality)
            if images is not None:
                return load_image(images, row - int(gallery.rows_of(modality)[0]))
        return read_photo(file) if (file := file_as_embedded(gallery, row)) else None
    except (DataError, OSError, IndexError, ValueError):
        return None


def file_as_embedded(gallery: Embeddings, row: int) -> Path | None:
    """The file of a photo, or its member of a tar; None when it is not there any more, or not the one that was embedded:
    told by size and times, in doubt by its content. Files of older versions do not know that of tars."""
    file, stamps = gallery.file_of(row), gallery.stamps
    if file is None or stamps is None:
        return file
    with suppress(OSError):  # not there, in a tar, or a name that no file can have here
        found = file.stat()
        known = stamps.size[row], stamps.mtime_ns[row], stamps.ctime_ns[row]
        if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == known:
            return file
    return file if file_content(file) == stamps.content[row].tobytes() else None


def set_as_embedded(gallery: Embeddings) -> bool:
    """Whether the prepared set that a gallery is a part of still lies where it was."""
    with suppress(DataError):
        return PreparedSet.open(gallery.info.data_root).identity == gallery.info.data_identity
    return False


@lru_cache(8)
def _prepared_images(root: str, identity: str, part: Part, modality: Modality) -> ImageSet | None:
    """The images of a prepared set; None when another set, or none, lies there."""
    if not (Path(root) / "manifest.json").is_file():
        return None
    prepared = PreparedSet.open(root)
    return prepared.images(part, modality) if prepared.identity == identity else None


def thumbnail(image: Tensor, modality: Modality) -> UInt8:
    """A decoded sketch [1, H, W] or photo [3, H, W], uint8, as a square thumbnail [side, side, 3]."""
    if modality is Modality.SKETCH:
        return square(square_sketch(image, THUMB, crop=True).permute(1, 2, 0).numpy())
    return square(image.permute(1, 2, 0).numpy())
