"""What stands around the loop: list of runs, comparison, profile, TensorBoard, compiling, attention
kernels."""

import builtins
import copy
import json
import os
import signal

import pytest
import torch
from engine_helpers import ToyItems, make_run, toy_data, toy_fit, toy_method
from torch import nn
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.cli.display import print_profile
from zssbir_cli.compute.precision import Precision, choose_attention, for_embedding
from zssbir_cli.engine.job import Job
from zssbir_cli.engine.profile import PHASES, profile_steps
from zssbir_cli.engine.report import Silent, TensorBoardHooks
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import find_run
from zssbir_cli.engine.step import Stepper
from zssbir_cli.errors import DataError, Interrupted, UsageError
from zssbir_cli.recipe.loader import dump_recipe, find_recipe, load_recipe
from zssbir_cli.recipe.schema import OptimConfig, TrainConfig
from zssbir_cli.workflows.paper_table import paper_table
from zssbir_cli.workflows.runs import compare_runs, list_runs

CPU = torch.device("cpu")


def make_real_run(root, *settings, finished: bool = True, rows=()) -> RunDir:
    recipe = load_recipe(find_recipe("demo.yaml"), list(settings))
    record = {"data": {"name": "demo"}, "versions": {"torch": "2.6"}}
    resolved = recipe.model_dump(mode="json")
    run = RunDir.create(
        root, recipe.name, recipe=resolved, recipe_yaml=dump_recipe(recipe), data={}, record=record
    )
    for row in rows:
        run.append(row)
    if finished:
        run.update_record({"finished": {"steps": 20}})
    return run


class Told(ToyItems):
    """Toy items that tell of each that is taken."""

    def __init__(self, tell) -> None:
        self.tell = tell

    def __getitem__(self, key):
        self.tell(key)
        return super().__getitem__(key)


@pytest.fixture
def two_runs(tmp_path):
    a = make_real_run(
        tmp_path,
        rows=[
            {"step": 10, "epoch": 1.0, "loss": 2.0},
            {"step": 10, "epoch": 1.0, "val/mAP@all": 0.4},
            {"step": 20, "epoch": 2.0, "loss": float("nan"), "val/mAP@all": 0.3},
        ],
    )
    (a.path / "eval").mkdir()
    measures = [
        {"name": "mAP@all", "convention": "sake", "value": 0.9},
        {"name": "mAP@all", "convention": "voc", "value": 0.5},
    ]
    (a.path / "eval" / "zs.json").write_text(json.dumps({"measures": measures}))
    b = make_real_run(tmp_path, "optim.lr=0.5", finished=False)
    return a, b


def test_runs_are_listed_with_their_numbers(tmp_path, two_runs):
    a, b = list_runs(tmp_path)
    assert (a.recipe, a.method, a.data, a.step, a.loss, a.best_val) == (
        "demo",
        "triplet",
        "demo",
        20,
        2.0,
        0.4,
    )
    assert (a.results, a.state, b.state, b.step, b.loss) == ({"zs": 0.5}, "finished", "stopped", 0, None)


def progress(root) -> tuple[str, int, float]:
    found = list_runs(root)[-1]
    return found.state, found.step, found.epoch


def test_a_run_is_as_far_as_the_checkpoint_it_would_continue_from(tmp_path):
    """Stopped before a step was logged, killed with rows beyond the checkpoint, begun again from an earlier one."""
    run = make_real_run(tmp_path, finished=False)
    seen = []

    def stop_soon(batch):
        seen.append(list_runs(tmp_path)[-1].state)
        os.kill(os.getpid(), signal.SIGTERM)

    with run.locked(), pytest.raises(Interrupted, match="after step 2 of"):
        toy_fit(run, epochs=2, data=toy_data(steps=40, items=Told(stop_soon)))
    assert seen[0] == "training"
    assert progress(tmp_path) == ("stopped", 2, 0.0)
    run.append({"step": 4, "epoch": 0.1, "loss": 9.0, "val/mAP@all": 0.9})
    assert (progress(tmp_path), list_runs(tmp_path)[-1].loss, list_runs(tmp_path)[-1].best_val) == (
        ("stopped", 2, 0.0), None, None,
    )  # fmt: skip
    toy_fit(run, epochs=2, data=toy_data(steps=40), resume=True, keep_every=1)
    assert progress(tmp_path) == ("finished", 80, 2.0)
    (run.checkpoints / "last").rename(tmp_path / "last")  # a kill between two renames
    assert progress(tmp_path) == ("stopped", 40, 1.0)
    (tmp_path / "last").rename(run.checkpoints / "last")
    with pytest.raises(Interrupted):
        toy_fit(
            run, epochs=2, data=toy_data(steps=40, items=Told(stop_soon)),
            resume=run.checkpoints / "epoch-0001",
        )  # fmt: skip
    state, step, epoch = progress(tmp_path)
    assert (state, epoch) == ("stopped", pytest.approx(step / 40))
    assert 40 < step < 50


def test_a_run_killed_after_its_last_checkpoint_is_finished_by_resuming_it(tmp_path):
    run = make_real_run(tmp_path, finished=False)
    toy_fit(run, epochs=1)
    run.update_record({"finished": None})
    assert progress(tmp_path)[0] == "stopped"
    toy_fit(run, epochs=1, resume=True)
    assert progress(tmp_path) == ("finished", 5, 1.0)


def test_a_damaged_run_does_not_hide_the_others(tmp_path, two_runs):
    a, _ = two_runs
    (a.path / "recipe.yaml").write_text("name: [")
    assert [r.state for r in list_runs(tmp_path)] == ["unreadable", "stopped"]
    for row in ({"step": "x"}, {"step": 0, "loss": "low"}, {"step": 0, "val/mAP@all": [1]}):
        two_runs[1].metrics_file.write_text(json.dumps(row) + "\n")
        assert [r.state for r in list_runs(tmp_path)] == ["unreadable", "unreadable"]


DEEP = "[" * 100_000


def test_numbers_beyond_all_bounds_and_endless_nesting_are_damage(tmp_path, two_runs):
    a, b = two_runs
    (a.path / "eval" / "zs.json").write_text(DEEP)
    for text in ('{"measures": [{"name": "mAP@all", "convention": "voc", "value": %s}]}' % 10**400, "[]"):
        (a.path / "eval" / "x.json").write_text(text)
        assert list_runs(tmp_path)[0].results == {}
    b.metrics_file.write_text('{"step": Infinity}\n')
    assert [r.state for r in list_runs(tmp_path)] == ["finished", "unreadable"]
    b.metrics_file.write_text('{"step": 3}\n' + DEEP)
    assert list_runs(tmp_path)[1].state == "stopped"
    (b.path / "run.json").write_text(DEEP)
    assert list_runs(tmp_path)[1].state == "unreadable"
    with pytest.raises(DataError, match=r"zs\.json: not a result of `zssbir eval` \(nested too deeply\)"):
        paper_table([], tmp_path)
    huge = '{"measures": [{"name": "", "convention": "", "value": %s}]}' % 10**400
    (a.path / "eval" / "x.json").write_text(huge)
    with pytest.raises(DataError, match=r"x\.json: not a result of"):
        paper_table([], tmp_path, result="x")


def test_comparison_names_what_differs(tmp_path, two_runs):
    a, b = two_runs
    b.update_record({"versions": {"torch": "2.7"}, "command": ["zssbir", "--data", "my set"]})
    found = compare_runs(a.path, b.path)
    assert found["recipe"] == [("optim.lr", "0.003", "0.5")]
    assert ("versions.torch", "2.6", "2.7") in found["record"]
    assert [new for key, _, new in found["record"] if key == "command"] == ["zssbir --data 'my set'"]
    assert ("best val: mAP@all %", "40.0", "-") in found["outcome"]
    assert ("eval zs: mAP@all %", "50.0", "-") in found["outcome"]


def test_runs_on_the_command_line(tmp_path, two_runs):
    a = two_runs[0].path.name
    result = CliRunner().invoke(app, ["runs", "--runs", str(tmp_path)])
    assert result.exit_code == 0
    assert a in result.stdout
    assert "40.0" in result.stdout
    assert "zs 50.0" in result.stdout  # percent, as `eval` prints it
    assert "latest" not in result.stdout  # no run has a checkpoint yet
    listed = json.loads(CliRunner().invoke(app, ["runs", "--runs", str(tmp_path), "--json"]).stdout)
    assert [r["best_val"] for r in listed] == [0.4, None]
    toy_fit(two_runs[1], epochs=1)
    marked = CliRunner().invoke(app, ["runs", "--runs", str(tmp_path)], env={"COLUMNS": "160"}).stdout
    assert f"{two_runs[1].path.name} (latest)" in marked
    assert f"{a} (latest)" not in marked
    result = CliRunner().invoke(app, ["runs", "--runs", str(tmp_path), "compare", a, "latest", "--json"])
    assert json.loads(result.stdout)["recipe"] == [["optim.lr", "0.003", "0.5"]]


def test_a_run_is_found_by_path_name_part_or_latest(tmp_path, two_runs):
    a, b = (r.path for r in two_runs)
    assert find_run(str(a), tmp_path).path == find_run(a.name, tmp_path).path == a
    with pytest.raises(UsageError, match="no run with a checkpoint"):
        find_run("latest", tmp_path)
    toy_fit(two_runs[1], epochs=1)
    assert find_run("latest", tmp_path).path == find_run(None, tmp_path).path == b
    toy_fit(two_runs[0], epochs=1)
    assert (
        find_run("latest", tmp_path).path
        == find_run(tmp_path / "latest").path
        == find_run(tmp_path).path
        == a
    )
    chosen = find_run(b / "checkpoints" / "last", tmp_path)
    assert (chosen.path, chosen.which) == (b, "last")
    with pytest.raises(UsageError, match="several runs"):
        find_run("demo", tmp_path)
    with pytest.raises(UsageError, match="no run under"):
        find_run("nothing", tmp_path)
    with pytest.raises(UsageError, match="no such folder"):
        list_runs(tmp_path / "nowhere")


def test_profile_accounts_for_the_whole_step(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    job = Job(
        toy_method(),
        toy_data(),
        OptimConfig(accumulate=2),
        TrainConfig(batch_size=12),
        Precision("fp32", CPU),
        probe=None,
    )
    found = profile_steps(job, 4)
    assert set(found.phases) == {*PHASES, "other"}
    assert sum(found.phases.values()) == pytest.approx(found.step_ms, rel=0.2)
    assert found.phases["forward"] > 0
    assert any("aten::" in name for name, _ in found.operators)
    assert found.images_per_s == pytest.approx(24 / found.step_ms * 1e3)
    assert not list(tmp_path.iterdir()), "profiling writes nothing"
    print_profile(found)
    assert "forward" in capsys.readouterr().out


def test_tensorboard_events_hold_the_reports(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    hooks = TensorBoardHooks(tmp_path / "tb", Silent())
    toy_fit(make_run(tmp_path), epochs=1, hooks=hooks, validate=lambda m: {"val/mAP@all": 0.25})
    hooks.close()
    events = accumulator.EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert events.Scalars("val/mAP@all")[0].value == 0.25


def test_tensorboard_without_the_package_is_said_before_training(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=r"pip install '\.\[tensorboard\]'"):
        TensorBoardHooks(tmp_path, Silent())


def test_attention_trains_with_explicit_products_in_bf16_on_a_cpu():
    import timm

    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0)
    blocks = [m for m in vit.modules() if hasattr(m, "fused_attn")]
    assert blocks
    x = torch.rand(2, 3, 32, 32)
    fused = vit.eval()(x)
    choose_attention(vit, Precision("bf16", CPU), training=True)
    assert not any(b.fused_attn for b in blocks)
    assert torch.allclose(vit(x), fused, atol=1e-4)
    choose_attention(vit, Precision("bf16", CPU), training=False)
    assert all(b.fused_attn for b in blocks)
    choose_attention(vit, Precision("fp32", CPU), training=True)
    assert all(b.fused_attn for b in blocks)


def test_networks_embed_in_one_form_that_changes_no_embedding() -> None:
    import timm

    network = timm.create_model("test_resnet", num_classes=0).train()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = copy.deepcopy(network).eval()(images)
    kernels = [p for p in network.parameters() if p.ndim == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    assert for_embedding(network, CPU, channels_last=False) is network
    assert not network.training
    assert all(p.is_contiguous() for p in kernels)
    for_embedding(network, CPU)
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)
    torch.testing.assert_close(network(images), before)


@pytest.mark.parametrize("wanted", [True, False])
def test_validation_embeds_in_the_layout_of_the_training(wanted: bool) -> None:
    method = toy_method()
    method.seen = nn.Conv2d(3, 4, 3)
    stepper = Stepper(method, OptimConfig(), TrainConfig(channels_last=wanted), Precision("fp32", CPU))
    stepper.train_mode()
    stepper.eval_mode()
    assert not method.training
    assert method.seen.weight.is_contiguous(memory_format=torch.channels_last) == wanted


def test_compile_replaces_the_backbones_forward_and_keeps_parameter_names(monkeypatch):
    from zssbir_cli.models.encoder import build_encoder
    from zssbir_cli.recipe.schema import ModelConfig
    from zssbir_cli.workflows.setup import compile_encoders

    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = build_encoder(ModelConfig(backbone="resnet10t", weights="none"), 32, False)

    calls = []

    def fake(function):
        def wrapped(x):
            calls.append(tuple(x.shape))
            return function(x)

        return wrapped

    monkeypatch.setattr(torch, "compile", fake)
    holder = Holder()
    names = set(holder.state_dict())
    compile_encoders(holder)
    holder.encoder(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert calls == [(2, 3, 32, 32)]
    assert set(holder.state_dict()) == names
