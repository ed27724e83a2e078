"""Which weights retrieval uses, and which of them are the best so far."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from zssbir_cli.compute import distributed
from zssbir_cli.engine.averages import SHARES
from zssbir_cli.engine.job import Job, State, Validate
from zssbir_cli.engine.resume import Saver
from zssbir_cli.engine.step import Stepper

SELECT = "val/mAP@all"
"""The value that selects the best checkpoint: mAP@all on the held-out seen classes."""


def _score(metrics: Mapping[str, float]) -> float:
    """What selects the best; a value that is not a number loses to any other."""
    value = metrics[SELECT]
    return value if math.isfinite(value) else -math.inf


class Selection:
    """Validates the retrieval weights, and keeps the best in `checkpoints/best`; what it finds goes into `state`."""

    def __init__(self, job: Job, stepper: Stepper, saver: Saver, state: State) -> None:
        self.method, self.probe, self.auto = job.method, job.probe, job.train.blend == "auto"
        self.stepper, self.saver, self.state = stepper, saver, state
        self.best: dict[str, float] = distributed.from_main(
            saver.waiting.metrics if saver.waiting else state.best
        )
        """The best validation so far, whether its weights could be written or not."""

    @contextmanager
    def weights(self) -> Iterator[None]:
        """The method holds the weights that retrieval uses (averaged, blended), ready to embed."""
        with ExitStack() as stack, torch.no_grad():
            self.stepper.eval_mode()
            if self.stepper.ema:
                stack.enter_context(self.stepper.ema.applied())
            if self.stepper.blend:
                stack.enter_context(self.stepper.blend.applied(self.state.blend))
            self.method.before_retrieval(self.probe)
            yield
        self.stepper.train_mode()

    def measure(self) -> None:
        """Let the method measure what belongs to the retrieval weights (`before_retrieval`), for the checkpoint of an
        epoch that is not validated."""
        with self.weights():
            pass

    def take_last(self, epoch: int) -> str | None:
        """The last weights are the best: nothing validates. Returns what went wrong, if anything."""
        with self.weights():
            return self._save(epoch)

    def validate(self, validate: Validate, epoch: int) -> str | None:
        """Measure the retrieval weights (`train.blend: auto`: at each share, the best one stays) and keep them if
        they are the best so far. Returns what went wrong, if anything."""
        found = []
        for share in SHARES if self.auto else (self.state.blend,):
            self.state.blend = share
            with self.weights():
                values = distributed.from_main(validate(self.method))
            found.append({**values, "val/blend": share} if self.stepper.blend else values)
        metrics = max(found, key=_score)
        self.state.blend = metrics.get("val/blend", self.state.blend)
        self.state.metrics = dict(metrics)
        better = not self.best or _score(metrics) > _score(self.best)
        if better or self.auto:  # the share that was tried last need not be the one that stays
            with self.weights():
                return self._save(epoch) if better else None
        return None

    def _save(self, epoch: int) -> str | None:
        """Write `checkpoints/best`; what cannot be written now is kept for `retry`."""
        state = self.state
        self.best = dict(state.metrics)
        problem = self.saver.save_best(state.metrics, state.step, epoch)
        if problem is None:
            state.best, state.best_step = dict(state.metrics), state.step
        return problem

    def retry(self) -> str | None:
        """Write a best checkpoint that could not be written before. Returns what went wrong, if anything."""
        metrics, step, problem = self.saver.retry_best()
        if step >= 0 and problem is None:
            self.state.best, self.state.best_step = metrics, step
        return problem
