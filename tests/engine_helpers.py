"""A toy method and toy data for the engine's tests: seconds become milliseconds, no data set, no backbone."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.engine.job import FitResult, Job
from zssbir_cli.engine.loop import fit
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.methods.base import Batch, ItemKey, Method, StepOutput, TrainData
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig
from zssbir_cli.types import Modality

DIM, CLASSES = 12, 5


class Toy(Method):
    """A small network whose loss uses the whole batch (contrast over the gathered features) and a running
    centre."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(DIM, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 6))
        self.register_buffer("centre", torch.zeros(6))
        self.register_buffer("epochs_begun", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Batch) -> StepOutput:
        x = functional.normalize(self.net(batch["x"].float()).float(), dim=1)
        everyone, labels = distributed.gather(x), distributed.gather(batch["label"])
        with torch.no_grad():
            mean = everyone.mean(0)
            self.centre.lerp_(torch.where(mean.isfinite(), mean, self.centre), 0.1)
        same = (batch["label"][:, None] == labels).float()
        contrast = functional.binary_cross_entropy_with_logits(x @ everyone.T * 4, same)
        pull = ((x - self.centre) ** 2).mean()
        return StepOutput(
            contrast + 0.1 * pull, {"loss/contrast": contrast.detach(), "loss/pull": pull.detach()}
        )

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        return functional.normalize(self.net(images.float()), dim=1)

    def before_epoch(self, epoch: int, probe: object) -> dict[str, float]:
        self.epochs_begun += 1
        return {"epochs_begun": float(self.epochs_begun)}


class ToyPlan:
    def __init__(self, steps: int, batch: int, count: int = 40, seed: int = 0) -> None:
        self.steps_per_epoch, self.batch, self.count, self.seed = steps, batch, count, seed

    def batches(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        return rng.integers(0, self.count, (self.steps_per_epoch, self.batch, 1))


class ToyItems(Dataset):
    """Each item depends on its key: index, and noise seeded by (epoch, position)."""

    def __getitem__(self, key: ItemKey) -> Batch:
        epoch, position, (index,) = key
        base = np.random.default_rng(index % CLASSES).normal(size=DIM)
        noise = np.random.default_rng([7, epoch, position]).normal(size=DIM)
        return {"x": torch.tensor(base + noise, dtype=torch.float32), "label": torch.tensor(index % CLASSES)}


def toy_data(steps: int = 5, batch: int = 12, items: Dataset | None = None) -> TrainData:
    return TrainData(ToyPlan(steps, batch), items or ToyItems())


def toy_method(seed: int = 0, dropout: float = 0.0) -> Toy:
    torch.manual_seed(seed)
    return Toy(dropout)


def make_run(root: Path, **recipe: object) -> RunDir:
    return RunDir.create(
        root,
        "toy",
        recipe={"name": "toy", **recipe},
        recipe_yaml="name: toy\n",
        data={"identity": "a"},
        record={},
    )


def toy_fit(
    run: RunDir,
    *,
    epochs: int = 2,
    method: Toy | None = None,
    data: TrainData | None = None,
    workers: int = 0,
    optim: OptimConfig | None = None,
    batch: int = 12,
    **options: object,
) -> tuple[Toy, FitResult]:
    train_keys = {k: options.pop(k) for k in list(options) if k in TrainConfig.model_fields}
    method = method or toy_method()
    job = Job(
        method=method,
        data=data or toy_data(batch=batch),
        optim=optim or OptimConfig(lr=1e-2, warmup_steps=2),
        train=TrainConfig(epochs=epochs, batch_size=batch, precision="fp32", **train_keys),
        precision=Precision.choose("fp32", torch.device("cpu")),
        probe=None,
        workers=workers,
        validate=options.pop("validate", None),
        overfit=options.pop("overfit", None),
    )
    result = fit(job, run, **options)
    return method, result


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)
