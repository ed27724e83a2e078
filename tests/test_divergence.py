"""Losses and weights that are not finite: skipped, counted, never saved."""

import json
import math

import pytest
import torch
from engine_helpers import Toy, ToyItems, make_run, same_weights, toy_data, toy_fit
from torch import nn

from zssbir_cli.engine.runs import latest_run, read_metrics
from zssbir_cli.errors import DivergedError
from zssbir_cli.methods.base import StepOutput
from zssbir_cli.recipe.schema import OptimConfig


class Poisoned(ToyItems):
    """Items of chosen steps (of 12 items) are not a number."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps

    def __getitem__(self, key):
        item = super().__getitem__(key)
        if key[1] // 12 + 5 * key[0] in self.steps:
            item["x"] = item["x"] * math.nan
        return item


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_non_finite_loss_changes_nothing(tmp_path, name):
    """The step is skipped on the device: weights stay finite and the run ends well."""
    optim = OptimConfig(name=name, lr=1e-2)

    class Plain(Toy):
        def forward(self, batch):
            loss = nn.functional.cross_entropy(self.net(batch["x"]), batch["label"])
            return StepOutput(loss, {})

    torch.manual_seed(0)
    method, start = Plain(), Plain()
    start.load_state_dict(method.state_dict())
    toy_fit(make_run(tmp_path), method=method, data=toy_data(items=Poisoned({0, 1})), epochs=1, optim=optim)
    assert all(torch.isfinite(p).all() for p in method.parameters())
    assert not same_weights(method, start)
    first = read_metrics(latest_run(tmp_path))[1:3]
    assert [row["loss"] for row in first] == [None, None]


def test_three_non_finite_losses_in_a_row_end_the_run(tmp_path):
    run = make_run(tmp_path)
    with pytest.raises(
        DivergedError, match=r"up to step 8 \(not finite: loss/contrast, loss/pull\)"
    ) as caught:
        toy_fit(run, data=toy_data(items=Poisoned({1, 2, 5, 6, 7})), epochs=2)
    assert caught.value.exit_code == 5
    assert json.loads((run.checkpoints / "last" / "meta.json").read_text())["step"] == 5


def test_weights_that_are_not_finite_are_never_saved(tmp_path):
    class Overflow(Toy):
        def forward(self, batch):
            output = super().forward(batch)
            zero = (self.net[0].weight * 0).sum()
            return StepOutput(output.loss + torch.sqrt(zero), output.logs)  # gradient 0 * inf

    run = make_run(tmp_path)
    torch.manual_seed(0)
    with pytest.raises(DivergedError):
        toy_fit(run, method=Overflow(), epochs=1, data=toy_data(steps=2))
    assert not (run.checkpoints / "last").exists()
