"""The table of methods: name -> its folder. A new method adds one line here."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zssbir_cli.data.prepared import PreparedSet
    from zssbir_cli.methods.base import Method, TrainData
    from zssbir_cli.recipe.schema import Recipe

METHODS = {
    "triplet": "zssbir_cli.methods.triplet",
    "puxim": "zssbir_cli.methods.puxim",
    "ama": "zssbir_cli.methods.ama",
}


def build_method(recipe: "Recipe", *, load_weights: bool = True) -> "Method":
    """Build the recipe's method; `load_weights=False` skips pretrained weights (a checkpoint follows)."""
    method: Method = import_module(METHODS[recipe.method.name] + ".method").build(recipe, load_weights)
    return method


def build_train_data(recipe: "Recipe", prepared: "PreparedSet") -> "TrainData":
    """Build what the recipe's method trains on from a prepared data set's `train` part."""
    data: TrainData = import_module(METHODS[recipe.method.name] + ".data").build(recipe, prepared)
    return data
