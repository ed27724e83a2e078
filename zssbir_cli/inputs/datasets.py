"""Map-style data sets over a prepared set: one for embedding, one for training on sketch-photo rows."""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.prepared import ImageSet
from zssbir_cli.data.square import resize_photo, resize_squared, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.transforms import Crop, crop_image, jitter_color, jitter_sketch, sample_crop
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality


def load_image(images: ImageSet, i: int) -> Tensor:
    """Decode image `i`: photo uint8 [3, H, W], sketch uint8 [1, H, W]. Raises DataError naming the image."""
    try:
        if images.modality is Modality.SKETCH:
            return decode_sketch(images.read(i), on_white=images.on_white)
        return decode_photo(images.read(i))
    except DataError as error:
        raise DataError(
            f"{images.sources[i]} ({images.part} {images.modality.name.lower()} {i}): {error}"
        ) from error


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


def item_rng(seed: int, epoch: int, position: int, stream: int = 0) -> np.random.Generator:
    """The generator of one training item: a pure function of the run's seed and the item's place, so that an
    item is the same on any worker or rank. `stream` separates independent draws for one item."""
    digest = hashlib.blake2b(
        np.array([seed, epoch, position, stream], np.int64).tobytes(), digest_size=16
    ).digest()
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
