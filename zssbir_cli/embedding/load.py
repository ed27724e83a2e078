"""Opening what a run left behind: its recipe and its trained method."""

from pathlib import Path

import torch

from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.errors import CheckpointError
from zssbir_cli.methods.base import Method
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.recipe.schema import Recipe


def load_run(run: Path, device: torch.device, which: str = "best") -> tuple[Recipe, Method, CheckpointInfo]:
    """The recipe of a run's folder and its method in eval mode, with the weights of `checkpoints/<which>`
    (`best`, `last` or `epoch-NNNN`; a run that was stopped before its first validation has only `last`).

    Raises CheckpointError when there is no such checkpoint or it is damaged.
    """
    recipe_file = run / "recipe.yaml"
    if not recipe_file.is_file():
        raise CheckpointError(f"{run}: not a run's folder (recipe.yaml is missing); see `zssbir runs`")
    recipe = load_recipe(recipe_file)
    folder = run / "checkpoints" / which
    if which == "best" and not folder.exists():
        folder = run / "checkpoints" / "last"
    info = checkpoint.inspect(folder)
    method = build_method(recipe, load_weights=False)
    own = method.retrieval_state()
    weights = {k: v for k, v in checkpoint.load_weights(folder).items() if k in own}
    checkpoint.load_into(method, weights, folder, needed=set(own))
    return recipe, method.to(device).eval(), info


def load_start(recipe: Recipe, device: torch.device) -> Method:
    """The method before training (the pretrained or random start), in eval mode: the baseline of every
    comparison."""
    torch.manual_seed(recipe.train.seed)
    return build_method(recipe).to(device).eval()
