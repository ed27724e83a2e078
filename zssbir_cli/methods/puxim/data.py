"""What PuXIM trains on: rows of a sketch, a photo of its class and a photo of another class (or none), with score
maps that move along with every crop and flip of their photo."""

from pathlib import Path

import torch
from torch import Tensor

from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.scores import Scores, read_scores
from zssbir_cli.inputs.datasets import RowItems, crop_map, item_rng, load_image
from zssbir_cli.methods.base import TrainData
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.puxim.vxl import ensure_scores
from zssbir_cli.methods.triplet.data import rows
from zssbir_cli.recipe.schema import DataConfig, Recipe


class PuximItems(RowItems):
    """Items `sketch` [1, S, S], `photo` and `negative` [3, S, S] (uint8), `photo_label` and `negative_label`,
    and with scores `photo_scores` and `negative_scores`, float32 [h, w] on the grid of the scores; the
    negative is there when the plan draws one."""

    def __init__(
        self, sketches: ImageSet, photos: ImageSet, config: DataConfig, seed: int, scores: Scores | None
    ) -> None:
        super().__init__(sketches, photos, config, seed)
        self.scores = scores

    def __getitem__(self, key: tuple[int, int, tuple[int, ...]]) -> dict[str, Tensor]:
        epoch, position, (sketch, *shown) = key
        rng = item_rng(self.seed, epoch, position)
        item = {"sketch": self.sketch(sketch, rng)}
        for name, photo in zip(("photo", "negative"), shown, strict=False):
            item[name], crop = self.augment.photo(load_image(self.photos, photo), rng)
            item[f"{name}_label"] = torch.tensor(int(self.photos.labels[photo]))
            if self.scores is not None:
                item[f"{name}_scores"] = crop_map(torch.from_numpy(self.scores.read(photo)), crop)
        return item


def build(recipe: Recipe, prepared: PreparedSet) -> TrainData:
    """Plan and items over the `train` part (seen classes only); computes cached scores that are missing."""
    config = recipe.method
    assert isinstance(config, PuximConfig)
    negatives = 1 if config.negatives == "drawn" else 0
    plan, sketches, photos = rows(recipe, prepared, config.classes_per_batch, negatives)
    scores = load_scores(config, prepared, len(photos))
    return TrainData(plan, PuximItems(sketches, photos, recipe.data, recipe.train.seed, scores))


def load_scores(config: PuximConfig, prepared: PreparedSet, count: int) -> Scores | None:
    """Score maps as `masks` says; None when the training step needs none or makes its own."""
    if config.masks in ("none", "online"):
        return None
    if config.masks == "cached":
        return ensure_scores(config.vxl, prepared)
    return read_scores(Path(config.masks).expanduser(), data=prepared.identity, count=count)
