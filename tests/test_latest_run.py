"""Which run is resumed, and which is the latest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.engine.runs import find_run, latest_run, point_latest
from zssbir_cli.errors import UsageError
from zssbir_cli.files import Lock, Locked
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.workflows.train import train


def test_resuming_what_is_no_run_touches_nothing(place: Path) -> None:
    before = sorted(str(p) for p in Path("runs").rglob("*"))
    for name in ("runs/none", "nothing", "data/pics", "runs/latest/checkpoints/epoch-7"):
        for extra in ([], ["--recipe", "tiny.yaml"]):
            result = CliRunner().invoke(app, ["train", "--resume", name, "--device", "cpu", *extra])
            assert isinstance(result.exception, UsageError), result.output
    assert sorted(str(p) for p in Path("runs").rglob("*")) == before
    with pytest.raises(UsageError, match="no run"):
        train(load_recipe(Path("tiny.yaml")), device="cpu", resume=Path("runs/none"))


def test_a_real_folder_in_the_place_of_latest_stops_no_training(place: Path) -> None:
    Path("runs/latest").unlink()
    Path("runs/latest").mkdir()
    outcome = train(load_recipe(Path("tiny.yaml")), device="cpu")
    assert latest_run() == outcome.run.resolve()
    assert not list(Path("runs").glob(".latest*"))


def test_a_run_without_a_checkpoint_is_never_the_latest(place: Path) -> None:
    run = latest_run()
    (Path("runs") / "29990101-000000-later").mkdir()
    (Path("runs") / "29990101-000000-later" / "run.json").write_text("{}")
    Path("runs/latest").unlink()
    Path("runs/latest").symlink_to("29990101-000000-later")
    assert latest_run() == run
    assert find_run("runs/latest").path == run


HAMMER = """
import sys
from pathlib import Path
from zssbir_cli.engine.runs import point_latest
problems = [p for _ in range(150) if (p := point_latest(Path(sys.argv[1])))]
print(problems[:1])
sys.exit(bool(problems))
"""


def test_latest_may_be_set_by_many_at_once(tmp_path: Path) -> None:
    for name in "abcd":
        (tmp_path / name).mkdir()
    jobs = [subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path / name)]) for name in "abcd"]
    assert [job.wait() for job in jobs] == [0, 0, 0, 0]
    assert (tmp_path / "latest").resolve().name in "abcd"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b", "c", "d", "latest"]


def test_a_run_that_is_being_trained_is_not_resumed_by_another(place: Path) -> None:
    run = latest_run()
    before = (run / "recipe.yaml").stat().st_mtime_ns
    with Lock(run / ".lock", "training"), pytest.raises(Locked, match=f"training, pid {os.getpid()}"):
        train(load_recipe(run / "recipe.yaml"), device="cpu", resume=run)
    assert (run / "recipe.yaml").stat().st_mtime_ns == before
    train(load_recipe(run / "recipe.yaml"), device="cpu", resume=run)


def test_point_latest_says_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    assert "cannot point to this run" in (point_latest(tmp_path / "run") or "")
