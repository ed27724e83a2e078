"""What AMA trains on: crops of unpaired sketches and photos. No part of AMA reads labels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from zssbir_cli.arrays import Ints
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.datasets import check_crop, item_rng, load_image, sketch_input
from zssbir_cli.methods.ama.config import AmaConfig, ViewsConfig
from zssbir_cli.methods.ama.views import drawing_views, multi_crop
from zssbir_cli.methods.base import Batch, ItemKey, TrainData
from zssbir_cli.recipe.schema import DataConfig, Recipe
from zssbir_cli.types import Modality, Part


@dataclass(frozen=True)
class UnpairedPlan:
    """Rows (sketch, photo) drawn independently: each modality in shuffled passes over all of its images."""

    sketches: int
    photos: int
    batch_size: int
    steps_per_epoch: int
    seed: int

    def batches(self, epoch: int) -> Ints:
        """Rows of epoch `epoch`: int64 [steps, batch, 2]; a pass continues in the next epoch."""
        shape = (self.steps_per_epoch, self.batch_size)
        return np.stack(
            [self._column(epoch, n, i).reshape(shape) for i, n in enumerate((self.sketches, self.photos))], -1
        )

    def _column(self, epoch: int, count: int, stream: int) -> Ints:
        rows = self.steps_per_epoch * self.batch_size
        first, last = epoch * rows // count, ((epoch + 1) * rows - 1) // count
        passes = [
            np.random.default_rng([self.seed, stream, n]).permutation(count) for n in range(first, last + 1)
        ]
        start = epoch * rows - first * count
        return np.concatenate(passes)[start : start + rows]


class AmaItems(Dataset[Batch]):
    """Crops of one sketch and one photo, each decoded once.

    `<modality>_global` uint8 [2, C, S, S], `<modality>_local` [n, C, s, s], `photo_drawing` [d, 1, S, S] and
    `<modality>_index` (the image's number in its set, for its cluster).
    """

    def __init__(
        self, sketches: ImageSet, photos: ImageSet, data: DataConfig, views: ViewsConfig, seed: int
    ) -> None:
        check_crop(sketches, data.sketch_crop)
        self.sketches, self.photos = sketches, photos
        self.data, self.views, self.seed = data, views, seed
        self.size = views.global_size or data.size

    def __getitem__(self, key: ItemKey) -> Batch:
        epoch, position, (sketch, photo) = key
        rng = item_rng(self.seed, epoch, position)
        drawn = sketch_input(self.sketches, sketch, self.size * 8 // 7, self.data.sketch_crop)  # 256 for 224
        shot = load_image(self.photos, photo)
        sketch_global, sketch_local = multi_crop(drawn, self.views, self.size, rng)
        photo_global, photo_local = multi_crop(shot, self.views, self.size, rng)
        return {
            "sketch_global": sketch_global,
            "sketch_local": sketch_local,
            "sketch_index": torch.tensor(sketch),
            "photo_global": photo_global,
            "photo_local": photo_local,
            "photo_drawing": drawing_views(shot, self.views, self.size, rng),
            "photo_index": torch.tensor(photo),
        }


def build(recipe: Recipe, prepared: PreparedSet) -> TrainData:
    """Training data of a recipe; raises DataError when a modality has no training images."""
    config, data = recipe.method, recipe.data
    assert isinstance(config, AmaConfig)
    unused = [
        name
        for name, off in (("flip", False), ("crop_scale", 1.0), ("sketch_jitter", 0.0), ("color_jitter", 0.0))
        if getattr(data, name) != off
    ]
    if unused:
        raise UsageError(
            f"data.{unused[0]} does not apply to ama, which makes its own views: remove it and set method.views"
        )
    sketches, photos = (prepared.images(Part.TRAIN, m) for m in (Modality.SKETCH, Modality.PHOTO))
    for images in (sketches, photos):
        if not len(images):
            raise DataError(f"{prepared.root} has no training {images.modality.plural}")
    steps = recipe.train.steps_per_epoch or max(1, len(photos) // recipe.train.batch_size)
    plan = UnpairedPlan(len(sketches), len(photos), recipe.train.batch_size, steps, recipe.train.seed)
    return TrainData(plan, AmaItems(sketches, photos, data, config.views, recipe.train.seed))
