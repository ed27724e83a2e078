"""The training loop: `fit`, the only one there is."""

import dataclasses
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from zssbir_cli.engine import distributed
from zssbir_cli.engine.ema import Ema
from zssbir_cli.engine.loader import Stream, training_stream
from zssbir_cli.engine.monitor import Monitor
from zssbir_cli.engine.optim import build_optimizer, lr_at, set_lr, trainable
from zssbir_cli.engine.precision import Precision
from zssbir_cli.engine.report import Hooks, Report, Silent, memory_mb
from zssbir_cli.engine.resume import Saver
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.stop import Interrupted, StopRequest, on_signals
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.methods.base import Batch, Method, Probe, Progress, TrainData
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig

SELECT = "val/mAP@all"
"""The value that selects the best checkpoint: mAP@all on the held-out seen classes."""

Validate = Callable[[Method], dict[str, float]]


@dataclass(frozen=True)
class FitResult:
    """What came of a run: optimizer steps done in all, the last and the best validation, speed of this
    session."""

    steps: int
    metrics: Mapping[str, float]
    best: Mapping[str, float]
    best_step: int
    seconds: float
    images_per_s: float
    data_wait: float


@dataclass
class State:
    """Where a run is and what it has found; goes into a checkpoint as it is."""

    step: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    best: dict[str, float] = field(default_factory=dict)
    best_step: int = -1


def seed_all(*key: int) -> None:
    """Seed PyTorch's generators from numbers such as (seed, step, rank)."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def fit(
    method: Method,
    data: TrainData,
    *,
    optim: OptimConfig,
    train: TrainConfig,
    workers: int,
    run: RunDir,
    precision: Precision,
    probe: Probe,
    validate: Validate | None = None,
    hooks: Hooks | None = None,
    resume: bool | Path = False,
    overfit: int | None = None,
) -> FitResult:
    """Train `method` on `data` and leave checkpoints and metrics in `run`.

    With `resume` (true, or the folder of a checkpoint) the run goes on from `checkpoints/last`, bit for bit
    on a CPU: every step draws its random numbers from (seed, step, rank), items from (seed, epoch, position),
    and what else matters is in the checkpoint. `validate` (on held-out seen classes) is called on every rank
    with the weights that retrieval will use; its `val/mAP@all` selects `checkpoints/best`; without it, `best`
    is the last.

    Raises Interrupted after SIGTERM or Ctrl-C (state saved), DivergedError, DataError, CheckpointError,
    UsageError.
    """
    return _Fit(
        method, data, optim, train, workers, run, precision, probe, validate, hooks or Silent(), overfit
    ).run(resume)


class _Fit:
    """One call of `fit`: the pieces that its phases share."""

    def __init__(
        self,
        method: Method,
        data: TrainData,
        optim: OptimConfig,
        train: TrainConfig,
        workers: int,
        run: RunDir,
        precision: Precision,
        probe: Probe,
        validate: Validate | None,
        hooks: Hooks,
        overfit: int | None,
    ) -> None:
        self.data, self.optim, self.train, self.workers = data, optim, train, workers
        self.run_dir, self.precision, self.probe = run, precision, probe
        self.validate, self.hooks, self.overfit = validate, hooks, overfit
        distributed.local_rows(train.batch_size)
        self.per_epoch = -(-data.plan.steps_per_epoch // optim.accumulate)
        self.total = self.per_epoch * train.epochs
        self.report_every = max(1, min(50, self.per_epoch // 10))
        precision.apply_globally()
        seed_all(train.seed)
        layout = torch.channels_last if train.channels_last else torch.contiguous_format
        self.method = method.to(precision.device).to(memory_format=layout)
        self.optimizer = build_optimizer(method.param_groups(), optim)
        self.params = trainable(self.optimizer)
        self.scaler = precision.scaler()
        self.ema = Ema(method, train.ema) if train.ema else None
        self.monitor = Monitor(precision.device)
        self.state = State()
        self.saver = Saver(
            self.method, self.optimizer, self.scaler, self.ema, self.monitor, run, precision.name
        )

    def run(self, resume: bool | Path) -> FitResult:
        if resume:
            self.state = State(**self.saver.restore(resume if isinstance(resume, Path) else None))
            self.note(f"resumed at step {self.state.step} of {self.total}")
        self.run_dir.trim(self.state.step if resume else -1)
        self.model = self._wrap()
        self.began, self.first_step = time.perf_counter(), self.state.step
        self.report_at, self.report_step, self.report_wait = self.began, self.first_step, 0.0
        self.before = self.state.seconds
        self.stream: Stream | None = None
        try:
            with on_signals() as stop:
                self._epochs(stop)
        except torch.OutOfMemoryError as error:
            raise UsageError(self._memory_advice()) from error
        finally:
            if self.stream is not None:
                self.stream.close()
        return self._result()

    def _wrap(self) -> nn.Module:
        """Under several ranks, DDP around the method; `forward` is the only call that goes through it."""
        self.method.train()
        if distributed.world_size() == 1:
            return self.method
        devices = [self.precision.device] if self.precision.device.type == "cuda" else None
        return DistributedDataParallel(
            self.method, device_ids=devices, broadcast_buffers=False, gradient_as_bucket_view=True
        )

    def _epochs(self, stop: StopRequest) -> None:
        for epoch in range(self.state.step // self.per_epoch, self.train.epochs):
            if self.state.step == epoch * self.per_epoch:
                self._begin_epoch(epoch)
            self.stream = self.stream or self._open_stream()
            while self.state.step < (epoch + 1) * self.per_epoch:
                if self._step(epoch, bool(stop)):
                    self._save_and_leave(stop)
                if self.state.step % self.report_every == 0:
                    self._report()
                every = self.train.checkpoint_every
                if every and self.state.step % every == 0 and self.state.step % self.per_epoch:
                    self._save()
            self._end_epoch(epoch)

    def _open_stream(self) -> Stream:
        epoch, group = divmod(self.state.step, self.per_epoch)
        per_epoch = self.data.plan.steps_per_epoch
        first = epoch * per_epoch + group * self.optim.accumulate
        return training_stream(
            self.data,
            first=first,
            stop=self.train.epochs * per_epoch,
            workers=self.workers,
            pin=self.precision.device.type == "cuda",
            overfit=self.overfit,
        )

    def _progress(self, epoch: int) -> Progress:
        return Progress(self.state.step, self.total, epoch, self.train.epochs)

    def _begin_epoch(self, epoch: int) -> None:
        seed_all(self.train.seed, -1 - epoch)  # the same on every rank
        values = self.method.before_epoch(epoch, self.probe)
        self.method.train()
        if values:
            self._log(values)

    def _step(self, epoch: int, stop: bool) -> bool:
        """One optimizer step. Returns whether to stop after it."""
        assert self.stream is not None
        seed_all(self.train.seed, self.state.step, distributed.rank())
        set_lr(self.optimizer, lr_at(self.state.step, self.total, self.optim))
        self.method.before_step(self._progress(epoch))
        left = self.data.plan.steps_per_epoch - self.state.step % self.per_epoch * self.optim.accumulate
        count = min(self.optim.accumulate, left)
        total, logs = torch.zeros((), device=self.precision.device), {}
        for number in range(count):
            batch = self._next_batch(number)
            logs = self._forward_backward(batch, count, number + 1 == count)
            total = total + logs["loss"] / count
        logs["loss"] = total
        flags = self.monitor.flags(total, stop)
        self._update(flags, logs)
        self.method.after_step(self._progress(epoch))
        self.state.step += 1
        return self.monitor.add(self.state.step - 1, logs, flags)

    def _next_batch(self, number: int) -> Batch:
        assert self.stream is not None
        try:
            batch = next(self.stream)
        except DataError as error:
            if number or distributed.world_size() > 1 or self.state.step == self.first_step:
                raise
            self._save()
            raise DataError(
                f"{error} (progress is saved: continue with --resume {self.run_dir.path})"
            ) from error
        return {k: v.to(self.precision.device, non_blocking=True) for k, v in batch.items()}

    def _forward_backward(self, batch: Batch, count: int, last: bool) -> dict[str, Tensor]:
        wait = isinstance(self.model, DistributedDataParallel) and not last
        with self.model.no_sync() if wait else nullcontext():  # type: ignore[operator]
            with self.precision.autocast():
                output = self.model(batch)
            self.scaler.scale(output.loss / count if count > 1 else output.loss).backward()
        return {**output.logs, "loss": output.loss.detach()}

    def _update(self, flags: Tensor, logs: dict[str, Tensor]) -> None:
        """Clip and step; a step whose loss is not finite changes nothing, without the host looking."""
        if self.optim.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            logs["grad_norm"] = nn.utils.clip_grad_norm_(self.params, self.optim.clip_norm, foreach=True)
        if not self.scaler.is_enabled():
            self.optimizer.found_inf = flags[0]  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update()

    def _end_epoch(self, epoch: int) -> None:
        self.monitor.drain()
        every, last = self.train.validate_every, epoch + 1 == self.train.epochs
        if self.validate is not None and every and ((epoch + 1) % every == 0 or last):
            self._validate(self.validate)
        elif self.validate is None or not every:
            with self._retrieval_weights():
                self._save_best()
        self._save(must=last)
        if self.train.keep_every and (epoch + 1) % self.train.keep_every == 0:
            self._complain(self.saver.keep(f"epoch-{epoch + 1:04d}"))

    @contextmanager
    def _retrieval_weights(self) -> Iterator[None]:
        with self.ema.applied() if self.ema else nullcontext(), torch.no_grad():
            self.method.eval()
            yield
        self.method.train()

    def _validate(self, validate: Validate) -> None:
        start = time.perf_counter()
        with self._retrieval_weights():
            metrics = distributed.from_main(validate(self.method))
            self.state.metrics = dict(metrics)
            if not self.state.best or metrics[SELECT] > self.state.best[SELECT]:
                self.state.best = dict(metrics)
                self._save_best()
        self._log(metrics)
        self._emit(metrics)
        self.report_at += time.perf_counter() - start  # not part of the training speed

    def _save_best(self) -> None:
        self.state.best_step = self.state.step
        self._complain(self.saver.save_best(dataclasses.asdict(self.state), self._epoch()))

    def _save(self, must: bool = False) -> None:
        """Write `checkpoints/last`; a failure is an error only if there is no later chance (`must`)."""
        self.monitor.drain()
        self.state.seconds = self.before + time.perf_counter() - self.began
        problem = self.saver.save(dataclasses.asdict(self.state), self._epoch())
        if problem and must:
            raise CheckpointError(
                f"{problem}; free some space and continue with --resume {self.run_dir.path}"
            )
        self._complain(problem)

    def _complain(self, problem: str | None) -> None:
        if problem:
            self.note(f"warning: {problem}; training goes on and tries again at the next checkpoint")

    def note(self, message: str) -> None:
        """Tell the user one line, once (rank 0)."""
        if distributed.is_main():
            self.hooks.note(message)

    def _save_and_leave(self, stop: StopRequest) -> None:
        self._save(must=True)
        name = stop.signal.name if stop.signal else "a signal to another rank"
        raise Interrupted(
            f"stopped by {name} after step {self.state.step} of {self.total}; the state is saved: "
            f"continue with `zssbir train --resume {self.run_dir.path}`"
        )

    def _epoch(self) -> int:
        return self.state.step // self.per_epoch

    def _log(self, values: Mapping[str, float]) -> None:
        row = {"step": self.state.step, "epoch": round(self.state.step / self.per_epoch, 4), **values}
        self._complain(self.run_dir.append(row))

    def _report(self) -> None:
        """Write the means since the last report to metrics.jsonl and tell the hooks."""
        means = {**self.monitor.flush(), "lr": lr_at(self.state.step - 1, self.total, self.optim)}
        images, wait = self._speed()
        self._log({**means, "images_per_s": round(images, 2), "data_wait": round(wait, 4)})
        self._emit(means, images, wait)

    def _speed(self) -> tuple[float, float]:
        """Items a second and share of waiting since the last report."""
        assert self.stream is not None
        now = time.perf_counter()
        span = max(1e-9, now - self.report_at)
        steps = self.state.step - self.report_step
        wait = (self.stream.waited - self.report_wait) / span
        self.report_at, self.report_step, self.report_wait = now, self.state.step, self.stream.waited
        return steps * self.optim.accumulate * self.train.batch_size / span, wait

    def _emit(self, logs: Mapping[str, float], images_per_s: float = 0.0, data_wait: float = 0.0) -> None:
        if not distributed.is_main():
            return
        done = self.state.step - self.first_step
        pace = (time.perf_counter() - self.began) / max(1, done)
        self.hooks.report(
            Report(
                step=self.state.step,
                total_steps=self.total,
                epoch=self.state.step / self.per_epoch,
                epochs=self.train.epochs,
                logs=logs,
                images_per_s=images_per_s,
                data_wait=data_wait,
                memory_mb=memory_mb(self.precision.device),
                eta_s=pace * (self.total - self.state.step),
            )
        )

    def _memory_advice(self) -> str:
        share = self.train.batch_size // distributed.world_size()
        return (
            f"out of GPU memory with {share} items a batch and rank in {self.precision.name}: lower train.batch_size (and raise optim.accumulate), or data.size, "
            "or use train.precision=bf16"
        )

    def _result(self) -> FitResult:
        span = max(1e-9, time.perf_counter() - self.began)
        done = (self.state.step - self.first_step) * self.optim.accumulate * self.train.batch_size
        return FitResult(
            steps=self.state.step,
            metrics=self.state.metrics,
            best=self.state.best,
            best_step=self.state.best_step,
            seconds=self.before + span,
            images_per_s=done / span,
            data_wait=(self.stream.waited if self.stream else 0.0) / span,
        )
