"""Map-style data sets over a prepared set, for embedding and for training on sketch-photo rows, and their random views."""

import hashlib
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from zssbir_cli.arrays import Ints
from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.prepared import ImageSet
from zssbir_cli.data.square import resize, resize_photo, resize_squared, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality


@dataclass(frozen=True)
class Crop:
    """A random view of an image, in shares of its height and width, so that it applies to any resolution:
    the photo, its mask and its score map move together."""

    top: float = 0.0
    left: float = 0.0
    height: float = 1.0
    width: float = 1.0
    flip: bool = False


def sample_crop(rng: np.random.Generator, smallest: float, flip: bool) -> Crop:
    """Draw a crop that keeps `smallest` to 1 of the area (aspect ratio within 3/4 to 4/3), and a flip."""
    mirrored = bool(flip and rng.random() < 0.5)
    if smallest >= 1:
        return Crop(flip=mirrored)
    area, ratio = rng.uniform(smallest, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height, width = min(1.0, float((area / ratio) ** 0.5)), min(1.0, float((area * ratio) ** 0.5))
    return Crop(float(rng.uniform(0, 1 - height)), float(rng.uniform(0, 1 - width)), height, width, mirrored)


def crop_image(image: Tensor, crop: Crop, size: int) -> Tensor:
    """Apply a crop to an image [C, H, W] and resize to [C, size, size]."""
    rows, columns = image.shape[1:]
    top, left = round(crop.top * rows), round(crop.left * columns)
    height, width = max(1, round(crop.height * rows)), max(1, round(crop.width * columns))
    cut = image[:, top : top + height, left : left + width]
    out = cut if cut.shape[1:] == (size, size) else resize(cut, size)
    return out.flip(2) if crop.flip else out


def crop_map(scores: Tensor, crop: Crop) -> Tensor:
    """Apply a crop to a map of scores, float [h, w], on the same grid (bilinear)."""
    if crop == Crop():
        return scores
    rows, columns = scores.shape
    ys = (crop.top + (torch.arange(rows) + 0.5) / rows * crop.height) * 2 - 1
    xs = (crop.left + (torch.arange(columns) + 0.5) / columns * crop.width) * 2 - 1
    if crop.flip:
        xs = xs.flip(0)
    where = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)[None].float()
    out = functional.grid_sample(
        scores[None, None].float(), where, mode="bilinear", padding_mode="border", align_corners=False
    )
    return out[0, 0]


def jitter_sketch(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Rotate (to 30 degrees), scale (to 25 %), shift (to 10 %) and thicken the lines of a sketch
    [1, H, W], each by a random share of `strength` (0-1)."""
    if strength <= 0:
        return image
    size = image.shape[1]
    angle = np.deg2rad(30) * strength * rng.uniform(-1, 1)
    zoom = np.exp(np.log(1.25) * strength * rng.uniform(-1, 1))
    shift = 0.1 * size * strength * rng.uniform(-1, 1, 2)
    cos, sin, centre = np.cos(angle) / zoom, np.sin(angle) / zoom, (size - 1) / 2
    affine = np.array(
        [
            [cos, -sin, centre - cos * (centre + shift[0]) + sin * (centre + shift[1])],
            [sin, cos, centre - sin * (centre + shift[0]) - cos * (centre + shift[1])],
        ]
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image[0].numpy(), affine, (size, size), flags=flags, borderValue=(255,))
    if rng.random() < 0.25 * strength:
        out = cv2.erode(out, np.ones((3, 3), np.uint8))  # the minimum around each pixel: thicker lines
    return torch.from_numpy(out)[None]


def jitter_color(image: Tensor, rng: np.random.Generator, strength: float) -> Tensor:
    """Change brightness, contrast and saturation of a photo [3, H, W] by up to 40 % of `strength` each, as one
    affine colour map."""
    if strength <= 0:
        return image
    brightness, contrast, saturation = 1 + 0.4 * strength * rng.uniform(-1, 1, 3)
    pixels = image.permute(1, 2, 0).numpy()
    if not pixels.flags.c_contiguous:
        pixels = cv2.merge(list(image.numpy()))  # NumPy takes ten times as long to put channels last
    grey = np.array([0.299, 0.587, 0.114])
    mean = brightness * float(grey @ cv2.mean(pixels)[:3])
    matrix = np.empty((3, 4))
    matrix[:, :3] = (saturation * np.eye(3) + (1 - saturation) * grey) * (brightness * contrast)
    matrix[:, 3] = mean * (1 - contrast)
    return torch.from_numpy(cv2.transform(pixels, matrix)).permute(2, 0, 1)


def load_image(images: ImageSet, i: int) -> Tensor:
    """Decode image `i`: photo uint8 [3, H, W], sketch uint8 [1, H, W]. Raises DataError naming the image."""
    try:
        if images.modality is Modality.SKETCH:
            return decode_sketch(images.read(i), on_white=images.on_white)
        return decode_photo(images.read(i))
    except DataError as error:
        raise DataError(f"{images.sources[i]} ({images.part} {images.modality.word} {i}): {error}") from error


def sketch_input(images: ImageSet, i: int, size: int, crop: bool) -> Tensor:
    """Sketch `i` as the un-augmented network input, uint8 [1, size, size]."""
    image = load_image(images, i)
    return resize_squared(image, size) if images.squared else square_sketch(image, size, crop)


def check_crop(images: ImageSet, sketch_crop: bool) -> None:
    """Raises DataError when the recipe wants whole sketches and the set holds cropped ones."""
    if images.squared and not sketch_crop:
        raise DataError(
            "data.sketch_crop: false needs whole sketches, but `prepare --square` cropped those of this set; "
            "set it to true, or prepare a set without --square"
        )


def item_rng(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The generator of one training item: a pure function of the run's seed and the item's place, so that an
    item is the same on any worker or rank."""
    place = np.array([seed, epoch, position, 0], np.int64)
    digest = hashlib.blake2b(place.tobytes(), digest_size=16).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))


class EvalImages(Dataset[Tensor]):
    """Un-augmented network inputs of one image set, in its order: uint8 [1 or 3, size, size]; of `most` of its
    images, spread evenly, if it is given."""

    def __init__(
        self, images: ImageSet, size: int, sketch_crop: bool = True, most: int | None = None
    ) -> None:
        check_crop(images, sketch_crop)
        self.images, self.size, self.sketch_crop = images, size, sketch_crop
        self.count = len(images) if most is None else min(most, len(images))

    def __len__(self) -> int:
        return self.count

    @property
    def labels(self) -> Ints:
        """Labels int64 [N] of the images."""
        places = np.arange(self.count) * len(self.images) // max(1, self.count)
        return self.images.labels[places].astype(np.int64)

    def __getitem__(self, i: int) -> Tensor:
        i = i * len(self.images) // max(1, self.count)
        if self.images.modality is Modality.SKETCH:
            return sketch_input(self.images, i, self.size, self.sketch_crop)
        return resize_photo(load_image(self.images, i), self.size)


@dataclass(frozen=True)
class Augment:
    """Training views of sketches and photos as the recipe's `data` section says."""

    config: DataConfig

    def sketch(self, image: Tensor, rng: np.random.Generator) -> Tensor:
        """Network input of a sketch -> view, both [1, size, size]."""
        out = jitter_sketch(image, rng, self.config.sketch_jitter)
        return out.flip(2) if self.config.flip and rng.random() < 0.5 else out

    def photo(self, image: Tensor, rng: np.random.Generator) -> tuple[Tensor, Crop]:
        """Decoded photo [3, H, W] -> view [3, size, size] and the crop that made it."""
        crop = sample_crop(rng, self.config.crop_scale, self.config.flip)
        view = crop_image(image, crop, self.config.size)
        return jitter_color(view, rng, self.config.color_jitter), crop


class RowItems(Dataset[dict[str, Tensor]]):
    """Training items of rows (sketch index, photo index, further photo indices): `sketch`, `photo`, `photo_1`
    ... as uint8 [C, size, size], and the int64 scalar `label` of the sketch."""

    def __init__(self, sketches: ImageSet, photos: ImageSet, config: DataConfig, seed: int) -> None:
        check_crop(sketches, config.sketch_crop)
        self.sketches, self.photos = sketches, photos
        self.augment, self.seed = Augment(config), seed

    def sketch(self, i: int, rng: np.random.Generator) -> Tensor:
        """Augmented view of sketch `i`, uint8 [1, size, size]."""
        config = self.augment.config
        return self.augment.sketch(sketch_input(self.sketches, i, config.size, config.sketch_crop), rng)

    def __getitem__(self, key: tuple[int, int, tuple[int, ...]]) -> dict[str, Tensor]:
        epoch, position, (sketch, *photos) = key
        rng = item_rng(self.seed, epoch, position)
        item = {"sketch": self.sketch(sketch, rng)}
        for number, photo in enumerate(photos):
            name = f"photo_{number}" if number else "photo"
            item[name] = self.augment.photo(load_image(self.photos, photo), rng)[0]
        item["label"] = torch.tensor(int(self.sketches.labels[sketch]))
        return item
