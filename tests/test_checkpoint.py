"""Checkpoints: complete or not there, verified, refused with a reason, the one before offered."""

import copy
import json
import pickle

import pytest
import torch
from cases import cases
from engine_helpers import make_run, same_weights, toy_fit, toy_method
from hypothesis import example, given
from hypothesis import strategies as st

from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.meta import read_meta
from zssbir_cli.engine.report import Silent
from zssbir_cli.engine.resume import changes
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import read_metrics
from zssbir_cli.errors import CheckpointError
from zssbir_cli.recipe.schema import Recipe

FACTS = {"step": 7, "epoch": 1, "recipe": {"a": 1}, "data": {}, "metrics": {}, "precision": "fp32"}


def write(path, value: float = 1.0, **options):
    weights = {"w": torch.full((4, 3), value), "b": torch.zeros(2)}
    return checkpoint.save(path, weights, {"optimizer": {"lr": 0.1}}, FACTS, **options)


def test_round_trip(tmp_path):
    info = write(tmp_path / "last")
    assert checkpoint.inspect(tmp_path / "last") == info
    assert (info.step, info.epoch, info.recipe) == (7, 1, {"a": 1})
    assert torch.equal(checkpoint.read_weights(tmp_path / "last")["w"], torch.ones(4, 3))
    assert checkpoint.load_state(tmp_path / "last") == {"optimizer": {"lr": 0.1}}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last"]


def test_tied_strided_and_transposed_tensors_are_stored(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    weights = {
        "a": base,
        "tied": base,
        "part": base[1:],
        "t": base.T,
        "cl": torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    checkpoint.save(tmp_path / "c", weights, None, FACTS)
    loaded = checkpoint.read_weights(tmp_path / "c")
    assert all(torch.equal(loaded[k], weights[k]) for k in weights)


@pytest.mark.parametrize("name", ["model.safetensors", "state.pt", "meta.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "gone"])
def test_damage_is_named_and_the_one_before_is_offered(tmp_path, name, damage):
    write(tmp_path / "last", 1.0, keep_previous=True)
    write(tmp_path / "last", 2.0, keep_previous=True)
    file = tmp_path / "last" / name
    raw = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        raw[len(raw) // 2] ^= 0x41
        file.write_bytes({"cut": raw[: len(raw) // 2], "flip": raw, "empty": b""}[damage])
    with pytest.raises(CheckpointError) as caught:
        checkpoint.inspect(tmp_path / "last")
    message = str(caught.value)
    assert name in message
    assert (
        f"the one before it (step 7) is intact: continue with --resume {tmp_path / 'last.previous'}"
        in message
    )
    assert torch.equal(checkpoint.read_weights(tmp_path / "last.previous")["w"], torch.ones(4, 3))


@cases(60)
@given(data=st.data())
def test_any_changed_byte_is_noticed(tmp_path, data):
    path = tmp_path / "c"
    write(path)
    name = data.draw(st.sampled_from(["model.safetensors", "state.pt", "meta.json"]))
    raw = bytearray((path / name).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    (path / name).write_bytes(raw)
    with pytest.raises(CheckpointError, match=name):
        checkpoint.inspect(path)


def test_any_changed_byte_of_the_facts_is_noticed(tmp_path):
    """Also one that leaves the JSON as it means: between two kinds of blanks, or in the name of the checksum."""
    write(tmp_path / "c")
    meta = tmp_path / "c" / "meta.json"
    raw = meta.read_bytes()
    read_meta(meta)
    for place in range(len(raw)):
        for flip in (1, ord("\n") ^ ord("\r"), ord(" ") ^ ord("\t"), ord(" ") ^ ord("\n"), 0x20, 0x80):
            meta.write_bytes(raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :])
            with pytest.raises(ValueError):
                read_meta(meta)


@cases(60)
@given(
    text=st.one_of(
        st.text(max_size=40),
        st.recursive(
            st.none() | st.integers() | st.text(max_size=5),
            lambda s: (
                st.lists(s, max_size=3)
                | st.dictionaries(st.sampled_from(["format_version", "sha256", "step"]), s, max_size=3)
            ),
        ).map(json.dumps),
    )
)
@example(text="[" * 100_000)
def test_any_meta_json_gives_an_answer_or_a_checkpoint_error(tmp_path, text):
    path = tmp_path / "c"
    write(path)
    (path / "meta.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"meta\.json|format version"):
        checkpoint.inspect(path)


@pytest.mark.parametrize("key", ["recipe", "data", "metrics", "precision", "step"])
def test_meta_json_with_a_changed_value_is_refused_and_one_without_a_seal_must_fit(tmp_path, key):
    write(tmp_path / "c")
    meta = tmp_path / "c" / "meta.json"
    facts = json.loads(meta.read_text())
    meta.write_text(json.dumps(facts | {key: facts[key] or {"more": 1}, "more": 1}))
    with pytest.raises(CheckpointError, match=r"meta\.json is damaged .*changed after it was written"):
        checkpoint.inspect(tmp_path / "c")
    del facts["seal"]  # as older versions wrote it
    meta.write_text(json.dumps(facts))
    assert checkpoint.inspect(tmp_path / "c").step == facts["step"]
    if key in ("recipe", "data", "metrics"):
        meta.write_text(json.dumps(facts | {key: None}))
        with pytest.raises(CheckpointError, match=r"meta\.json is damaged"):
            checkpoint.inspect(tmp_path / "c")
    meta.write_text(json.dumps(facts | {"step": float("inf")}))
    with pytest.raises(CheckpointError, match=r"meta\.json is damaged \(OverflowError"):
        checkpoint.inspect(tmp_path / "c")


def test_a_newer_format_is_refused_as_such(tmp_path):
    write(tmp_path / "c")
    meta = tmp_path / "c" / "meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "format_version": 99}))
    with pytest.raises(CheckpointError, match="format version 99 is unknown"):
        checkpoint.inspect(tmp_path / "c")


def test_code_in_a_state_file_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    write(tmp_path / "c")
    torch.save({"optimizer": Evil()}, tmp_path / "c" / "state.pt")
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        checkpoint.load_state(tmp_path / "c")
    (tmp_path / "c" / "state.pt").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match=r"state\.pt"):
        checkpoint.load_state(tmp_path / "c")
    assert not (tmp_path / "owned").exists()


def test_a_failed_write_leaves_the_old_one(tmp_path, monkeypatch):
    write(tmp_path / "last")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*the one before it is intact"):
        write(tmp_path / "last", 2.0)
    assert checkpoint.inspect(tmp_path / "last").step == 7
    assert torch.equal(checkpoint.read_weights(tmp_path / "last")["w"], torch.ones(4, 3))
    assert [p.name for p in tmp_path.iterdir()] == ["last"]


def test_loading_names_what_does_not_fit(tmp_path):
    module = torch.nn.Linear(3, 4)
    cases = {
        "missing tensors: bias": {"weight": torch.zeros(4, 3)},
        "unknown tensors: x": {"weight": torch.zeros(4, 3), "bias": torch.zeros(4), "x": torch.zeros(1)},
        "other shapes: weight (4, 2) for (4, 3)": {"weight": torch.zeros(4, 2), "bias": torch.zeros(4)},
    }
    for message, weights in cases.items():
        with pytest.raises(CheckpointError) as caught:
            checkpoint.load_into(module, weights, tmp_path, needed=set(module.state_dict()))
        assert message in str(caught.value)


def test_another_recipe_or_data_set_is_refused_naming_the_keys(tmp_path):
    run = make_run(tmp_path, optim={"lr": 1e-4, "name": "adam"}, data={"workers": 2}, sizes=[1, 2])
    toy_fit(run, epochs=1)
    changed = {"optim": {"lr": 2e-4, "name": "adam"}, "data": {"workers": 8}, "sizes": (1, 2), "extra": True}
    other = RunDir(run.path, {"name": "new", **changed}, {"identity": "b"})
    with pytest.raises(CheckpointError) as caught:
        toy_fit(other, epochs=1, resume=True)
    message = str(caught.value)
    for part in ("optim.lr: 0.0001 -> 0.0002", "extra: (absent) -> True", "data set identity: a -> b"):
        assert part in message
    assert "workers" not in message
    assert "sizes" not in message
    free = {"name": "new", "optim": {"lr": 1e-4, "name": "adam"}, "data": {"workers": 8}, "sizes": [1, 2]}
    toy_fit(RunDir(run.path, free, {"identity": "a"}), epochs=1, resume=True)


def test_a_key_that_is_newer_than_the_checkpoint_has_its_default(tmp_path):
    """A run of a version that did not know `model.input` goes on; with another value it is refused."""
    now = Recipe.model_validate({"name": "old", "method": {"name": "triplet"}}).model_dump(mode="json")
    old = copy.deepcopy(now)
    del old["model"]["input"]
    run = RunDir.create(
        tmp_path, "old", recipe=old, recipe_yaml="", data={"name": "d", "identity": "0"}, record={}
    )
    straight, _ = toy_fit(run, epochs=2)
    resumed, _ = toy_fit(RunDir(run.path, now, run.data), epochs=2, resume=True, method=toy_method(seed=3))
    assert same_weights(straight, resumed)
    now["model"]["input"] = "contours"
    with pytest.raises(CheckpointError, match=r"other settings \(model.input: rgb -> contours\)"):
        toy_fit(RunDir(run.path, now, run.data), epochs=2, resume=True)


def test_differing_keys_of_nested_mappings():
    old, new = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}, {"a": {"b": 1, "c": {"d": 4}}}
    assert [str(c) for c in changes(old, new)] == ["a.c.d: 2 -> 4", "e: 3 -> (absent)"]


def test_weights_alone_cannot_be_resumed(tmp_path):
    run = make_run(tmp_path)
    toy_fit(run, epochs=1)
    with pytest.raises(CheckpointError, match="holds weights only"):
        toy_fit(run, epochs=1, resume=run.checkpoints / "best")


def test_a_kill_between_the_two_renames_resumes_from_the_one_before(tmp_path):
    straight, _ = toy_fit(make_run(tmp_path / "a"), epochs=3)
    run = make_run(tmp_path / "b")
    toy_fit(run, epochs=3)
    last = run.checkpoints / "last"
    checkpoint.copy(last, run.checkpoints / "last.partial")
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    resumed, result = toy_fit(run, epochs=3, resume=True, method=toy_method(seed=3))
    assert result.steps == 15
    assert same_weights(straight, resumed)


def test_a_run_without_a_checkpoint_starts_from_its_beginning(tmp_path):
    straight, _ = toy_fit(make_run(tmp_path / "a"), epochs=1)
    run, hooks = make_run(tmp_path / "b"), Silent()
    run.append({"step": 1, "loss": 0.5})
    resumed, _ = toy_fit(run, epochs=1, resume=True, hooks=hooks)
    assert same_weights(straight, resumed)
    assert hooks.notes == ["this run has no checkpoint yet: starting from the beginning"]
    assert {"step": 1, "loss": 0.5} not in read_metrics(run.path)


def validation(values):
    found = iter(values)
    return lambda method: {"val/mAP@all": next(found)}


class Obstacle(Silent):
    """From one reported step to another a file that cannot be removed as a folder lies where `best` is written."""

    def __init__(self, run, first, last):
        super().__init__()
        self.place, self.first, self.last = run.checkpoints / "best.partial", first, last

    def report(self, report):
        super().report(report)
        if report.step == self.first and report.images_per_s:
            self.place.write_text("in the way")
        if report.step == self.last and self.place.is_file():
            self.place.unlink()


@pytest.mark.parametrize("last", [13, 99])
def test_best_that_could_not_be_written_is_written_later_with_its_weights(tmp_path, last):
    """Validation 0.1, 0.9 (the write fails), 0.5, 0.4: `best` is what had 0.9, once it can be written."""
    straight = make_run(tmp_path / "a")
    toy_fit(straight, epochs=4, validate=validation([0.1, 0.9, 0.5, 0.4]))
    run = make_run(tmp_path / "b")
    hooks = Obstacle(run, 7, last)
    if last == 99:
        with pytest.raises(CheckpointError, match="best"):
            toy_fit(run, epochs=4, validate=validation([0.1, 0.9, 0.5, 0.4]), hooks=hooks)
        assert checkpoint.inspect(run.checkpoints / "best").step == 5, (
            "what is on disk is what the state says"
        )
        state = checkpoint.load_state(run.checkpoints / "last")["state"]
        assert (state["best"], state["best_step"]) == ({"val/mAP@all": 0.1}, 5)
        hooks.place.unlink()
        _, result = toy_fit(run, epochs=4, resume=True)
    else:
        _, result = toy_fit(run, epochs=4, validate=validation([0.1, 0.9, 0.5, 0.4]), hooks=hooks)
        assert any("best" in n and "tries again" in n for n in hooks.notes)
    best = checkpoint.inspect(run.checkpoints / "best")
    assert (best.step, best.metrics, result.best_step) == (10, {"val/mAP@all": 0.9}, 10)
    a, b = (checkpoint.read_weights(r.checkpoints / "best") for r in (straight, run))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_a_kill_between_the_two_renames_of_best_is_mended_on_resume(tmp_path):
    run = make_run(tmp_path)
    toy_fit(run, epochs=2, validate=validation([0.9, 0.5]))
    best = run.checkpoints / "best"
    best.rename(checkpoint.previous(best))
    toy_fit(run, epochs=3, resume=True, validate=validation([0.6]))
    assert checkpoint.inspect(best).metrics == {"val/mAP@all": 0.9}
    for file in best.iterdir():
        file.unlink()
    best.rmdir()
    toy_fit(run, epochs=4, resume=True, validate=validation([0.3]))
    assert checkpoint.inspect(best).metrics == {"val/mAP@all": 0.3}, "lost: the next validation writes one"


def test_a_skipped_step_moves_no_average(tmp_path):
    """One batch whose loss is not finite: weights and their average stay as they were."""
    from zssbir_cli.engine.averages import Ema

    module = torch.nn.Linear(2, 2)
    ema = Ema(module, 0.5)
    with torch.no_grad():
        module.weight.add_(1.0)
    before = ema.average["weight"].clone()
    ema.update(torch.ones(()))
    assert torch.equal(ema.average["weight"], before)
    ema.update(torch.zeros(()))
    assert not torch.equal(ema.average["weight"], before)
