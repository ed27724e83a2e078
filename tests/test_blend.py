"""Blending of trained and start weights: what retrieval uses, what is stored, how `auto` chooses."""

import json

import pytest
import torch
from engine_helpers import Toy, make_run, toy_fit, toy_method
from torch import nn

from zssbir_cli.engine.averages import SHARES, Blend
from zssbir_cli.engine.checkpoint import inspect, read_weights
from zssbir_cli.engine.runs import read_metrics
from zssbir_cli.errors import UsageError


class Normed(Toy):
    """A toy with a batch norm whose statistics move."""

    def __init__(self) -> None:
        super().__init__()
        self.net[1] = nn.Sequential(nn.BatchNorm1d(16), nn.ReLU())


def normed() -> Normed:
    torch.manual_seed(0)
    return Normed()


def test_best_and_last_hold_the_blend_with_buffers_and_training_goes_on_with_its_own(tmp_path):
    start = normed().state_dict()
    plain, _ = toy_fit(make_run(tmp_path / "plain"), method=normed())
    run = make_run(tmp_path / "blended")
    method, result = toy_fit(run, method=normed(), blend=0.3)
    assert result.blend == 0.3
    own = method.state_dict()
    for name, value in plain.state_dict().items():
        assert torch.equal(own[name], value), f"{name}: blending changed the training"
    for which in ("best", "last"):
        stored = read_weights(run.checkpoints / which)
        for name in ("net.0.weight", "net.1.0.running_mean", "net.1.0.running_var", "net.3.bias"):
            assert not torch.equal(own[name], start[name])
            wanted = start[name] + 0.3 * (own[name] - start[name])
            torch.testing.assert_close(stored[name], wanted, msg=f"{which} {name}")


def test_shares_of_0_and_1_are_the_start_and_the_trained_weights_exactly(tmp_path):
    method = toy_method()
    blend, start = Blend(method), {k: v.clone() for k, v in method.state_dict().items()}
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn_like(parameter))
    trained = {k: v.clone() for k, v in method.state_dict().items()}
    for share, wanted in ((0.0, start), (1.0, trained)):
        with blend.applied(share):
            assert all(torch.equal(v, wanted[k]) for k, v in method.state_dict().items())
        assert all(torch.equal(v, trained[k]) for k, v in method.state_dict().items())


def test_auto_keeps_the_share_that_validates_best_and_records_it(tmp_path):
    """The validation likes weights 0.7 of the way from the start of the run."""
    start = toy_method().net[0].weight.detach().clone()
    trained, _ = toy_fit(make_run(tmp_path / "first"), epochs=1)
    far = float((trained.net[0].weight.detach() - start).norm())

    def validate(m: Toy) -> dict[str, float]:
        return {"val/mAP@all": 1 - abs(float((m.net[0].weight.detach() - start).norm()) / far - 0.7)}

    run = make_run(tmp_path / "second")
    method, result = toy_fit(run, epochs=1, blend="auto", validate=validate)
    assert result.blend == 0.7
    assert result.best["val/blend"] == 0.7
    wanted = torch.lerp(start, method.net[0].weight.detach(), 0.7)
    assert torch.equal(read_weights(run.checkpoints / "best")["net.0.weight"], wanted)
    assert inspect(run.checkpoints / "best").metrics["val/blend"] == 0.7
    assert [row["val/blend"] for row in read_metrics(run.path) if "val/blend" in row] == [0.7]
    assert json.loads((run.path / "run.json").read_text())["finished"]["blend"] == 0.7


def test_auto_validates_every_share_once(tmp_path):
    calls = []
    toy_fit(
        make_run(tmp_path),
        epochs=2,
        blend="auto",
        validate=lambda m: {"val/mAP@all": 0.1 * len(calls[: calls.append(0)])},
    )
    assert len(calls) == 2 * len(SHARES)


class Measured(Toy):
    """A toy that measures something of the weights that retrieval uses, as `models.centring` does."""

    def __init__(self) -> None:
        super().__init__()
        self.centring = nn.Module()
        self.centring.register_buffer("sketch", torch.zeros(()))

    def before_retrieval(self, probe: object) -> None:
        self.centring.get_buffer("sketch").copy_(self.net[0].weight.sum())


def test_auto_stores_what_was_measured_at_the_share_that_stays_also_when_it_is_not_the_best_so_far(tmp_path):
    """Of each epoch's seven shares the second is the best; the second epoch is worse than the first."""
    calls = []

    def validate(m: Toy) -> dict[str, float]:
        calls.append(0)
        epoch, share = divmod(len(calls) - 1, len(SHARES))
        return {"val/mAP@all": 0.5 - 0.1 * epoch + 0.01 * (share == 1)}

    run = make_run(tmp_path)
    torch.manual_seed(0)
    _, result = toy_fit(run, method=Measured(), epochs=2, blend="auto", validate=validate)
    assert (result.blend, result.best_step) == (SHARES[1], 5)
    for which in ("best", "last"):
        stored = read_weights(run.checkpoints / which)
        torch.testing.assert_close(stored["centring.sketch"], stored["net.0.weight"].sum(), msg=which)


@pytest.mark.parametrize("options", [{}, {"validate": lambda m: {"val/mAP@all": 1.0}, "validate_every": 0}])
def test_auto_without_validation_is_refused_before_training(tmp_path, options):
    with pytest.raises(UsageError, match=r"set train\.blend to a number"):
        toy_fit(make_run(tmp_path), blend="auto", **options)


def test_statistics_that_ranks_share_are_blended_too():
    """`share_statistics` gives a layer new tensors at each step, and the blend must not hold on to the old ones."""
    method = normed()
    blend, norm = Blend(method), method.net[1][0]
    norm.running_mean = norm.running_mean + 1
    with blend.applied(0.3):
        torch.testing.assert_close(norm.running_mean, torch.full((16,), 0.3))
    torch.testing.assert_close(norm.running_mean, torch.ones(16))
