"""Saving and restoring a run's whole state, and refusing to resume something else."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.changes import FREE_KEYS, Change, changes
from zssbir_cli.engine.checkpoint import META, CheckpointInfo
from zssbir_cli.engine.provenance import Learnt
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.step import Stepper
from zssbir_cli.errors import CheckpointError, DivergedError
from zssbir_cli.recipe.schema import Recipe

LEFT_OPEN = ("model.mean", "model.std")
"""Keys that a recipe may leave to the model; the run's own recipe says what came of it."""


def migrated(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recipe as an older version of this package wrote it, with the keys that have been added since.

    A new key's default must mean what was done before there was the key. A recipe that no longer reads as one
    comes back as it is.
    """
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe


def check_resume(run: RunDir, source: Path | None = None) -> Path | None:
    """The checkpoint to resume from: `source`, or `last`, or the one before where a kill left no `last`; None when
    the run was ended before its first one.

    Raises CheckpointError, before anything is written, when it belongs to another recipe or data set, or when `last` has
    been removed and starting over would overwrite what else there is.
    """
    path = source or run.checkpoints / "last"
    if source is None and not path.exists():
        path = checkpoint.previous(path)
        if not path.exists():
            _check_nothing_lost(run)
            return None
    check_same(checkpoint.inspect(path, verify=False), run)
    return path


def _check_nothing_lost(run: RunDir) -> None:
    """A kill at the end of the first epoch leaves `best` without `last`; later on nothing does."""
    for meta in sorted(run.checkpoints.glob(f"*/{META}")):
        info = checkpoint.inspect(meta.parent, verify=False)
        if info.epoch > 1:
            raise CheckpointError(
                f"{run.checkpoints / 'last'} is gone, and without its state the run cannot be continued (starting over would "
                f"overwrite {meta.parent.name}, of epoch {info.epoch}); start a new run"
            )


def check_same(info: CheckpointInfo, run: RunDir) -> None:
    """Raise CheckpointError when the checkpoint comes from another recipe or data set than the run has
    now."""
    changed = [str(c) for c in what_differs(info, run.recipe)]
    here = Learnt.read(run.data)
    if info.learnt.identity != here.identity:
        changed.append(f"data set identity: {info.learnt.identity} -> {here.identity}")
    if changed:
        shown = "; ".join(changed[:6]) + (f"; and {len(changed) - 6} more" if len(changed) > 6 else "")
        raise CheckpointError(
            f"{info.path}: was trained with other settings ({shown}): resume with "
            "the run's own recipe, or start a new run"
        )


def what_differs(info: CheckpointInfo, recipe: Mapping[str, Any]) -> list[Change]:
    """What differs between a checkpoint's recipe and another one, apart from `FREE_KEYS`; a mean or std that one of
    them leaves to the model does not count."""
    differ = changes(migrated(info.recipe), migrated(recipe))
    return [
        c for c in differ if c.key not in FREE_KEYS and not (c.key in LEFT_OPEN and None in (c.old, c.new))
    ]


def continues(info: CheckpointInfo, recipe: Recipe) -> bool:
    """Whether training by `recipe` may continue from a checkpoint."""
    return not what_differs(info, recipe.model_dump(mode="json"))


@dataclass(frozen=True)
class Best:
    """A best checkpoint that could not be written yet: its metrics, step and epoch, and its weights."""

    metrics: dict[str, float]
    step: int
    epoch: int
    weights: dict[str, Tensor]


class Saver:
    """Knows all pieces of a run's state; rank 0 writes, every rank reads."""

    def __init__(self, stepper: Stepper, run: RunDir) -> None:
        self.method, self.optimizer, self.scaler = stepper.method, stepper.optimizer, stepper.scaler
        self.ema, self.monitor, self.precision = stepper.ema, stepper.monitor, stepper.precision.name
        self.blend = stepper.blend
        self.run, self.last, self.best = run, run.checkpoints / "last", run.checkpoints / "best"
        self.waiting: Best | None = None
        """The best so far, while it cannot be written (rank 0)."""

    def save(self, state: Mapping[str, Any], epoch: int) -> str | None:
        """Write `checkpoints/last`. Returns what went wrong, if anything (the one before is then intact).

        Raises DivergedError, before writing, when a weight is not finite.
        """
        pending, monitor = self.monitor.pending(), self.monitor.state()
        self._check_finite()
        if not distributed.is_main():
            return None
        weights, extra = self._for_retrieval(float(state["blend"]))
        full = {
            "state": dict(state),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "pending": pending,
            "monitor": monitor,
            **extra,
        }
        if self.waiting is not None:
            full["waiting"] = vars(self.waiting)
        try:
            checkpoint.save(self.last, weights, full, self._facts(state, epoch), keep_previous=True)
        except CheckpointError as error:
            return str(error)
        return None

    def _for_retrieval(self, share: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The weights that retrieval uses (averaged, blended), and what else resuming needs to undo that."""
        own = self.method.state_dict()
        used, extra = own, dict[str, Any]()
        if self.ema is not None:
            extra["ema_updates"] = self.ema.updates
            used = {**used, **self.ema.average}
        if self.blend is not None:
            extra |= {"start": self.blend.start, "average": self.ema.average if self.ema else {}}
            used = {**used, **self.blend.of(used, share)}
        changed = {name: tensor for name, tensor in own.items() if used[name] is not tensor}
        return used, {**extra, "weights": changed}

    def save_best(self, metrics: Mapping[str, float], step: int, epoch: int) -> str | None:
        """Write `checkpoints/best` from the weights that the method holds now: only what retrieval needs.

        Returns what went wrong, if anything, on every rank: the weights are then kept for `retry_best`.
        """
        problem = None
        if distributed.is_main():
            self.waiting = Best(dict(metrics), step, epoch, self.method.retrieval_state())
            problem = self._write_best(self.waiting)
            if problem:
                kept = {k: v.detach().to("cpu", copy=True) for k, v in self.waiting.weights.items()}
                self.waiting = Best(dict(metrics), step, epoch, kept)
        return distributed.from_main(problem)

    def retry_best(self) -> tuple[dict[str, float], int, str | None]:
        """Write a best checkpoint that is waiting: its metrics and step (of none: {}, -1), and what went wrong."""
        found: tuple[dict[str, float], int, str | None] = {}, -1, None
        if self.waiting is not None:
            best = self.waiting
            found = best.metrics, best.step, self._write_best(best)
        return distributed.from_main(found)

    def _write_best(self, best: Best) -> str | None:
        facts = self._facts({"step": best.step, "metrics": best.metrics, "best_step": best.step}, best.epoch)
        try:
            checkpoint.save(self.best, best.weights, None, facts)
        except CheckpointError as error:
            return str(error)
        self.waiting = None
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
            "best_step": state["best_step"],
            "precision": self.precision,
        }

    def _check_finite(self) -> None:
        bad = [(~torch.isfinite(p.detach())).any() for p in self.method.parameters()]
        bad += [torch.isnan(b).any() for b in self.method.buffers()]  # a mask may well hold infinities
        if bool(torch.stack(bad).any()):
            raise DivergedError(
                "weights or buffers are NaN although the loss was finite: a gradient overflowed; "
                "checkpoints from before are unharmed: lower optim.lr or set optim.clip_norm"
            )

    def restore(self, source: Path | None = None) -> dict[str, Any] | None:
        """Load `source` (default: `checkpoints/last`, or the one before where a kill left no `last`) into all
        pieces.

        Returns the run's state, None if it was ended before its first checkpoint. Raises CheckpointError.
        """
        path = check_resume(self.run, source)
        if path is None:
            return None
        info = checkpoint.inspect(path)
        if info.precision != self.precision:
            raise CheckpointError(
                f"{path}: was trained in {info.precision} and this machine would use {self.precision}: add "
                f"--set train.precision={info.precision}, or start a new run"
            )
        full = checkpoint.load_state(path)
        weights = checkpoint.read_weights(path)
        own: dict[str, Tensor] = full.get("weights", {})
        checkpoint.load_into(self.method, {**weights, **own}, path, needed=set(self.method.state_dict()))
        self.optimizer.load_state_dict(full["optimizer"])
        self.scaler.load_state_dict(full["scaler"])
        self.monitor.restore(full["monitor"], full["pending"])
        if self.ema is not None:
            self.ema.updates = int(full["ema_updates"])
            averages = full.get("average", weights)  # without a blend they are the stored weights
            for name, average in self.ema.average.items():
                average.copy_(averages[name])
        if self.blend is not None:
            self.blend.restore(full["start"])
        state: dict[str, Any] = full["state"]
        if "waiting" in full and distributed.is_main():
            self.waiting = Best(**full["waiting"])
        there = distributed.is_main() and checkpoint.restore_previous(self.best)
        if not distributed.from_main(
            there
        ):  # the best that `state` speaks of is gone: the next validation writes one
            state["best"], state["best_step"] = {}, -1
        return state
