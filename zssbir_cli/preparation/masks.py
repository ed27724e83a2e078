"""Object masks beside a user's photos: `mask/<class>/<the photo's name>.png`, white where the object is."""

import hashlib
import io
import os
import unicodedata
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.names import class_key, counted, readable
from zssbir_cli.preparation.opening import formats
from zssbir_cli.preparation.sources import UNREADABLE

MASK_FOLDERS = ("mask", "masks")
NOTE = "mask left out"
_Place = tuple[int, str, str, str]


class MaskFiles:
    """The mask files of scanned sources. A mask belongs to the photos beside it: same source, same folder above,
    same class, same name but for the suffix."""

    def __init__(self) -> None:
        self._entries: dict[_Place, int] = {}
        self._unused: dict[_Place, str] = {}
        self._spare: list[str] = []

    def add(self, number: int, entry: int, path: str) -> None:
        """Note entry `entry` of source number `number`."""
        place = _place(number, path)
        if place in self._entries:
            self._spare.append(path)
        else:
            self._entries[place] = entry
            self._unused[place] = path

    def pair(self, photos: Iterable[tuple[int, int, str]]) -> dict[tuple[int, int], int]:
        """The mask's entry for each (source number, entry, path) of a photo that has one."""
        pairs = {}
        for number, entry, path in photos if self._entries else ():
            place = _place(number, path)
            if place in self._entries:
                pairs[number, entry] = self._entries[place]
                self._unused.pop(place, None)
        return pairs

    def left_out(self) -> Iterator[str]:
        """A sentence for each kind of mask that is not used; after `pair`."""
        for paths, why in (
            (list(self._unused.values()), "no photo of the same class and name"),
            (self._spare, "the photo has another one"),
        ):
            if paths:
                yield f"{counted(len(paths), 'mask')} (first: {readable(paths[0])}): {why}"


def _place(number: int, path: str) -> _Place:
    above, _, folder, file = f"/{path}".rsplit("/", 3)
    stem = unicodedata.normalize("NFC", os.path.splitext(file)[0])  # noqa: PTH122 (a Path takes ten times as long)
    return number, above, class_key(readable(folder)), stem


class Mask(NamedTuple):
    """`data`: the 1-bit PNG to store, None when there is none. `note`: why the file is left out ("" = it is not).
    `digest`: sha256 of the file as found, empty when there is no file."""

    data: bytes | None = None
    note: str = ""
    digest: bytes = b""


def fit_mask(raw: bytes | DataError | None, photo: bytes | DataError, stored: bytes | None) -> Mask:
    """A mask's file, or why it cannot be read (None: there is none), brought to the size of its photo as stored. Never
    raises on bad input."""
    if raw is None:
        return Mask()
    if isinstance(raw, DataError):
        return Mask(None, str(raw), UNREADABLE)
    digest = hashlib.sha256(raw).digest()
    if stored is None or isinstance(photo, DataError):
        return Mask(None, "", digest)
    try:
        return Mask(_fitted(raw, _size_as_seen(photo), _size_as_seen(stored)), "", digest)
    except DataError as error:
        return Mask(None, str(error), digest)
    except Exception as error:  # decoders of rare formats fail in any way on damaged files
        return Mask(None, f"does not decode: {reason(error)}", digest)


def _fitted(raw: bytes, found: tuple[int, int], stored: tuple[int, int]) -> bytes:
    """Pixels brighter than half of the brightest are the object: so are those of masks of 0 and 1."""
    with Image.open(io.BytesIO(raw), formats=formats()) as image:
        if image.size != found:
            raise DataError(
                f"{image.width} x {image.height} pixels, but the photo has {found[0]} x {found[1]}"
            )
        grey = np.asarray(image.convert("L"))
    mask = Image.fromarray(grey > grey.max() / 2)
    if mask.size != stored:
        mask = mask.convert("L").resize(stored, Image.Resampling.BOX)
    return encode_mask(np.asarray(mask.convert("L")) > 127)


def _size_as_seen(photo: bytes) -> tuple[int, int]:
    """Width and height once the photo is upright."""
    with Image.open(io.BytesIO(photo), formats=formats()) as image:
        sideways = image.getexif().get(0x0112, 1) >= 5
        return (image.height, image.width) if sideways else (image.width, image.height)


def told(notes: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """A warning when masks are left out."""
    found = [(path, why) for kind, path, why in notes if kind == NOTE]
    if found:
        path, why = found[0]
        yield f"{counted(len(found), 'mask')} left out (first: that of {path}: {why}); see the report"


def encode_mask(mask: npt.NDArray[np.bool_]) -> bytes:
    """bool [H, W] -> a 1-bit PNG."""
    out = io.BytesIO()
    Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).convert("1").save(out, "PNG", optimize=False)
    return out.getvalue()
