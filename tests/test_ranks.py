"""Two ranks are one process, for every shipped recipe: loss, gradients, batch norm of student and teacher, clusters."""

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rank_helpers import run_ranks
from test_shipped_recipes import tiny
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from zssbir_cli.compute import distributed
from zssbir_cli.compute.distributed import BATCH_NORMS, share_statistics
from zssbir_cli.compute.precision import Precision
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.engine.step import Stepper
from zssbir_cli.methods.base import Batch, Position, TrainData
from zssbir_cli.methods.table import build_method, build_train_data
from zssbir_cli.recipe.loader import load_recipe, shipped_recipes
from zssbir_cli.recipe.schema import OptimConfig, Recipe
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.setup import training_classes

BATCH, STEPS = 8, 2
RECIPES = {p.stem: p for p in shipped_recipes()}
AMA = ("method.cluster_start=0", "method.cluster_full=1", "method.pairing_start=0", "method.cc_relative=true")
AMA += ("method.cc_threshold=0.5", "method.views.locals=1", "method.clusters.iterations=3")
PUXIM = (
    "method.decoder_dropout=0",
    "method.decoder_layers=1",
    "method.decoder_ff=16",
    "method.interaction=1.0",
)
DROPS = ("model.drop_rate=0", "model.drop_path=0")


def shrunk(name: str, data: Path) -> Recipe:
    """A recipe for 8 rows of 32 pixels, all losses on, nothing random but the data."""
    settings = [s for s in tiny(RECIPES[name], data) if not s.startswith("train.batch_size")]
    method = load_recipe(RECIPES[name]).method.name
    settings += [f"train.batch_size={BATCH}", *DROPS, *{"ama": AMA, "puxim": PUXIM}.get(method, ())]
    return load_recipe(RECIPES[name], tuple(settings))


class FewImages:
    """A probe: 24 training images, spread evenly over the classes."""

    def __init__(self, prepared: PreparedSet, size: int) -> None:
        self.prepared, self.size = prepared, size

    def features(self, modality: Modality, embed, most: int | None = None) -> Tensor:
        images = self._images(modality)
        with torch.inference_mode():
            return embed(torch.stack([images[i] for i in range(24)])).float()

    def labels(self, modality: Modality, most: int | None = None) -> Tensor:
        return torch.from_numpy(self._images(modality).labels[:24])

    def _images(self, modality: Modality):
        from zssbir_cli.inputs.datasets import EvalImages

        return EvalImages(self.prepared.images(Part.TRAIN, modality), self.size, most=24)

    def class_names(self) -> dict[int, str]:
        return training_classes(self.prepared)


def local_batch(data: TrainData, step: int, indices: int) -> Batch:
    """This rank's rows of a batch, as the engine's loader makes them (images of the probe alone)."""
    rows = distributed.local_rows(BATCH)
    plan = data.plan.batches(0)[step]
    keys = [(0, step * BATCH + i, tuple(int(v) % indices for v in plan[i])) for i in range(BATCH)[rows]]
    items = [data.items[key] for key in keys]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


@contextlib.contextmanager
def in_float64() -> Iterator[None]:
    """Compute everything in float64, also what asks for single precision: batch norm of a few pixels and kinks make the
    gradients of tiny networks jump with rounding."""
    single = Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.float = single  # type: ignore[method-assign]
        torch.set_default_dtype(torch.float32)


def work(data_root: Path, name: str) -> dict[str, Tensor]:
    """Two steps of a recipe: mean loss and the first gradient, then every tensor of the method."""
    with in_float64():
        return _work(data_root, name)


def _work(data_root: Path, name: str) -> dict[str, Tensor]:
    recipe = shrunk(name, data_root)
    prepared = PreparedSet.open(data_root)
    seed_all(1)
    method, data = build_method(recipe).double(), build_train_data(recipe, prepared)
    wake(method)
    stepper = Stepper(
        method, OptimConfig(name="sgd", lr=1e-4), recipe.train, Precision.choose("fp32", torch.device("cpu"))
    )
    seed_all(2)
    method.before_epoch(0, FewImages(prepared, recipe.data.size))
    stepper.wrap()
    out = {}
    indices = 24 if recipe.method.name == "ama" else 1 << 60
    for step in range(STEPS):
        method.before_step(Position(step + 1, STEPS + 1, 1, 2))
        output = stepper.model(local_batch(data, step, indices))
        output.loss.backward()
        out[f"loss {step}"] = distributed.all_mean(output.loss)
        if step == 0:
            out |= {f"grad {n}": p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        stepper.optimizer.step()
        stepper.optimizer.zero_grad()
        method.after_step(Position(step + 1, STEPS + 1, 1, 2), torch.zeros(()))
    stepper.eval_mode()
    return out | {key: value.clone() for key, value in method.state_dict().items()}


def wake(method: nn.Module) -> None:
    """Give zero-initialised norms (the last of a residual block) a gradient to pass on."""
    generator = torch.Generator().manual_seed(3)
    for module in method.modules():
        if isinstance(module, BATCH_NORMS):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    if hasattr(method, "teacher"):
        method.teacher.load_state_dict(copy.deepcopy(method.student.state_dict()))


def all_recipes(data_root: Path) -> dict[str, dict[str, Tensor]]:
    return {name: work(data_root, name) for name in RECIPES}


@pytest.fixture(scope="module")
def alone(tiny_demo: Path) -> Iterator[dict[str, dict[str, Tensor]]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield all_recipes(tiny_demo)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ranks(
    tiny_demo: Path, alone: object, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, dict[str, Tensor]]]:
    return run_ranks(tmp_path_factory.mktemp("ranks"), 2, all_recipes, tiny_demo)


@pytest.mark.parametrize("name", RECIPES)
def test_two_ranks_are_one_process(alone, ranks, name: str) -> None:
    one = alone[name]
    assert max(float(v.abs().max()) for k, v in one.items() if k.startswith("grad ")) > 1e-5
    for rank in (0, 1):
        two = ranks[rank][name]
        assert two.keys() == one.keys()
        for key, value in one.items():
            off = float((two[key].double() - value.double()).norm())
            assert off <= 1e-6 * float(value.double().norm()) + 1e-9 * value.numel() ** 0.5, (key, off)
            assert torch.equal(two[key], ranks[0][name][key]), key


def test_recipes_with_batch_norm_that_collects_are_among_them(alone) -> None:
    """Student and teacher."""
    for name in ("demo", "puxim-demo", "ama-demo"):
        moved = [k for k in alone[name] if k.endswith("num_batches_tracked") and int(alone[name][k])]
        assert moved, name
    assert any(k.startswith("teacher.") for k in moved)


def normalised(_: object) -> dict[str, Tensor]:
    """Gradients and statistics of a small network in float64, called twice as AMA calls its student."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), BatchNormAct2d(8), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, momentum=None)
    net = nn.Sequential(*layers).double()
    x, weight = torch.randn(8, 3, 12, 12).double(), torch.randn(8, 8).double()
    rows = distributed.local_rows(8)
    share_statistics(net)
    found = (net(x[rows]).square().mean((2, 3)) + net(2 * x[rows] + 1).mean((2, 3))) * weight[rows]
    found.sum(1).mean().backward()
    assert all(part.training for part in net.modules())
    gradients = {f"grad {n}": distributed.all_mean(p.grad) for n, p in net.named_parameters()}
    return gradients | net.state_dict()


def test_batch_norm_over_ranks_is_that_of_one_process(tmp_path: Path) -> None:
    one = normalised(None)
    for two in run_ranks(tmp_path / "out", 2, normalised, None):
        for key, value in one.items():
            torch.testing.assert_close(
                two[key], value, rtol=1e-9, atol=1e-12, msg=lambda m, k=key: f"{k}: {m}"
            )
