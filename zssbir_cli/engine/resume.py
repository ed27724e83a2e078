"""Saving and restoring a run's whole state, and refusing to go on with something else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.step import Stepper
from zssbir_cli.errors import CheckpointError, DivergedError
from zssbir_cli.recipe.schema import Recipe

FREE_KEYS = (
    "name",
    "description",
    "data.root",
    "data.workers",
    "train.checkpoint_every",
    "train.keep_every",
    "train.validate_every",
    "train.compile",
)
"""Keys of a recipe that may differ between a run and its continuation: they do not change what is learnt."""


def differing_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for each value that differs between two nested mappings."""
    a, b = _flat(old), _flat(new)
    absent = "(absent)"
    return [
        f"{key}: {a.get(key, absent)} -> {b.get(key, absent)}"
        for key in sorted(a.keys() | b.keys())
        if a.get(key, absent) != b.get(key, absent)
    ]


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            result |= _flat(item, f"{prefix}{key}.")
        else:
            result[prefix + key] = list(item) if isinstance(item, tuple) else item
    return result


def migrated(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe as an older version of this package wrote it, with the keys that have been added since.

    A new key's default must mean what was done before there was the key. A recipe that no longer reads as one
    comes back as it is.
    """
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def check_same(info: CheckpointInfo, run: RunDir) -> None:
    """Raise CheckpointError when the checkpoint comes from another recipe or data set than the run has
    now."""
    old, new = migrated(info.recipe), migrated(run.recipe)
    changed = [d for d in differing_keys(old, new) if d.split(":")[0] not in FREE_KEYS]
    changed += [f"data set {d}" for d in differing_keys(info.data, run.data)]
    if changed:
        shown = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise CheckpointError(
            f"{info.path}: was trained with other settings ({shown}): resume with "
            "the run's own recipe, or start a new run"
        )


class Saver:
    """Knows all pieces of a run's state; rank 0 writes, every rank reads."""

    def __init__(self, stepper: Stepper, run: RunDir) -> None:
        self.method, self.optimizer, self.scaler = stepper.method, stepper.optimizer, stepper.scaler
        self.ema, self.monitor, self.precision = stepper.ema, stepper.monitor, stepper.precision.name
        self.run, self.last = run, run.checkpoints / "last"

    def save(self, state: Mapping[str, Any], epoch: int) -> str | None:
        """Write `checkpoints/last`. Returns what went wrong, if anything (the one before is then intact).

        Raises DivergedError, before writing, when a weight is not finite.
        """
        pending, monitor = self.monitor.pending(), self.monitor.state()
        self._check_finite()
        if not distributed.is_main():
            return None
        weights, extra = self.method.state_dict(), {}
        if self.ema is not None:
            extra = {"weights": {k: weights[k] for k in self.ema.average}, "ema_updates": self.ema.updates}
            weights = {**weights, **self.ema.average}
        full = {
            "state": dict(state),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pending": pending,
            "monitor": monitor,
            **extra,
        }
        try:
            checkpoint.save(self.last, weights, full, self._facts(state, epoch), keep_previous=True)
        except CheckpointError as error:
            return str(error)
        return None

    def save_best(self, state: Mapping[str, Any], epoch: int) -> str | None:
        """Write `checkpoints/best` from the weights that the method holds now: only what retrieval needs."""
        if not distributed.is_main():
            return None
        try:
            best = self.run.checkpoints / "best"
            checkpoint.save(best, self.method.retrieval_state(), None, self._facts(state, epoch))
        except CheckpointError as error:
            return str(error)
        return None

    def keep(self, name: str) -> str | None:
        """Keep the last checkpoint under another name too."""
        if not distributed.is_main():
            return None
        try:
            checkpoint.copy(self.last, self.run.checkpoints / name)
        except CheckpointError as error:
            return str(error)
        return None

    def _facts(self, state: Mapping[str, Any], epoch: int) -> dict[str, Any]:
        return {
            "step": state["step"],
            "epoch": epoch,
            "recipe": dict(self.run.recipe),
            "data": dict(self.run.data),
            "metrics": state["metrics"],
            "precision": self.precision,
        }

    def _check_finite(self) -> None:
        bad = [(~torch.isfinite(p.detach())).any() for p in self.method.parameters()]
        bad += [torch.isnan(b).any() for b in self.method.buffers()]  # a mask may well hold infinities
        if bool(torch.stack(bad).any()):
            raise DivergedError(
                "weights or buffers are not a number, though the loss was one: a gradient overflowed; the "
                "last checkpoint is from before: lower optim.lr or set optim.clip_norm"
            )

    def restore(self, source: Path | None = None) -> dict[str, Any] | None:
        """Load `source` (default: `checkpoints/last`, or the one before where a kill left no `last`) into all
        pieces.

        Returns the run's state, None if it was ended before its first checkpoint. Raises CheckpointError.
        """
        path = source or self.last
        if source is None and not path.exists():
            path = checkpoint.previous(path)
            if not path.exists():
                return None
        info = checkpoint.inspect(path)
        check_same(info, self.run)
        if info.precision != self.precision:
            raise CheckpointError(
                f"{path}: was trained in {info.precision} and this machine would use {self.precision}: add "
                f"--set train.precision={info.precision}, or start a new run"
            )
        full = checkpoint.load_state(path)
        weights = checkpoint.load_weights(path)
        own: dict[str, Tensor] = full.get("weights", {})
        checkpoint.load_into(self.method, {**weights, **own}, path, needed=set(self.method.state_dict()))
        self.optimizer.load_state_dict(full["optimizer"])
        self.scaler.load_state_dict(full["scaler"])
        self.monitor.restore(full["monitor"], full["pending"])
        if self.ema is not None:
            self.ema.updates = int(full["ema_updates"])
            for name, average in self.ema.average.items():
                average.copy_(weights[name])
        state: dict[str, Any] = full["state"]
        return state
