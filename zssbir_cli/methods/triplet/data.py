"""What the triplet baseline trains on: rows of a sketch and a photo of its class."""

from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.inputs.datasets import RowItems
from zssbir_cli.inputs.sampling import RowPlan
from zssbir_cli.methods.base import TrainData
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part


def rows(
    recipe: Recipe, prepared: PreparedSet, classes_per_batch: int | None, negatives: int = 0
) -> tuple[RowPlan, ImageSet, ImageSet]:
    """The plan over the `train` part (seen classes only), and its sketches and photos."""
    sketches, photos = (prepared.images(Part.TRAIN, modality) for modality in Modality)
    plan = RowPlan.build(
        sketches.labels, photos.labels, batch_size=recipe.train.batch_size, seed=recipe.train.seed,
        steps_per_epoch=recipe.train.steps_per_epoch, negatives=negatives, classes_per_batch=classes_per_batch,
    )  # fmt: skip
    return plan, sketches, photos


def build(recipe: Recipe, prepared: PreparedSet) -> TrainData:
    """Plan and items."""
    assert isinstance(recipe.method, TripletConfig)
    plan, sketches, photos = rows(recipe, prepared, recipe.method.classes_per_batch)
    views = recipe.data.model_copy(update={"size": recipe.method.train_size or recipe.data.size})
    return TrainData(plan, RowItems(sketches, photos, views, recipe.train.seed))
