"""The training loop: `fit`, the only one there is."""

import dataclasses
import time
from pathlib import Path
from typing import NoReturn

from zssbir_cli.compute import distributed
from zssbir_cli.compute.memory import out_of_memory
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.engine.averages import first_share
from zssbir_cli.engine.job import FitResult, Job, State
from zssbir_cli.engine.loader import Stream, training_stream
from zssbir_cli.engine.report import Hooks, Reporter, Silent
from zssbir_cli.engine.resume import Saver
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.selection import Selection
from zssbir_cli.engine.step import Stepper, lr_at
from zssbir_cli.engine.stop import StopRequest, on_signals
from zssbir_cli.errors import CheckpointError, DataError, Interrupted, UsageError
from zssbir_cli.methods.base import Batch, Position


def fit(job: Job, run: RunDir, *, hooks: Hooks | None = None, resume: bool | Path = False) -> FitResult:
    """Train `job.method` and leave checkpoints and metrics in `run`.

    With `resume` (true, or the folder of a checkpoint) the run continues from `checkpoints/last`, bit for bit
    on a CPU: every step draws its random numbers from (seed, step, rank), items from (seed, epoch, position),
    and what else matters is in the checkpoint. `job.validate` is called with the weights that retrieval will
    use; its `val/mAP@all` selects `checkpoints/best`.

    Raises Interrupted after SIGTERM or Ctrl-C (state saved), DivergedError, DataError, CheckpointError,
    UsageError.
    """
    return _Fit(job, run, hooks or Silent()).run(resume)


class _Fit:
    """One call of `fit`: the pieces that its phases share."""

    def __init__(self, job: Job, run: RunDir, hooks: Hooks) -> None:
        self.job, self.train, self.accumulate, self.run_dir = job, job.train, job.optim.accumulate, run
        distributed.local_rows(job.train.batch_size)
        self.batches = job.data.plan.steps_per_epoch
        self.per_epoch = -(-self.batches // self.accumulate)
        self.total = self.per_epoch * job.train.epochs
        self.report_every = max(1, min(50, self.per_epoch // 10))
        self.state = State(blend=first_share(job.train, job.validate is not None))
        self.stepper = Stepper(job.method, job.optim, job.train, job.precision)
        self.monitor = self.stepper.monitor
        self.saver = Saver(self.stepper, run)
        self.reporter = Reporter(
            run,
            hooks,
            total=self.total,
            epochs=job.train.epochs,
            items=job.train.batch_size * self.batches / self.per_epoch,
            device=job.precision.device,
        )
        self.stream: Stream | None = None
        self.pointed = False

    def run(self, resume: bool | Path) -> FitResult:
        if resume:
            saved = self.saver.restore(resume if isinstance(resume, Path) else None)
            self.state = State(**saved) if saved else self.state
            where = f"resumed at step {self.state.step} of {self.total}"
            self.reporter.note(
                where if saved else "this run has no checkpoint yet: starting from the beginning"
            )
        self.selection = Selection(self.job, self.stepper, self.saver, self.state)
        self.run_dir.trim(self.state.rows)
        self.before = self.state.seconds
        self.stepper.wrap()
        self.reporter.start(self.state.step)
        if distributed.from_main(self.saver.waiting is not None):
            self._save()  # the best so far could not be written when the run was stopped
        try:
            with on_signals() as stop:
                self._epochs(stop)
        except (RuntimeError, MemoryError, OSError) as error:
            if not out_of_memory(error):
                raise
            raise UsageError(self._memory_advice()) from error
        finally:
            if self.stream is not None:
                self.stream.close()
        result = self._result()
        if self.reporter.first < self.total or not self.run_dir.record().get("finished"):
            # else a finished run was resumed, which changes nothing
            self._complain(self.run_dir.update_record({"finished": dataclasses.asdict(result)}))
        return result

    def _epochs(self, stop: StopRequest) -> None:
        for epoch in range(self.state.epochs_ended, self.train.epochs):
            if self.state.step == epoch * self.per_epoch:
                self._begin_epoch(epoch)
            self.stream = self.stream or self._open_stream()
            while self.state.step < (epoch + 1) * self.per_epoch:
                asked = self._step(epoch, bool(stop))
                if self.state.step % self.report_every == 0:
                    self._report()
                if asked:
                    self._save(must=True)
                    self._leave(stop)
                every = self.train.checkpoint_every
                if every and self.state.step % every == 0 and self.state.step % self.per_epoch:
                    self._save()
            self._end_epoch(epoch, stop)
            if stop and distributed.world_size() == 1 and epoch + 1 < self.train.epochs:
                self._leave(stop)  # asked during validation: do not begin what the next epoch begins with

    def _open_stream(self) -> Stream:
        epoch, group = divmod(self.state.step, self.per_epoch)
        return training_stream(
            self.job.data,
            first=epoch * self.batches + group * self.accumulate,
            stop=self.train.epochs * self.batches,
            workers=self.job.workers,
            pin=self.job.precision.device.type == "cuda",
            overfit=self.job.overfit,
        )

    def _begin_epoch(self, epoch: int) -> None:
        seed_all(self.train.seed, -1 - epoch)  # the same on every rank
        start = time.perf_counter()
        values = self.job.method.before_epoch(epoch, self.job.probe)
        self.stepper.train_mode()
        self.reporter.pause(start)
        if values:
            self.reporter.log(self.state.step, values)

    def _step(self, epoch: int, stop: bool) -> bool:
        """One optimizer step. Returns whether to stop after it."""
        step = self.state.step
        progress = Position(step, self.total, epoch, self.train.epochs)
        done = step % self.per_epoch * self.accumulate
        count = min(self.accumulate, self.batches - done)
        asked = self.stepper.step(self._next_batch, count, progress, stop)
        self.state.step += 1
        return asked

    def _next_batch(self, number: int) -> Batch:
        assert self.stream is not None
        try:
            batch: Batch = next(self.stream)
        except DataError as error:
            if number or distributed.world_size() > 1 or self.state.step == self.reporter.first:
                raise
            self._save()
            raise DataError(
                f"{error} (progress is saved: continue with --resume {self.run_dir.path})"
            ) from error
        return batch

    def _end_epoch(self, epoch: int, stop: StopRequest) -> None:
        self.monitor.drain()
        start = time.perf_counter()
        every, last = self.train.validate_every, epoch + 1 == self.train.epochs
        if self.job.validate is None or not every:
            self._complain(self.selection.take_last(epoch + 1))
        elif (epoch + 1) % every == 0 or last:
            self._complain(self.selection.validate(self.job.validate, epoch + 1))
            self.reporter.validated(self.state.step, self.state.metrics)
        else:
            self.selection.measure()
        self.state.epochs_ended = epoch + 1
        self._save(must=last or bool(stop))
        if self.train.keep_every and (epoch + 1) % self.train.keep_every == 0:
            self._complain(self.saver.keep(f"epoch-{epoch + 1:04d}"))
        self.reporter.pause(start)

    def _save(self, must: bool = False) -> None:
        """Write `checkpoints/last`; a failure is an error only if there is no later chance (`must`)."""
        self.monitor.drain()
        self.state.seconds, self.state.rows = self.before + self.reporter.seconds, self.run_dir.rows
        lost = self.selection.retry()
        problem = self.saver.save(dataclasses.asdict(self.state), self.state.step // self.per_epoch)
        if not problem and not self.pointed:
            trouble = self.run_dir.point_latest()
            self.pointed = trouble is None
            self._complain(trouble)
        problem = problem or lost
        if problem and must:
            raise CheckpointError(
                f"{problem}; free some space and continue with --resume {self.run_dir.path}"
            )
        self._complain(problem)

    def _complain(self, problem: str | None) -> None:
        if problem:
            self.reporter.note(
                f"warning: {problem}; training continues and tries again at the next checkpoint"
            )

    def _leave(self, stop: StopRequest) -> NoReturn:
        name = stop.signal.name if stop.signal else "a signal to another rank"
        raise Interrupted(
            f"stopped by {name} after step {self.state.step} of {self.total}; the state is saved: "
            f"continue with `zssbir train --resume {self.run_dir.path}`"
        )

    def _report(self) -> None:
        assert self.stream is not None
        lr = lr_at(self.state.step - 1, self.total, self.job.optim)
        self.reporter.trained(self.state.step, {**self.monitor.flush(), "lr": lr}, self.stream.waited)

    def _memory_advice(self) -> str:
        share = self.train.batch_size // distributed.world_size()
        return (
            f"out of memory with {share} items a batch and rank in {self.job.precision.name}: lower "
            "train.batch_size (and raise optim.accumulate) or data.size, or use train.precision=bf16"
        )

    def _result(self) -> FitResult:
        span = max(1e-9, self.reporter.seconds)
        done = (self.state.step - self.reporter.first) * self.reporter.items
        return FitResult(
            steps=self.state.step,
            metrics=self.state.metrics,
            best=self.state.best,
            best_step=self.state.best_step,
            seconds=self.before + span,
            images_per_s=done / span,
            data_wait=(self.stream.waited if self.stream else 0.0) / span,
            blend=self.state.blend,
        )
