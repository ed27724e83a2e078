"""A recipe's method before training, the baseline of the scripts here."""

import torch

from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.methods.base import Method
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.schema import Recipe


def start_of(recipe: Recipe, device: torch.device) -> Method:
    """The method with its pretrained or random start, in eval mode."""
    seed_all(recipe.train.seed)
    return build_method(recipe).to(device).eval()
