"""A run that stops at any moment is continued by the same command and ends with the same bytes."""

import subprocess
import sys
from pathlib import Path

import pytest
from prepare_helpers import CLASSES, files_of, make_folder

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.shards import ShardWriter
from zssbir_cli.errors import DataError
from zssbir_cli.preparation import build as build_module
from zssbir_cli.preparation import reading
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.workflows.prepare import prepare_own


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ShardWriter.__init__.__kwdefaults__, "max_images", 4)
    monkeypatch.setattr(reading, "CHUNK_IMAGES", 3)


def prepare(folder: Path, out: Path) -> None:
    """The command under test."""
    prepare_own([folder], name="own", out=out, choices=Choices(unseen="ant,cup", val_classes=1))


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_stopping_at_each_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    folder = make_folder(tmp_path / "own", classes=CLASSES[:6], photos=4, sketches=3)
    prepare(folder, tmp_path / "whole")
    expected, real, calls = files_of(tmp_path / "whole"), Path.replace, 0
    stop_at, finished = 0, False

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == stop_at and not after:
            raise Killed
        result = real(self, target)
        if calls == stop_at:
            raise Killed
        return result

    while not finished:
        stop_at, calls = stop_at + 1, 0
        out = tmp_path / f"out-{stop_at}"
        monkeypatch.setattr(Path, "replace", replace)
        try:
            prepare(folder, out)
            finished = True
        except Killed:
            if (out / "manifest.json").exists():
                PreparedSet.open(out)
            else:
                with pytest.raises(DataError):
                    PreparedSet.open(out)
        monkeypatch.setattr(Path, "replace", real)
        prepare(folder, out)
        assert files_of(out) == expected
    assert stop_at > 15


def test_damage_to_unfinished_work_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "own", photos=4, sketches=3)
    prepare(folder, tmp_path / "whole")
    monkeypatch.setattr(build_module, "write_manifest", lambda *a: (_ for _ in ()).throw(Killed()))
    with pytest.raises(Killed):
        prepare(folder, tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setitem(ShardWriter.__init__.__kwdefaults__, "max_images", 4)
    shard = tmp_path / "out" / "train-photo-00001.h5"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    (tmp_path / "out" / ".work" / "val-sketch-00000.h5.json").write_text("{")
    prepare(folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.parametrize(
    "left",
    [".lock", "train-photo-00000.h5", "manifest.json.99999999.partial", ".work/plan.json",
     "test-photo-00000.h5.0123abcd-89abcdef.99999999.partial"],
)  # fmt: skip
def test_whatever_a_kill_leaves_is_taken_over(tmp_path: Path, left: str) -> None:
    folder = make_folder(tmp_path / "own", classes=CLASSES[:6], photos=2, sketches=2)
    prepare(folder, tmp_path / "whole")
    path = tmp_path / "out" / left
    path.parent.mkdir(parents=True)
    path.write_bytes(b"half")
    prepare(folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.slow
def test_sigkill(tmp_path: Path) -> None:
    script = Path(__file__).parent / "bench" / "bench_prepare_kill.py"
    command = [sys.executable, str(script), "--kills", "2", "--scale", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills" in done.stdout
