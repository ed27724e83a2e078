"""The recipe that a training will follow, checked together with its data set. Imports no torch."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from zssbir_cli.benchmarks.splits import source_of
from zssbir_cli.engine.runs import find_run, has_checkpoint
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import check_writable
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.models.known import check_clip_name, check_timm_name, check_weight_file
from zssbir_cli.names import listed, suggestion
from zssbir_cli.recipe.loader import dump_recipe, find_recipe, load_recipe, parse_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.recipe.settings import check_act, check_agree, idle_keys
from zssbir_cli.types import AnyPath

log = logging.getLogger("zssbir")

Settings = Sequence[str] | Mapping[str, object]
"""Changes of a recipe: texts `section.key=value`, or keys and values."""


def choose_recipe(
    recipe: AnyPath | None = None,
    *,
    data: AnyPath | None = None,
    settings: Settings = (),
    resume: AnyPath | None = None,
    runs: AnyPath = "runs",
) -> Recipe:
    """A recipe by name or file (None: that of the run `resume`), with `settings` and the data set `data`.

    Errors: UsageError (no such recipe or run, a wrong key or value), DataError (no data set there).
    """
    given = {f"--set {change}": change for change in overrides(settings)}
    if data is not None:
        given[f"--data {data}"] = f"data.root={json.dumps(str(data))}"
    check_agree(given.items())
    changes = list(given.values())
    if resume is not None:
        check_resumable(resume, Path(runs))
    if recipe is not None:
        path = find_recipe(str(recipe))
        chosen = load_recipe(path, changes)
        _tell_idle(path)
    elif resume is not None:
        chosen = _resumed(resume, Path(runs), changes)
    else:
        raise UsageError("give --recipe NAME (see `zssbir recipes`), or --resume RUN")
    check_act(given.items(), chosen)
    check_data(chosen)
    return chosen


def _tell_idle(path: Path) -> None:
    """Say which keys of a recipe's file mean nothing beside its other keys; --set may switch off what they are for."""
    with suppress(UsageError):  # incomplete without --set
        if idle := idle_keys(load_recipe(path)):
            told = "; ".join(f"{key} has no effect without {needs}" for key, needs in idle.items())
            log.warning("%s: %s", path, told)


def check_runs(runs: Path) -> None:
    """Refuse a folder in which no run can be made, on the process that makes it. Errors: DataError."""
    if os.environ.get("RANK", "0") == "0":
        check_writable(runs, "; choose another with --runs", folder=True)


def check_resumable(resume: AnyPath, runs: Path) -> None:
    """Refuse what is no run, and an exported one, which would be trained where it is unpacked. Errors: UsageError."""
    if Path(resume).suffix.lower() == ".zip":
        raise UsageError(
            f"{resume}: an exported run holds no state to continue from; resume the run's folder"
        )
    find_run(resume, runs)


def overrides(settings: Settings) -> list[str]:
    """Changes of a recipe as texts.

    >>> overrides({"optim.lr": 1e-4, "model.weights": "none"})
    ['optim.lr=0.0001', 'model.weights="none"']
    """
    if isinstance(settings, Mapping):
        return [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    return list(settings)


def check_data(recipe: Recipe) -> None:
    """Refuse a recipe whose data set is not there, with the command that makes it. Errors: DataError."""
    root = Path(recipe.data.root).expanduser()
    if not (root / "manifest.json").is_file():
        raise DataError(
            f"{root}: no prepared data set here; run `zssbir prepare {source_of(root.name)}` first, "
            f"or name yours with --data FOLDER (the recipe's data.root){neighbour(root)}"
        )


def check_names(recipe: Recipe) -> None:
    """Refuse a backbone, a CLIP or a weight file that is not there, as far as can be told without torch.

    Errors: UsageError, CheckpointError.
    """
    check_timm_name(recipe.model.backbone)
    if recipe.model.weights not in ("pretrained", "none"):
        check_weight_file(recipe.model.weights)
    if isinstance(recipe.method, PuximConfig) and recipe.method.masks in ("cached", "online"):
        check_clip_name(recipe.method.vxl.model, recipe.method.vxl.weights)


def neighbour(root: Path) -> str:
    """`; did you mean 'data/cats'?` for the prepared set beside `root` whose name is closest, else those that are there, else
    an empty text."""
    with suppress(OSError):
        beside = [str(p) for p in root.parent.iterdir() if (p / "manifest.json").is_file()]
        there = f"; prepared sets here: {listed(sorted(beside), 4)}" if beside else ""
        return suggestion(str(root), beside) or there
    return ""


def _resumed(resume: AnyPath, runs: Path, changes: list[str]) -> Recipe:
    """The recipe of a run; where its file is damaged, the one in its checkpoint."""
    run = find_run(resume, runs).path
    file = run / "recipe.yaml"
    try:
        load_recipe(file)
    except UsageError:
        if not has_checkpoint(run):
            raise
        from zssbir_cli.embedding.weights import open_checkpoint

        recipe, _ = open_checkpoint(run, "last", verify=False)
        return parse_recipe(dump_recipe(recipe), f"{run}/checkpoints/last/meta.json", changes)
    return load_recipe(file, changes)
