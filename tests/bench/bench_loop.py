"""What the training loop costs beyond a bare PyTorch loop with the same model, data and optimizer.

    python tests/bench/bench_loop.py --model resnet10t --size 64 --batch 32 --steps 200

Both loops run in one process and take turns every few steps, so that a busy machine treats them alike.
Medians of the ratio between neighbouring turns, by wall clock and by CPU time of the process; items come from
memory, no loading processes. `fit` writes its metrics, draws its seeds, watches for non-finite losses and
reports.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from zssbir_cli.compute.precision import Precision, choose_attention
from zssbir_cli.engine.job import Job
from zssbir_cli.engine.loop import fit
from zssbir_cli.engine.report import Report
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.step import build_optimizer
from zssbir_cli.methods.base import Batch, Method, StepOutput, TrainData
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig
from zssbir_cli.types import Modality

CLASSES, ITEMS = 20, 256


class Classifier(Method):
    """A timm model with cross entropy: nothing that only one of the two loops would do."""

    def __init__(self, model: str, size: int) -> None:
        super().__init__()
        extra = {"img_size": size} if "vit" in model else {}
        self.net = timm.create_model(model, num_classes=CLASSES, **extra)

    def forward(self, batch: Batch) -> StepOutput:
        loss = nn.functional.cross_entropy(self.net(batch["image"].float() / 255).float(), batch["label"])
        return StepOutput(loss, {"loss/ce": loss.detach()})

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        return self.net(images.float() / 255)


class Items(Dataset):
    def __init__(self, size: int) -> None:
        self.images = torch.randint(0, 256, (ITEMS, 3, size, size), dtype=torch.uint8)

    def __getitem__(self, key: Any) -> Batch:
        index = key[2][0] if isinstance(key, tuple) else key
        return {"image": self.images[index], "label": torch.tensor(index % CLASSES)}

    def __len__(self) -> int:
        return ITEMS


class Plan:
    def __init__(self, steps: int, batch: int) -> None:
        self.steps_per_epoch, self.batch = steps, batch

    def batches(self, epoch: int) -> np.ndarray:
        return np.random.default_rng(epoch).integers(0, ITEMS, (self.steps_per_epoch, self.batch, 1))


class Bare:
    """The loop as one would write it down."""

    def __init__(
        self, method: Method, items: Items, batch: int, optim: OptimConfig, precision: Precision
    ) -> None:
        self.method, self.precision = method.train(), precision
        self.optimizer = build_optimizer(method.param_groups(), optim)
        choose_attention(method, precision, training=True)
        self.loader = DataLoader(items, batch_size=batch, shuffle=True, drop_last=True)
        self.batches = iter(self.loader)

    def step(self) -> None:
        batch = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        batch = {k: v.to(self.precision.device, non_blocking=True) for k, v in batch.items()}
        with self.precision.autocast():
            loss = self.method(batch).loss
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def clocks() -> tuple[float, float]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


class Turns:
    """Hooks of `fit`: at each report, the bare loop takes as many steps as `fit` has taken since the last."""

    def __init__(self, bare: Bare) -> None:
        self.bare, self.since, self.step = bare, clocks(), 0
        self.fit: list[tuple[float, ...]] = []
        self.plain: list[tuple[float, ...]] = []

    def report(self, report: Report) -> None:
        now, steps = clocks(), report.step - self.step
        self.fit.append(tuple((a - b) / steps for a, b in zip(now, self.since, strict=True)))
        start = clocks()
        for _ in range(steps):
            self.bare.step()
        self.plain.append(tuple((a - b) / steps for a, b in zip(clocks(), start, strict=True)))
        self.step, self.since = report.step, clocks()

    def note(self, message: str) -> None:
        print(message)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet10t")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    precision = Precision.choose(options.precision, torch.device(options.device))
    optim = OptimConfig(name="adamw", weight_decay=0.05, clip_norm=None)
    methods = []
    for _ in range(2):
        torch.manual_seed(0)
        methods.append(
            Classifier(options.model, options.size).to(precision.device, memory_format=torch.channels_last)
        )
    items = Items(options.size)
    turns = Turns(Bare(methods[1], items, options.batch, optim, precision))
    with tempfile.TemporaryDirectory() as folder:
        job = Job(
            methods[0],
            TrainData(Plan(options.steps, options.batch), items),
            optim=optim,
            train=TrainConfig(epochs=1, batch_size=options.batch, validate_every=0),
            precision=precision,
            probe=None,  # type: ignore[arg-type]
        )
        fit(job, RunDir(Path(folder)), hooks=turns)
    print(
        f"{options.model}, {options.size} px, batch {options.batch}, {precision.name} on {precision.device}, "
        f"{torch.get_num_threads()} threads, {options.steps} steps each"
    )
    fits, plains = turns.fit[1:], turns.plain[1:]  # without the first turn: warm-up
    for name, i in (("wall", 0), ("CPU", 1)):
        ratio = median(f[i] / p[i] for f, p in zip(fits, plains, strict=True))
        bare, ours = (median(x[i] for x in times) * 1e3 for times in (plains, fits))
        print(f"{name} time a step: bare {bare:.2f} ms, fit {ours:.2f} ms, median ratio {ratio:.4f}")


if __name__ == "__main__":
    main()
