"""Every command on a disk that is really full: a small tmpfs in a mount namespace of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = """
import contextlib, io, json, os, sys
from pathlib import Path
small, photos, run, recipe, source = map(Path, sys.argv[1:])
from zssbir_cli.__main__ import main

def call(*line):
    err, sys.argv = io.StringIO(), ["zssbir", *map(str, line)]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
    return code, err.getvalue()

def filled(leave=0):
    with open(small / "fill", "wb", 0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    os.truncate(small / "fill", max(0, os.path.getsize(small / "fill") - leave))

filled(24_000)
found = {}
found["prepare"] = call("prepare", source, "--unseen", "2", "--val-classes", "0", "--out", small / "p", "--workers", "1")
found["train"] = call("train", "--recipe", recipe, "--runs", small / "runs", "--device", "cpu")
filled()
found["embed"] = call("embed", "--photos", photos, "--run", run, "--out", small / "e.h5", "--device", "cpu", "--workers", "0")
found["search"] = call("search", "--like", photos / "a/0.jpg", "--photos", photos, "--run", run, "--out", small / "s.html", "--device", "cpu", "--workers", "0")
found["eval"] = call("eval", "--run", run, "--out", small / "ev", "--device", "cpu", "--workers", "0", "--no-report")
found["mask-viz"] = call("mask-viz", "--vxl", "offline", "--data", source.parent / "prepared", "--out", small / "m", "--count", "1")
os.unlink(small / "fill")
found["embed again"] = call("embed", "--photos", photos, "--run", run, "--out", small / "e.h5", "--device", "cpu", "--workers", "0")
found["prepare again"] = call("prepare", source, "--unseen", "2", "--val-classes", "0", "--out", small / "p", "--workers", "1")
print(json.dumps(found))
"""


def test_every_command_ends_in_a_line_and_works_once_there_is_room(
    tmp_path: Path, photo_gallery: tuple[Path, Path], tiny_demo: Path
) -> None:
    from prepare_helpers import make_folder

    small = tmp_path / "small"
    small.mkdir()
    mount = f"mount -t tmpfs -o size=1m tmpfs {small}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not allowed here")
    make_folder(tmp_path / "source")
    (tmp_path / "prepared").symlink_to(tiny_demo)
    (tmp_path / "worker.py").write_text(WORKER)
    photos, run = photo_gallery
    arguments = [small, photos, run, run.parents[1] / "tiny.yaml", tmp_path / "source"]
    command = f'{mount} && exec "$@"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "-", sys.executable, str(tmp_path / "worker.py"), *map(str, arguments)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for name, (code, said) in found.items():
        if name.endswith("again"):
            assert code == 0, (name, said)
            continue
        assert code in (2, 3, 4), (name, said)
        errors = [line for line in said.splitlines() if line.startswith("zssbir: error: ")]
        assert len(errors) == 1, (name, said)
        assert "No space left" in errors[0] or "free" in errors[0], (name, errors)
        assert "bug" not in said


def test_shared_memory_that_is_full_is_named(tmp_path: Path, tiny_recipe: Path) -> None:
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs in a namespace of one's own is not allowed here")
    line = [sys.executable, "-m", "zssbir_cli", "train", "--recipe", str(tiny_recipe), "--device", "cpu"]
    line += [
        "--set",
        "data.workers=1",
        "--set",
        "data.size=128",
        "--set",
        "train.batch_size=12",
        "--runs",
        str(tmp_path / "runs"),
    ]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "-", *line],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "/dev/shm is full" in done.stderr
    assert "--set data.workers=0" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_read_only_run_is_worked_with_and_left_as_it_is(
    tmp_path: Path, tiny_demo: Path, photo_gallery: tuple[Path, Path]
) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    for source, target in zip(photo_gallery, (photos, run), strict=True):
        shutil.copytree(source, target)
    mount = f"mount --bind {run} {run} && mount -o remount,ro,bind {run}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("read-only mounts in a namespace of one's own are not allowed here")
    sketch = next(photos.rglob("*.jpg"))
    zssbir = f"{sys.executable} -m zssbir_cli"
    evaluate = f"{zssbir} eval --run {run} --data {tiny_demo} --no-report --no-baselines --device cpu"
    search = f"{zssbir} search {sketch} --run {run} --photos {photos} --device cpu -k 1"

    def left_alone(command: str, code: int = 0) -> str:
        before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
        line = ["unshare", "-rm", "sh", "-c", f"{mount} && {command}"]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
        assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
        return done.stderr

    # the run has an embeddings file of its own
    subprocess.run(search, shell=True, capture_output=True, check=True)
    shutil.copy(sketch, photos / "another.jpg")
    with (photos / "another.jpg").open("ab") as file:
        file.write(b"\0")
    assert "1 new, 0 changed, 0 gone, 12 kept" in left_alone(search)
    words = "cannot be written (Read-only file system); choose another folder with --out"
    assert words in left_alone(evaluate, 3)
    left_alone(f"{evaluate} --out {tmp_path / 'out'}")
    assert list((tmp_path / "out").glob("zs*.json"))
