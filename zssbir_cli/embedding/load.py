"""Opening what a run left behind: its recipe and its trained method."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.engine.resume import what_differs
from zssbir_cli.engine.runs import find_checkpoint
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.recipe.schema import Recipe

if TYPE_CHECKING:
    from zssbir_cli.methods.base import Method


def load_run(run: Path, device: torch.device, which: str = "best") -> "tuple[Recipe, Method, CheckpointInfo]":
    """The recipe of a run and its method in eval mode, with the weights of a checkpoint (`find_checkpoint`).

    `CheckpointInfo.which` says which one was taken, `note` what the user should know of that. Raises
    CheckpointError when there is no such checkpoint or it is damaged.
    """
    recipe, info = open_checkpoint(run, which)
    method = build_method(recipe, load_weights=False)
    own = method.retrieval_state()
    weights = {k: v for k, v in checkpoint.read_weights(info.path).items() if k in own}
    checkpoint.load_into(method, weights, info.path, needed=set(own))
    return recipe, method.to(device).eval(), info


def open_checkpoint(run: Path, which: str = "best", *, verify: bool = True) -> tuple[Recipe, CheckpointInfo]:
    """The recipe and the facts of a checkpoint, without its weights. Raises CheckpointError."""
    chosen = find_checkpoint(run, which)
    info = checkpoint.inspect(chosen.path, verify=verify)
    recipe, note = recipe_of(run, info)
    return recipe, replace(info, note="; ".join(n for n in (chosen.note, note) if n))


def recipe_of(run: Path, info: CheckpointInfo) -> tuple[Recipe, str]:
    """The recipe that the checkpoint was trained with, and a note if the run's recipe.yaml says otherwise.

    Only where the data set lies, and the like, is taken from recipe.yaml. Raises CheckpointError.
    """
    file = run / "recipe.yaml"
    written: Recipe | None = None
    with suppress(UsageError):
        written = load_recipe(file)
    try:
        trained = Recipe.model_validate(info.recipe)
    except ValidationError:
        if written is None:
            raise CheckpointError(
                f"{info.path}: its recipe is from an incompatible zssbir version, and {file} cannot be read"
            ) from None
        return written, ""
    if written is None:
        return trained, f"{file} cannot be read: the checkpoint's own recipe is used"
    edited = what_differs(info, written.model_dump(mode="json"))
    here = {"root": written.data.root, "workers": written.data.workers}
    recipe = trained.model_copy(update={"data": trained.data.model_copy(update=here)})
    if not edited:
        return recipe, ""
    return (
        recipe,
        f"{file} was changed after training ({'; '.join(map(str, edited[:3]))}): the checkpoint's values are used",
    )
