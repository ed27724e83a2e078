"""A run that begins with another run's weights knows what those learnt from, wherever they lie."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY
from demo_helpers import draw_split
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import zssbir_cli as zssbir
from zssbir_cli.data.manifest import read_manifest
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.engine.runs import latest_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.models.weights import learnt_before
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.types import Role
from zssbir_cli.workflows.setup import Setup

MODEL = "checkpoints/best/model.safetensors"


def names(root: str, role: Role) -> list[str]:
    return [c.name for c in read_manifest(Path(root)).classes_of(role)]


def measured(**options: object) -> dict:
    return zssbir.evaluate(report=False, baselines=False, device="cpu", **options).as_json()


@pytest.fixture
def second(place: Path, caplog: pytest.LogCaptureFixture) -> Path:
    """A run on another split of the same pictures that began with the weights of the run in `place`, kept under another
    name; one of its three unseen classes was seen by that run and one chose its checkpoint."""
    seen, val, fresh = (names("data/pics", role)[0] for role in (Role.SEEN, Role.VAL, Role.UNSEEN))
    draw_split(Path("data/other"), unseen=[seen, val, fresh])
    shutil.copy(latest_run() / MODEL, "start.safetensors")
    Path("second.yaml").write_text(TINY.replace("DATA", "data/other").replace("none", "start.safetensors"))
    with caplog.at_level(logging.WARNING, "zssbir"):
        run = zssbir.train("second.yaml", device="cpu").run
    assert all(repr(name) in caplog.text for name in (seen, val))
    assert repr(fresh) not in caplog.text
    return run


def test_what_the_start_learnt_from_is_never_called_unseen(place: Path, second: Path) -> None:
    seen, val, fresh = (names("data/pics", role)[0] for role in (Role.SEEN, Role.VAL, Role.UNSEEN))
    found = measured(run=second)
    assert [row["class"] for row in found["per_class"]] == [fresh]
    assert (found["cross"], found["subset"], sorted(found["excluded"])) == (False, True, sorted([seen, val]))
    assert any("the start of these weights" in note for note in found["notes"])
    opened = open_gallery(Path("data/other"), torch.device("cpu"), run=second)
    assert seen in opened.note
    assert "began with" in opened.note
    with pytest.raises(DataError, match=f"the start of run .* was trained on or selected by {seen}"):
        measured(run=second, classes=[seen])


def test_it_is_known_of_the_third_run_too_and_on_other_sets(place: Path, second: Path) -> None:
    """By the chain of starts, from the file alone, and when a run is continued after the file is gone."""
    first = {c for role in (Role.SEEN, Role.VAL) for c in names("data/pics", role)}
    own = {c for role in (Role.SEEN, Role.VAL) for c in names("data/other", role)}
    assert set(learnt_before(second / MODEL) or ()) == first | own
    Path("start.safetensors").unlink()
    state = load_file(second / MODEL)
    save_file(state, "start.safetensors")  # of no run: the record of the run still knows
    again = Setup.build(load_recipe(second / "recipe.yaml"), torch.device("cpu"), second)
    assert set(again.learnt.start) == first


def test_a_recipe_with_such_weights_is_no_innocent_tower(place: Path, second: Path) -> None:
    fresh = names("data/pics", Role.UNSEEN)[0]
    found = measured(model="second.yaml", data="data/other")
    assert [row["class"] for row in found["per_class"]] == [fresh]


def test_weights_of_a_run_are_no_tower(place: Path) -> None:
    """As one they would lose projection and preprocessing, and what they learnt from."""
    run = latest_run()
    with pytest.raises(UsageError, match=f"write --run {run.absolute()}"):
        measured(model=f"test_resnet={run / MODEL}", data="data/pics")
    shutil.copy(run / MODEL, "test_resnet.safetensors")
    with pytest.raises(
        UsageError, match="weights of a run of this program; write --run with the folder of its run"
    ):
        measured(model="test_resnet.safetensors", data="data/pics")


def test_weights_that_do_not_say_what_they_learnt_from(place: Path) -> None:
    """A version before this one wrote no classes into the file: those beside it count, without them it is refused."""
    file, state = latest_run() / MODEL, load_file(latest_run() / MODEL)
    known = set(learnt_before(file) or ())
    save_file(state, file, metadata={"zssbir": json.dumps({"format": "pt", "step": 1})})
    assert (
        set(learnt_before(file) or ())
        == known
        == {*names("data/pics", Role.SEEN), *names("data/pics", Role.VAL)}
    )
    shutil.copy(file, "old.safetensors")
    with pytest.raises(
        CheckpointError, match=r"old\.safetensors: weights of a run that an older zssbir trained"
    ):
        learnt_before(Path("old.safetensors"))
    save_file(state, "plain.safetensors")
    assert learnt_before(Path("plain.safetensors")) is None
    assert learnt_before(Path("missing.safetensors")) is None


def test_weights_put_into_a_checkpoint_by_hand_are_no_part_of_it(place: Path) -> None:
    """Not even where the embeddings of those that were there are still kept, and the file's time is an old one."""
    best = latest_run() / "checkpoints" / "best"
    file, times = best / "model.safetensors", (best / "model.safetensors").stat()
    measured()
    state = load_file(file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
    save_file({k: v * 1.5 if v.is_floating_point() else v for k, v in state.items()}, file, metadata=about)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is damaged \(its sha256 is not the one in meta\.json\)"
    ):
        measured()


def test_a_start_that_is_another_file_now_is_no_yardstick(place: Path, second: Path) -> None:
    fresh = names("data/pics", Role.UNSEEN)[0]
    found = zssbir.evaluate(run=second, report=False, device="cpu", classes=[fresh]).as_json()
    assert [b["name"] for b in found["baselines"]] == ["chance", "frozen start"]
    state = {k: v * 1.5 if v.is_floating_point() else v for k, v in load_file("start.safetensors").items()}
    save_file(state, "start.safetensors")
    again = zssbir.evaluate(run=second, report=False, device="cpu", classes=[fresh]).as_json()
    assert [b["name"] for b in again["baselines"]] == ["chance"]
    assert any("other weights now than those that the run began with" in note for note in again["notes"])
