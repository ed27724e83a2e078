"""1, 2 and 3 gloo ranks give what one process gives."""

import os
import signal
from pathlib import Path

import pytest
import torch
from engine_helpers import Toy, make_run, toy_data, toy_fit, toy_method
from rank_helpers import run_ranks
from torch import nn
from torch.nn import functional

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.embedding.embedder import embed_all
from zssbir_cli.engine.checkpoint import read_weights
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import latest_run, read_metrics
from zssbir_cli.errors import DivergedError, Interrupted, UsageError
from zssbir_cli.methods.base import StepOutput
from zssbir_cli.recipe.schema import OptimConfig

CPU = torch.device("cpu")


def train(root: Path, options: dict) -> tuple[dict, list]:
    run = make_run(root)
    method, _ = toy_fit(run, validate=lambda m: {"val/mAP@all": float(distributed.rank())}, **options)
    rows = read_metrics(run.path) if distributed.is_main() else []
    return {k: v.clone() for k, v in method.state_dict().items()}, rows


OPTIONS = {
    "plain": {},
    "accumulation, clipping, ema": {"optim": OptimConfig(lr=1e-2, accumulate=2, clip_norm=0.1), "ema": 0.9},
    "blend": {"blend": 0.5},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_two_and_three_ranks_equal_one_process(tmp_path, name):
    """The loss contrasts the whole batch and pulls to a centre of the whole batch; 10 steps of AdamW."""
    options = OPTIONS[name]
    alone, rows = train(tmp_path / "one", options)
    for world in (1, 2, 3):
        results = run_ranks(tmp_path / f"out{world}", world, train, tmp_path / f"run{world}", options)
        for weights, _ in results:
            for key, value in alone.items():
                assert torch.allclose(weights[key].double(), value.double(), atol=2e-5), (world, key)
            assert all(torch.equal(weights[key], results[0][0][key]) for key in weights)
        found = results[0][1]
        assert [r["step"] for r in found] == [r["step"] for r in rows]
        for a, b in zip(rows, found, strict=True):
            for key in ("loss", "loss/contrast", "loss/pull"):
                assert a.get(key) == pytest.approx(b.get(key), abs=1e-5)
        assert len(list((tmp_path / f"run{world}").glob("2*"))) == 1, "one run folder, whatever the ranks"


def gathered(_: Path) -> tuple:
    """Value, and gradient of a weighted sum that differs from rank to rank."""
    rank, world = distributed.rank(), distributed.world_size()
    x = (torch.arange(4.0).reshape(2, 2) + 10 * rank).requires_grad_()
    everyone = distributed.gather(x)
    weights = torch.arange(float(everyone.numel())).reshape(everyone.shape) * (rank + 1)
    (everyone * weights).sum().backward()
    return everyone.detach(), x.grad, distributed.all_mean(torch.tensor([float(rank)])), world


def test_gather_keeps_rank_order_and_sums_gradients(tmp_path):
    results = run_ranks(tmp_path / "out", 3, gathered, tmp_path)
    expected = torch.cat([torch.arange(4.0).reshape(2, 2) + 10 * r for r in range(3)])
    for rank, (value, grad, mean, world) in enumerate(results):
        assert torch.equal(value, expected)
        total = torch.arange(12.0).reshape(6, 2) * (1 + 2 + 3)
        assert torch.equal(grad, total[2 * rank : 2 * rank + 2])
        assert (float(mean), world) == (1.0, 3)


class Numbers(torch.utils.data.Dataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> torch.Tensor:
        return torch.full((1, 2, 2), i, dtype=torch.uint8)


def embedded(count: int, workers: int) -> torch.Tensor:
    def embed(images: torch.Tensor) -> torch.Tensor:
        return images[:, 0].float().flatten(1)[:, :3]

    return embed_all(embed, Numbers(count), batch_size=2, workers=workers, precision=Precision("fp32", CPU))


@pytest.mark.parametrize("count", [7, 3, 2, 1])
def test_embedding_pass_is_complete_on_every_rank(tmp_path, count):
    """Neither padding nor repeated rows, also where a rank has nothing to do."""
    expected = torch.arange(float(count))[:, None].expand(count, 3)
    for result in run_ranks(tmp_path / "out", 3, embedded, count, count % 2):
        assert torch.equal(result, expected)


def refused(root: Path) -> str:
    with pytest.raises(UsageError) as caught:
        toy_fit(make_run(root), batch=9, data=toy_data(batch=9))
    return str(caught.value)


def test_a_batch_that_cannot_be_shared_out_is_refused(tmp_path):
    messages = run_ranks(tmp_path / "out", 2, refused, tmp_path / "run")
    assert all("train.batch_size = 9 is not a multiple of the 2 ranks" in m for m in messages)
    assert all("8 or 10" in m for m in messages)


class OneSided(Toy):
    """Rank 1 alone meets a loss that is not a number, in chosen steps."""

    def forward(self, batch):
        loss = functional.cross_entropy(self.net(batch["x"]), batch["label"])
        if distributed.rank() == 1 and int(self.centre[0]) in (1, 4, 5, 6):
            loss = loss * float("nan")
        self.centre += 1
        return StepOutput(loss, {"loss/ce": loss.detach()})


def one_sided(root: Path) -> tuple[str, dict]:
    torch.manual_seed(0)
    method = OneSided()
    with pytest.raises(DivergedError) as caught:
        toy_fit(make_run(root), method=method, epochs=2)
    return str(caught.value), {k: v.clone() for k, v in method.state_dict().items()}


def test_a_bad_loss_on_one_rank_is_skipped_and_counted_by_all(tmp_path):
    results = run_ranks(tmp_path / "out", 2, one_sided, tmp_path / "run")
    for message, weights in results:
        assert "3 steps in a row, up to step 7" in message
        for key, value in weights.items():
            assert torch.isfinite(value).all()
            assert torch.equal(value, results[0][1][key])
    assert "loss/ce" in results[1][0]


def resumed(root: Path) -> dict:
    run = RunDir(latest_run(root), {"name": "toy"}, {"identity": "a"})
    method, result = toy_fit(run, resume=True, method=toy_method(seed=distributed.rank() + 5))
    assert result.steps == 10
    return {k: v.clone() for k, v in method.state_dict().items()}


class Collecting(Toy):
    """Batch norm that collects its statistics in training."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16, momentum=1.0), nn.Linear(16, 6))


def collected(root: Path) -> dict:
    torch.manual_seed(0)
    method = Collecting()
    toy_fit(make_run(root), method=method, epochs=1)
    return {k: v.clone() for k, v in method.state_dict().items()}


def test_statistics_of_batch_norm_are_shared_by_the_ranks(tmp_path):
    first, second = run_ranks(tmp_path / "out", 2, collected, tmp_path / "run")
    saved = read_weights(latest_run(tmp_path / "run") / "checkpoints" / "last")
    for key in first:
        assert torch.equal(first[key], second[key]), key
        assert torch.equal(first[key], saved[key]), key


class SignalledToy(Toy):
    """Rank 1 alone is sent SIGTERM before its third step."""

    def before_step(self, progress) -> None:
        if progress.step == 2 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def stopped(root: Path) -> str:
    torch.manual_seed(0)
    with pytest.raises(Interrupted) as caught:
        toy_fit(make_run(root), method=SignalledToy())
    return str(caught.value)


def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on(tmp_path):
    """Two ranks, stopped together; then three ranks go on and end where one process ends."""
    torch.manual_seed(0)
    alone, _ = toy_fit(make_run(tmp_path / "one"), method=Toy())
    messages = run_ranks(tmp_path / "out2", 2, stopped, tmp_path / "run")
    steps = [m.split("after step ")[1].split()[0] for m in messages]
    assert steps in (["3", "3"], ["4", "4"])
    for weights in run_ranks(tmp_path / "out3", 3, resumed, tmp_path / "run"):
        for key, value in alone.state_dict().items():
            assert torch.allclose(weights[key].double(), value.double(), atol=2e-5), key


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE='two': a launcher"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK='': a launcher"),
        (
            {"RANK": "0", "WORLD_SIZE": "2"},
            "process 0 of 2 .*MASTER_ADDR expected.*start it with `torchrun`, or unset both",
        ),
    ],
)
def test_what_another_launcher_left_in_the_environment_is_named(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words), distributed.session(CPU):
        distributed.rank()
    monkeypatch.delenv("RANK", raising=False)
    with distributed.session(CPU):
        assert distributed.is_main()
