"""Small data and recipes for the tests of AMA: drawn circles and boxes, a tiny ViT, no prepared folder."""

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from zssbir_cli.compute.precision import Precision
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.engine.job import Job
from zssbir_cli.engine.loop import fit
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.methods.ama import data as ama_data
from zssbir_cli.methods.ama import method as ama_method
from zssbir_cli.methods.ama.method import AmaMethod
from zssbir_cli.methods.base import Batch, Position
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part


class FakeImages:
    """Stands for data.prepared.ImageSet: PNG bytes of drawn shapes."""

    squared, on_white = False, True

    def __init__(self, modality: Modality, count: int, labels: np.ndarray) -> None:
        self.part, self.modality, self.labels = Part.TRAIN, modality, labels
        self.sources = [f"{i}.png" for i in range(count)]
        rng = np.random.default_rng(int(modality))
        self._bytes = [self._draw(rng, i % 3) for i in range(count)]

    def __len__(self) -> int:
        return len(self._bytes)

    def _draw(self, rng: np.random.Generator, kind: int) -> np.ndarray:
        photo = self.modality is Modality.PHOTO
        canvas = np.full((48, 48, 3), rng.integers(0, 256, 3) if photo else 255, np.uint8)
        color = [int(v) for v in rng.integers(0, 256, 3)] if photo else [0, 0, 0]
        x, y, r = (int(v) for v in rng.integers(14, 34, 3))
        if kind == 0:
            cv2.circle(canvas, (x, y), r // 2, color, -1 if photo else 2)
        elif kind == 1:
            cv2.rectangle(
                canvas, (x - r // 3, y - r // 3), (x + r // 3, y + r // 3), color, -1 if photo else 2
            )
        else:
            cv2.line(canvas, (x - r // 2, y), (x + r // 2, 48 - y), color, 5 if photo else 2)
        return cv2.imencode(".png", canvas)[1].ravel()

    def read(self, i: int) -> np.ndarray:
        return self._bytes[i]


class FakePrepared:
    """Stands for data.prepared.PreparedSet: 26 sketches and 33 photos to train on."""

    root = Path("fake")

    def __init__(self, label_seed: int = 0) -> None:
        rng = np.random.default_rng(label_seed)
        self.sets = {
            Modality.SKETCH: FakeImages(Modality.SKETCH, 26, rng.integers(0, 3, 26)),
            Modality.PHOTO: FakeImages(Modality.PHOTO, 33, rng.integers(0, 3, 33)),
        }

    def images(self, part: Part, modality: Modality) -> FakeImages:
        assert part is Part.TRAIN
        return self.sets[modality]


class FakeProbe:
    """Features of all training images, as the engine's probe gives them."""

    def __init__(self, prepared: FakePrepared, size: int) -> None:
        self.prepared, self.size = prepared, size

    def features(self, modality: Modality, embed, most: int | None = None) -> Tensor:
        from zssbir_cli.inputs.datasets import EvalImages

        images = EvalImages(self.prepared.images(Part.TRAIN, modality), self.size, most=most)
        with torch.inference_mode():
            return embed(torch.stack([images[i] for i in range(len(images))])).float()


def recipe(backbone: str = "test_vit", **changes: object) -> Recipe:
    """A tiny recipe with all losses on from the second epoch; `changes` by dotted name with __ for dots."""
    content: dict = {
        "name": "ama-test",
        "method": {
            "name": "ama",
            "views": {"local_size": 16, "locals": 2, "drawings": 1},
            "head": {"out_dim": 24, "hidden": 16, "bottleneck": 8},
            "clusters": {"k": [3, 5], "share": 0.5},
            "cluster_start": 1, "cluster_full": 2, "pairing_start": 1,
            "cc_threshold": 1.0, "cc_relative": True, "guidance": 0.1, "neighbours": 3, "momentum": 0.9,
        },
        "data": {"size": 32, "workers": 0},
        "model": {"backbone": backbone, "weights": "none"},
        "optim": {"name": "sgd", "lr": 0.05},
        "train": {"epochs": 3, "batch_size": 4, "steps_per_epoch": 3, "precision": "fp32", "validate_every":
        0},
    }  # fmt: skip
    for name, value in changes.items():
        section = content
        *path, last = name.split("__")
        for key in path:
            section = section.setdefault(key, {})
        section[last] = value
    return Recipe.model_validate(content)


def build(r: Recipe, prepared: FakePrepared | None = None) -> tuple[AmaMethod, object, FakeProbe]:
    """Method, training data and probe of a recipe, seeded as `zssbir train` seeds them."""
    prepared = prepared or FakePrepared()
    seed_all(r.train.seed)
    return ama_method.build(r, True), ama_data.build(r, prepared), FakeProbe(prepared, r.data.size)


def batch_of(data, epoch: int = 0, step: int = 0, rows: slice = slice(None)) -> Batch:
    """A batch of the plan, as the engine's loader would make it."""
    plan = data.plan.batches(epoch)[step]
    keys = [(epoch, step * len(plan) + i, tuple(int(v) for v in row)) for i, row in enumerate(plan)]
    items = [data.items[key] for key in keys[rows]]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def run_fit(r: Recipe, folder: Path, prepared: FakePrepared | None = None, resume: bool = False) -> AmaMethod:
    """Train with the engine in `folder` (created, or continued with `resume`)."""
    method, data, probe = build(r, prepared)
    resolved = r.model_dump(mode="json")
    if resume:
        run = RunDir(folder, resolved, {"identity": "fake"})
    else:
        run = RunDir.create(
            folder.parent, folder.name, recipe=resolved, recipe_yaml="", data={"identity": "fake"}, record={}
        )
        if not folder.exists():
            folder.symlink_to(run.path.resolve())
    precision = Precision.choose(r.train.precision, torch.device("cpu"))
    fit(Job(method, data, r.optim, r.train, precision, probe), run, resume=resume)
    return method


def at(epoch: int, step_in_epoch: int = 1, per_epoch: int = 3, epochs: int = 3) -> Position:
    return Position(epoch * per_epoch + step_in_epoch, per_epoch * epochs, epoch, epochs)


def ready(backbone: str = "test_vit", **changes):
    """Method with clusters, all losses on, and a batch."""
    method, data, probe = build(recipe(backbone, **changes))
    method.train()
    method.before_epoch(1, probe)
    method.train()
    method.before_step(at(2))
    return method, batch_of(data), probe
