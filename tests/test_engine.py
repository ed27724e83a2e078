"""The training loop: exact resuming, accumulation, selection, stopping, files, reports."""

import json
import math
import multiprocessing
import os
import signal

import pytest
import torch
from engine_helpers import Toy, ToyItems, make_run, same_weights, toy_data, toy_fit, toy_method
from torch import nn

from zssbir_cli.engine.report import Silent
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import latest_run, read_metrics
from zssbir_cli.errors import Interrupted
from zssbir_cli.methods.base import StepOutput
from zssbir_cli.recipe.schema import OptimConfig

TIMES = ("images_per_s", "data_wait")


def rows(run: RunDir) -> list[dict]:
    """Rows of metrics.jsonl without the measured times."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run.path)]


class StopAt(Silent):
    """Hooks that signal this process when they hear of a step."""

    def __init__(self, step: int, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.step, self.number = step, number

    def report(self, report) -> None:
        super().report(report)
        if report.step == self.step:
            os.kill(os.getpid(), self.number)


def validate(method) -> dict[str, float]:
    value = float(method.net[0].weight.detach().double().sum())
    return {"val/mAP@all": math.sin(1e4 * value)}


OPTIONS = {
    "plain": {},
    "adam, clipping, accumulation": {
        "optim": OptimConfig(name="adam", lr=1e-2, clip_norm=0.5, accumulate=2, schedule="constant")
    },
    "sgd, ema": {"optim": OptimConfig(name="sgd", lr=1e-1), "ema": 0.9},
    "ema, blend": {"ema": 0.9, "blend": 0.6},
    "blend chosen": {"blend": "auto"},
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("stop_at", [3, 5])
def test_six_steps_resumed_equal_ten(tmp_path, name, stop_at):
    """With dropout, a running centre, validation and a different start of the second process."""
    options = dict(OPTIONS[name], validate=validate, epochs=2)
    straight, a = toy_fit(make_run(tmp_path / "a"), method=toy_method(dropout=0.3), **options)
    run = make_run(tmp_path / "b")
    with pytest.raises(Interrupted, match="--resume"):
        toy_fit(run, method=toy_method(dropout=0.3), hooks=StopAt(stop_at), **options)
    middle = read_metrics(run.path)[-1]["step"]
    assert stop_at <= middle <= a.steps
    resumed, b = toy_fit(run, method=toy_method(seed=99, dropout=0.3), resume=True, workers=2, **options)
    assert same_weights(straight, resumed)
    assert (a.best, a.best_step, a.metrics, a.steps) == (b.best, b.best_step, b.metrics, b.steps)
    assert rows(run) == rows(RunDir(latest_run(tmp_path / "a")))


def test_means_between_reports_survive_a_stop(tmp_path):
    """With 20 steps an epoch every second step is reported; the stop after step 5 falls between two
    reports."""
    straight, _ = toy_fit(make_run(tmp_path / "a"), data=toy_data(steps=20), epochs=1)
    run = make_run(tmp_path / "b")
    with pytest.raises(Interrupted, match="after step 5 of 20"):
        toy_fit(run, data=toy_data(steps=20), epochs=1, hooks=StopAt(4))
    resumed, _ = toy_fit(run, data=toy_data(steps=20), epochs=1, resume=True)
    assert same_weights(straight, resumed)
    assert rows(run) == rows(RunDir(latest_run(tmp_path / "a")))


def test_same_seed_same_run_and_other_seed_another(tmp_path):
    one, _ = toy_fit(make_run(tmp_path), method=toy_method(dropout=0.3), epochs=1)
    two, _ = toy_fit(make_run(tmp_path), method=toy_method(dropout=0.3), epochs=1, workers=2)
    other, _ = toy_fit(make_run(tmp_path), method=toy_method(dropout=0.3), epochs=1, seed=1)
    assert same_weights(one, two)
    assert not same_weights(one, other)


def test_learns(tmp_path):
    toy_fit(make_run(tmp_path), epochs=8, optim=OptimConfig(lr=3e-2))
    losses = [row["loss"] for row in read_metrics(latest_run(tmp_path)) if "loss" in row]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_accumulated_small_batches_equal_one_large(tmp_path):
    """A loss that is a mean over items has the same gradient in two halves."""

    class Mean(Toy):
        def forward(self, batch):
            loss = nn.functional.cross_entropy(self.net(batch["x"]), batch["label"])
            return StepOutput(loss, {"loss/ce": loss.detach()})

    torch.manual_seed(0)
    large, small = Mean(), Mean()
    small.load_state_dict(large.state_dict())
    optim = {"name": "sgd", "lr": 0.1, "schedule": "constant"}
    rows_large = toy_data(steps=2, batch=12)

    class Halves:
        steps_per_epoch = 4

        def batches(self, epoch):
            return rows_large.plan.batches(epoch).reshape(4, 6, 1)

    toy_fit(make_run(tmp_path / "large"), method=large, data=rows_large, epochs=1, optim=OptimConfig(**optim))
    toy_fit(
        make_run(tmp_path / "small"),
        method=small,
        data=rows_large._replace(plan=Halves()),
        epochs=1,
        batch=6,
        optim=OptimConfig(**optim, accumulate=2),
    )
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_ema_is_what_retrieval_uses(tmp_path):
    seen = {}

    def look(method):
        seen["weight"] = method.net[0].weight.detach().clone()
        return {"val/mAP@all": 0.5}

    run = make_run(tmp_path)
    method, _ = toy_fit(run, ema=0.99, validate=look, epochs=1)
    from zssbir_cli.engine.checkpoint import read_weights

    best = read_weights(run.checkpoints / "best")["net.0.weight"]
    last = read_weights(run.checkpoints / "last")["net.0.weight"]
    assert torch.equal(best, seen["weight"])
    assert torch.equal(last, seen["weight"])
    assert not torch.equal(method.net[0].weight, seen["weight"])


def test_best_is_chosen_by_validation(tmp_path):
    values = iter([0.3, 0.7, 0.5])
    run = make_run(tmp_path)
    _, result = toy_fit(run, epochs=3, validate=lambda m: {"val/mAP@all": next(values), "val/other": 1.0})
    assert result.best_step == 10
    assert result.best == {"val/mAP@all": 0.7, "val/other": 1.0}
    assert result.metrics["val/mAP@all"] == 0.5
    assert json.loads((run.checkpoints / "best" / "meta.json").read_text())["step"] == 10


def test_a_validation_that_is_not_a_number_never_wins(tmp_path):
    values = iter([math.nan, 0.2, math.nan])
    _, result = toy_fit(make_run(tmp_path), epochs=3, validate=lambda m: {"val/mAP@all": next(values)})
    assert (result.best, result.best_step) == ({"val/mAP@all": 0.2}, 10)


def test_a_signal_during_validation_stops_before_the_next_epoch(tmp_path):
    def signalled(method):
        if method.epochs_begun == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"val/mAP@all": 0.5}

    straight, _ = toy_fit(make_run(tmp_path / "a"), validate=lambda m: {"val/mAP@all": 0.5})
    run = make_run(tmp_path / "b")
    with pytest.raises(Interrupted, match="after step 5 of 10"):
        toy_fit(run, validate=signalled)
    resumed, _ = toy_fit(run, validate=signalled, resume=True, method=toy_method(seed=8))
    assert same_weights(straight, resumed)
    assert rows(run) == rows(RunDir(latest_run(tmp_path / "a")))


def test_files_of_a_run(tmp_path):
    run = make_run(tmp_path)
    toy_fit(run, epochs=4, keep_every=2, validate=validate)
    files = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    full = {"model.safetensors", "state.pt", "meta.json"}
    kept = {
        f"checkpoints/{c}/{f}" for c in ("last", "last.previous", "epoch-0002", "epoch-0004") for f in full
    }
    best = {f"checkpoints/best/{f}" for f in full - {"state.pt"}}
    assert files == {"recipe.yaml", "run.json", "metrics.jsonl"} | kept | best
    assert (tmp_path / "latest").resolve() == run.path


def test_overfit_repeats_the_same_items(tmp_path):
    keys = []

    class Watch(ToyItems):
        def __getitem__(self, key):
            keys.append(key)
            return super().__getitem__(key)

    toy_fit(make_run(tmp_path), data=toy_data(items=Watch()), epochs=2, overfit=2)
    assert keys[:24] == keys[24:48] == keys[48:72]
    assert len(set(keys)) == 24
    assert len(keys) == 120


def test_reports_tell_speed_and_time_left(tmp_path):
    hooks = Silent()
    toy_fit(make_run(tmp_path), hooks=hooks, epochs=2)
    last = hooks.reports[-1]
    assert (last.step, last.total_steps, last.epoch, last.eta_s) == (10, 10, 2.0, 0.0)
    assert hooks.reports[0].eta_s > 0
    assert all(r.images_per_s > 0 and 0 <= r.data_wait <= 1 and r.memory_mb > 10 for r in hooks.reports)
    assert set(last.logs) == {"loss", "loss/contrast", "loss/pull", "lr"}


def test_metrics_hold_one_row_a_step_whatever_logs_it(tmp_path):
    """A report, a validation and what the next epoch begins with fall on one step; a full disk or a damaged end in
    between loses nothing that was written."""
    run = make_run(tmp_path)
    run.append({"step": 0, "clusters": 3})
    run.append({"step": 2, "loss": 1.5})
    run.append({"step": 2, "val/mAP@all": 0.25, "best": float("nan")})
    run.append({"step": 4, "loss": 1.0})
    merged = {"step": 2, "loss": 1.5, "val/mAP@all": 0.25, "best": None}
    assert [json.loads(line) for line in run.metrics_file.read_text().splitlines()] == [
        {"step": 0, "clusters": 3}, merged, {"step": 4, "loss": 1.0},
    ]  # fmt: skip
    with run.metrics_file.open("a") as file:
        file.write('{"step": 9, "lo')
    again = RunDir(run.path)
    again.trim(run.rows)
    again.append({"step": 4, "val/mAP@all": 0.5})
    again.append({"step": 6, "loss": 0.75})
    assert again.rows == 4
    assert read_metrics(run.path)[2:] == [
        {"step": 4, "loss": 1.0, "val/mAP@all": 0.5},
        {"step": 6, "loss": 0.75},
    ]
    old = '{"step": 3, "loss": 2.0}\n{"step": 3, "val/mAP@all": 0.1}\n{"step": 5, "loss": 1.0}\n'
    run.metrics_file.write_text(old)
    assert read_metrics(run.path) == [{"step": 3, "loss": 2.0, "val/mAP@all": 0.1}, {"step": 5, "loss": 1.0}]


def test_runs_that_begin_in_the_same_second_have_a_folder_each(tmp_path):
    """Eight processes at once, as a job array starts them; `latest` is one of theirs."""
    start = multiprocessing.get_context("fork").Barrier(8)

    def begin():
        start.wait(30)
        make_run(tmp_path).point_latest()
        os._exit(0)

    jobs = [multiprocessing.get_context("fork").Process(target=begin) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * 8
    runs = list(tmp_path.glob("2*"))
    assert len(runs) == 8
    assert all((run / "run.json").is_file() for run in runs)
    assert (tmp_path / "latest").resolve() in [run.resolve() for run in runs]
    assert not list(tmp_path.rglob("*.partial"))
