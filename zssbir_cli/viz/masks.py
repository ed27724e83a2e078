"""Pictures of linguistic masks in the style of PuXIM's Figure 3: a PNG contact sheet and an HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from zssbir_cli.arrays import Float32, UInt8
from zssbir_cli.viz.page import write_page
from zssbir_cli.viz.sheet import Row, Tile, save_sheet

HEAT, FEATURE = "viridis", "cividis"  # both perceptually uniform
BLANK = np.array([238, 238, 238], np.uint8)
TITLE, SIDE = "Linguistic masks", 208
MEANING = {
    "photo": "the photo as it is stored",
    "score": "how well each patch fits the text: yellow fits best, dark blue least",
    "kept patches": "the patches whose score is high enough; the others are masked, and the encoder learns without them",
    "features": "the encoder's tokens along their first principal component, one value per patch",
    "masked": "the same, kept patches only",
    "normalised": "kept patches again, each token normalised first, as the loss sees them",
}
"""The pictures of a row and what they show."""
COLUMNS = tuple(MEANING)
_SCALE = "Score: dark blue = low, yellow = high; features: blue = low, yellow = high; grey = masked."


@dataclass(frozen=True)
class MaskPicture:
    """All that is shown of one photo.

    photo: uint8 [H, W, 3]. title, note: class or text, and a short line below it. scores: float [h, w].
    keep: bool [a, b], the kept patches on the encoder's grid. features, normalised: float [a, b], the tokens along
    their first principal component, as they are and normalised token by token. truth: bool [H, W] or None.
    """

    photo: UInt8
    title: str
    note: str
    scores: Float32
    keep: npt.NDArray[np.bool_]
    features: Float32
    normalised: Float32
    truth: npt.NDArray[np.bool_] | None = None


def panels(picture: MaskPicture, side: int = 224) -> list[UInt8]:
    """The six images of `COLUMNS`, uint8 [h, w, 3], each with the photo's aspect ratio and longer side `side`."""
    size = _fit(picture.photo.shape[1], picture.photo.shape[0], side)
    photo = np.asarray(Image.fromarray(picture.photo).resize(size, Image.Resampling.LANCZOS))
    heat = _coloured(_smooth(_unit(picture.scores), size), HEAT)
    overlay = np.rint(0.45 * photo + 0.55 * heat).astype(np.uint8)
    if picture.truth is not None:
        overlay = _outlined(overlay, picture.truth, size)
    keep = _blocks(picture.keep, size)
    features = _coloured(_blocks(_unit(picture.features), size), FEATURE)
    normalised = _unit(picture.normalised, picture.normalised[picture.keep])
    return [
        photo,
        overlay,
        kept_patches(photo, picture.keep),
        features,
        np.where(keep[..., None], features, BLANK),
        np.where(keep[..., None], _coloured(_blocks(normalised, size), FEATURE), BLANK),
    ]


def kept_patches(photo: UInt8, keep: npt.NDArray[np.bool_]) -> UInt8:
    """A photo [H, W, 3] whose masked patches are faded; `keep`: bool [a, b], the kept patches of the whole photo."""
    shown = _blocks(keep, (photo.shape[1], photo.shape[0]))
    faded = np.rint(0.12 * photo + 0.88 * BLANK).astype(np.uint8)
    return np.where(shown[..., None], photo, faded)


def save_masks(pictures: Sequence[MaskPicture], folder: Path, about: str) -> tuple[Path, Path]:
    """Write `masks.png` and `masks.html` with a row per photo; returns their paths. Raises DataError."""
    shown = [panels(picture, SIDE) for picture in pictures]
    rows = [
        Row([[Tile(image)] for image in images], p.title, p.note)
        for p, images in zip(pictures, shown, strict=True)
    ]
    sheet = save_sheet(
        folder / "masks.png", rows, title=TITLE, subtitle=f"{about}. {_SCALE}", heads=COLUMNS, side=SIDE
    )
    page = write_page(
        folder / "masks.html",
        "masks",
        title=TITLE,
        about=about,
        columns=[{"name": name, "meaning": meaning} for name, meaning in MEANING.items()],
        rows=[
            {"title": p.title, "note": p.note, "images": images}
            for p, images in zip(pictures, shown, strict=True)
        ],
    )
    return sheet, page


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _unit(values: npt.NDArray[Any], like: npt.NDArray[Any] | None = None) -> Float32:
    """Values on 0-1 by the range of `like` (default: themselves); the top 8 % saturate, so that one loud patch does
    not darken all others."""
    low, high = np.percentile(values if like is None else like, (1, 92))
    scaled: Float32 = np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return scaled


def _smooth(values: Float32, size: tuple[int, int]) -> Float32:
    image = Image.fromarray(values, mode="F").resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, np.float32), 0, 1)


def _blocks(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """A grid enlarged to `size` (width, height) with sharp cells."""
    rows = np.arange(size[1]) * values.shape[0] // size[1]
    columns = np.arange(size[0]) * values.shape[1] // size[0]
    return np.asarray(values[rows][:, columns])


def _coloured(values: npt.NDArray[Any], name: str) -> UInt8:
    import matplotlib  # here: the server of the drawing page does without

    colours = matplotlib.colormaps[name](values)[..., :3]
    return np.asarray(np.rint(colours * 255), np.uint8)


def _outlined(image: UInt8, truth: npt.NDArray[np.bool_], size: tuple[int, int]) -> Any:
    """The image with the true object's outline in white."""
    mask = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-2, 2):
            inner &= np.roll(mask, step, axis)
    return np.where((mask & ~inner)[..., None], np.uint8(255), image)
