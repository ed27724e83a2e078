"""`zssbir doctor`, and what `prepare` and `train --check` say beforehand."""

import json
import shutil
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
from retrieval_helpers import make_run

from zssbir_cli.__main__ import main
from zssbir_cli.errors import CheckpointError
from zssbir_cli.preparation import build
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.forecast import foresee
from zssbir_cli.preparation.plan import plan_own
from zssbir_cli.progress import rough_size, rough_time
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.workflows import check as check_workflow
from zssbir_cli.workflows import doctor, doctor_checks
from zssbir_cli.workflows.prepare import prepare, scanned
from zssbir_cli.workflows.train import train


def states(found: list[doctor.Finding]) -> dict[str, str]:
    return {f.what: f.state for f in found}


def test_a_sound_set_and_run_are_ok(tiny_demo: Path, photo_gallery: tuple[Path, Path]) -> None:
    seen: list[str] = []
    found = doctor.diagnose(
        data=tiny_demo, run=photo_gallery[1], network=False, progress=lambda what, *_: seen.append(what)
    )
    assert seen[0] == "checking versions"
    assert not [f for f in found if f.state == doctor.PROBLEM]
    assert states(found)["its data set"] == states(found)["data set"] == "ok"
    lines = {f.what: f.found for f in found}
    assert lines["part train"] == "34 classes, 102 sketches, 136 photos"
    assert "precision" in lines["processor"]
    assert "best of step 10" in lines["run"]
    assert all(f.mend for f in found if f.state == doctor.WARNING and f.what != "prepare warned")


def test_what_is_damaged_is_a_problem_with_its_code(
    tmp_path: Path, tiny_demo: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = make_run(tmp_path / "runs" / "one", tiny_recipe)
    weights = run / "checkpoints" / "best" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    cut = shutil.copytree(tiny_demo, tmp_path / "cut")
    shard = next(cut.glob("train-*.h5"))  # not masks that another test's training has left there
    shard.write_bytes(shard.read_bytes()[:-1])
    for line, code, words in (
        (["--run", str(run)], 4, "model.safetensors"),
        (["--data", str(cut)], 3, shard.name),
        (["--run", "nowhere"], 2, "not a run"),
    ):
        monkeypatch.setattr(sys, "argv", ["zssbir", "doctor", "--no-network", "--json", *line])
        with pytest.raises(SystemExit) as stop:
            main()
        out = capsys.readouterr()
        assert stop.value.code == code
        assert words in out.err.splitlines()[-1]
        problems = [row for row in json.loads(out.out) if row["state"] == "problem"]
        assert len(problems) == 1
        assert words in problems[0]["found"]


def test_a_missing_library_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LIBRARIES", ("torch", "no-such-library"))
    found = {f.what: f for f in doctor.versions()}
    assert found["no-such-library"].state == doctor.PROBLEM
    assert "torch" in found["libraries"].found


def test_little_room_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert states(list(doctor.disk(tmp_path)))["disk here"] == "ok"
    monkeypatch.setattr(doctor, "SCRATCH", 1e30)
    assert states(list(doctor.disk(tmp_path)))["disk here"] == "warning"
    monkeypatch.setattr(doctor, "NONE_LEFT", 1e30)
    assert states(list(doctor.disk(tmp_path)))["disk here"] == "problem"


def test_no_network_is_a_warning_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")  # a mirror, which downloads would come from
    lines = list(doctor_checks.downloads(True))
    assert lines[0].state == doctor.WARNING
    assert "hub.invalid cannot be reached" in lines[0].found
    assert "model.weights=FILE" in lines[0].mend
    weights = [f for f in lines if f.what == "weights"]
    assert any("ama-mobilenet" in f.found for f in weights)
    assert any("--model siglip" in f.found for f in weights)


def test_an_error_in_a_check_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise CheckpointError("weights gone")

    monkeypatch.setattr(doctor, "versions", broken)
    first = doctor.diagnose(network=False)[0]
    assert (first.state, first.found, first.error) == ("problem", "weights gone", CheckpointError)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what Linux says of memory")
def test_available_memory_is_that_of_the_system() -> None:
    assert 1e7 < (doctor_checks.available_memory() or 0) < 1e14


def test_help_of_doctor_imports_no_torch() -> None:
    code = "import sys; from zssbir_cli.cli import doctor; from zssbir_cli.workflows import doctor\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_prepare_foresees_size_and_time(tmp_path: Path, tiny_demo: Path) -> None:
    choices = Choices(unseen="13", val_classes=5, workers=1)
    with scanned([tiny_demo.with_name("demo-pictures")], lambda text: None) as sources:
        plan = plan_own(sources, "own", choices)
        told = foresee(plan, choices.workers, partial(build.clean_item, plan, choices))
    prepared = prepare(tiny_demo.with_name("demo-pictures"), unseen=13, val_classes=5, out=tmp_path / "own")
    stored = sum(s.bytes for s in prepared.manifest.shards)
    assert told.images == len(plan.items) == 52 * 7
    assert told.seconds is not None
    assert 0 < told.seconds < 60
    assert stored / 3 < told.size < stored * 1.5  # shards of few small pictures are half index
    assert str(told).startswith("preparing 364 images: about ")


def test_a_long_preparation_says_so(tmp_path: Path, tiny_demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(build, "WORTH_SAYING", 0.0)
    for _ in range(2):
        prepare(tiny_demo.with_name("demo-pictures"), unseen=13, out=tmp_path / "own", say=said.append)
    assert sum("about" in line for line in said) == 1  # nothing to do the second time


def test_check_foresees_the_disk_that_a_run_takes(tiny_recipe: Path, tmp_path: Path) -> None:
    for extra in ((), ("train.ema=0.9", "train.keep_every=1"), ("train.blend=0.5", "optim.name=sgd")):
        recipe = load_recipe(tiny_recipe, extra)
        told = check_workflow.check(recipe, runs=tmp_path / "runs", device="cpu")
        run = train(recipe, runs=tmp_path / "runs", device="cpu").run
        files = [f for f in (run / "checkpoints").rglob("*") if f.is_file()]
        taken = sum(f.stat().st_size for f in files if f.suffix in (".safetensors", ".pt"))
        assert told.disk == pytest.approx(taken, rel=0.15), extra
        assert 0 < told.seconds < 60
        assert told.free > 0


def test_rough_values_read_like_speech() -> None:
    assert [rough_time(s) for s in (3, 12, 54, 60, 3500, 3700)] == [
        "a few seconds", "10 seconds", "50 seconds", "1 minute", "58 minutes", "1.0 hours",
    ]  # fmt: skip
    assert [rough_size(b) for b in (0, 9.4e6, 68e6, 1.25e9)] == ["0 MB", "9.4 MB", "68 MB", "1.2 GB"]


def test_every_extra_is_looked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    assert set(doctor.EXTRAS) == set(project["project"]["optional-dependencies"]) - {"dev"}
