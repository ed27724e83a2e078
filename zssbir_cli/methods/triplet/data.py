"""What the triplet baseline trains on: rows of a sketch and a photo of its class."""

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.inputs.datasets import RowItems
from zssbir_cli.inputs.sampling import RowPlan
from zssbir_cli.methods.base import TrainData
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part


def build(recipe: Recipe, prepared: PreparedSet) -> TrainData:
    """Plan and items over the `train` part (seen classes only)."""
    assert isinstance(recipe.method, TripletConfig)
    sketches = prepared.images(Part.TRAIN, Modality.SKETCH)
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    plan = RowPlan.build(
        sketches.labels,
        photos.labels,
        batch_size=recipe.train.batch_size,
        steps_per_epoch=recipe.train.steps_per_epoch,
        seed=recipe.train.seed,
        classes_per_batch=recipe.method.classes_per_batch,
    )
    views = recipe.data.model_copy(update={"size": recipe.method.train_size or recipe.data.size})
    return TrainData(plan, RowItems(sketches, photos, views, recipe.train.seed))
