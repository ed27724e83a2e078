"""Whose weights are meant: the run or the model that the user named, else the newest run, else a tower at hand."""

from pathlib import Path

import torch

from zssbir_cli.embedding.embedder import BATCH, Embedder
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights
from zssbir_cli.engine.runs import any_checkpoint, find_run
from zssbir_cli.errors import UsageError
from zssbir_cli.models.known import TOWERS
from zssbir_cli.models.towers import cached_tower


def choose_weights(
    run: str | Path | None = None, model: str | None = None, runs: Path = Path("runs"), which: str = "best"
) -> Weights:
    """The weights that are meant: `run` as `find_run` takes it, or `model` as `find_tower` takes it.

    With neither, the latest run under `runs`; where there is none, a tower whose weights are on this machine.
    Errors: UsageError (both given, or nothing there), CheckpointError.
    """
    if run is not None and model is not None:
        raise UsageError("--run and --model: give one of them")
    if run is None and model is None and not any_checkpoint(runs):
        model = cached_tower()
        if model is None:
            raise UsageError(
                f"{runs}: no run with a checkpoint here yet, and no tower's weights on this machine; search without training "
                f"with --model NAME (downloads it once: {', '.join(TOWERS)}; or a weight file), or train with `zssbir train`"
            )
    if model is not None:
        return TowerWeights.find(model)
    chosen = find_run(run, runs, which)
    return RunWeights.open(chosen.path, chosen.which)


def open_embedder(
    device: torch.device,
    *,
    run: str | Path | None = None,
    model: str | None = None,
    runs: Path = Path("runs"),
    which: str = "best",
    precision: str = "auto",
    workers: int | None = None,
    batch: int = BATCH,
) -> Embedder:
    """An embedder of the weights that are meant (`choose_weights`). Errors: UsageError, CheckpointError."""
    weights = choose_weights(run, model, runs, which)
    return Embedder.of(weights, device, precision=precision, workers=workers, batch=batch)
