"""`zssbir train --check`: everything but the training itself, and what the training will cost."""

import math
import shutil
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.engine.averages import SHARES
from zssbir_cli.engine.job import Job
from zssbir_cli.engine.loader import training_stream
from zssbir_cli.engine.report import memory_mb
from zssbir_cli.engine.step import Stepper
from zssbir_cli.errors import DivergedError
from zssbir_cli.files import existing_parent
from zssbir_cli.methods.base import Position
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.setup import Setup, build_job

TRIAL = 5
"""Optimizer steps that are tried; the first one warms up."""
FEW, MORE = 16, 80
"""Photos embedded twice, to tell what a validation costs to begin with and for each picture."""


@dataclass(frozen=True)
class CheckOutcome:
    """What `--check` found: all works, and what the training will cost, about."""

    steps: int
    trainable: int
    train_sketches: int
    train_photos: int
    val_classes: int
    loss: float
    memory_mb: float
    precision: str
    device: str
    seconds: float
    """Of the whole training, at the speed of the trial steps."""
    disk: int
    """Bytes of the run's folder at its end."""
    free: int
    """Bytes that are free where runs go."""


def check(
    recipe: Recipe, *, runs: Path = Path("runs"), device: str = "auto", resumed: Path | None = None
) -> CheckOutcome:
    """Do everything but train: open the data, build the method (missing mask scores are computed and kept), and
    take a few steps whose result is thrown away, of the run `resumed` as it would continue. Raises like `train`."""
    setup = Setup.build(recipe, choose_device(device), resumed)
    setup, job = build_job(setup)
    stepper = Stepper(job.method, recipe.optim, recipe.train, setup.precision)
    began = time.perf_counter()
    job.method.before_epoch(0, job.probe)
    each_epoch = time.perf_counter() - began
    stepper.wrap()
    steps = -(-job.data.plan.steps_per_epoch // recipe.optim.accumulate) * recipe.train.epochs
    loss, each_step = _try_steps(job, stepper, steps)
    prepared, train = setup.prepared, recipe.train
    validations = train.epochs // train.validate_every if job.validate else 0
    shares = len(SHARES) if train.blend == "auto" else 1
    validation = _validation(setup, job, stepper) if validations else 0.0
    return CheckOutcome(
        steps=steps,
        trainable=sum(p.numel() for p in stepper.params),
        train_sketches=len(prepared.images(Part.TRAIN, Modality.SKETCH)),
        train_photos=len(prepared.images(Part.TRAIN, Modality.PHOTO)),
        val_classes=len(prepared.manifest.ids_for(Part.VAL)),
        loss=loss,
        memory_mb=memory_mb(setup.precision.device),
        precision=setup.precision.name,
        device=str(setup.precision.device),
        seconds=steps * each_step + train.epochs * each_epoch + validations * shares * validation,
        disk=_disk(recipe, stepper),
        free=shutil.disk_usage(existing_parent(runs)).free,
    )


def _try_steps(job: Job, stepper: Stepper, steps: int) -> tuple[float, float]:
    """Take up to `TRIAL` steps: loss of the first, seconds of the others. Raises DivergedError."""
    accumulate, epochs = job.optim.accumulate, job.train.epochs
    count = min(accumulate, job.data.plan.steps_per_epoch)
    trial = min(TRIAL, max(1, job.data.plan.steps_per_epoch // count))
    seconds, loss = [], math.nan
    with closing(
        training_stream(job.data, first=0, stop=trial * count, workers=job.workers, pin=False)
    ) as stream:
        for step in range(trial):
            began = time.perf_counter()
            stepper.step(lambda _: next(stream), count, Position(step, steps, 0, epochs), stop=False)
            if step == 0:
                loss = _finite_loss(stepper)
            seconds.append(time.perf_counter() - began)
    return loss, median(seconds[1:] or seconds)


def _finite_loss(stepper: Stepper) -> float:
    logs = stepper.monitor.flush()
    if not all(math.isfinite(v) for v in logs.values()):
        bad = ", ".join(name for name, v in logs.items() if not math.isfinite(v))
        raise DivergedError(
            f"the first step is not finite ({bad}): use train.precision=fp32, or lower optim.lr"
        )
    return logs["loss"]


def _validation(setup: Setup, job: Job, stepper: Stepper) -> float:
    """Seconds of one validation, from embedding some of its photos."""
    stepper.eval_mode()
    total = sum(len(setup.prepared.images(Part.VAL, m)) for m in Modality)
    spent = []
    with torch.no_grad():
        for count in (FEW, FEW, MORE):  # the first one warms up
            began = time.perf_counter()
            setup.features(Part.VAL, Modality.PHOTO, lambda x: job.method.embed(x, Modality.PHOTO), count)
            spent.append(time.perf_counter() - began)
    photos = len(setup.prepared.images(Part.VAL, Modality.PHOTO))
    more = max(1, min(MORE, photos) - min(FEW, photos))
    each = max(0.0, (spent[2] - spent[1]) / more)
    return spent[1] + each * max(0, total - FEW)


def _disk(recipe: Recipe, stepper: Stepper) -> int:
    """Bytes of a run's checkpoints: `last` and the one before with all that resuming needs, `best`, kept ones."""
    whole = _bytes(stepper.method.state_dict().values())
    ema, blend = stepper.ema is not None, stepper.blend is not None
    copies = 1 + (ema or blend) + blend + (ema and blend)  # for retrieval, as trained, the start, the average
    optimizer = _bytes(v for s in stepper.optimizer.state.values() for v in s.values())
    last = copies * whole + optimizer
    kept = recipe.train.epochs // recipe.train.keep_every if recipe.train.keep_every else 0
    return (2 + kept) * last + _bytes(stepper.method.retrieval_state().values())


def _bytes(values: Iterable[object]) -> int:
    return sum(v.nbytes for v in values if isinstance(v, Tensor))
