"""What cannot be written is refused before the work: no drawing, training or embedding first, and no PyTorch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import zssbir_cli as zssbir
from zssbir_cli.errors import DataError
from zssbir_cli.files import check_writable

COMMANDS = [
    ["demo", "--out", "taken/x"],
    ["embed", "--photos", ".", "--model", "mobilenet", "--out", "taken/x.h5"],
    ["embed", "--photos", "s-{0..3}.tar", "--model", "mobilenet", "--out", "taken"],
    ["embed", "--join", "taken/x.h5", "taken"],
    ["eval", "--embeddings", "e.npz", "--out", "taken"],
    ["export", "--model", "mobilenet", "--out", "taken/x.onnx"],
    ["info", "data", "--sheet", "taken/x.png"],
    ["mask-viz", "--vxl", "offline", "--out", "taken"],
    ["runs", "--runs", ".", "export", "--out", "folder"],
    ["search", "taken", "--photos", ".", "--model", "mobilenet", "--out", "taken/x.html"],
    ["train", "--recipe", "demo", "--data", "data", "--runs", "taken/runs"],
]


def test_every_command_looks_first(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.json").touch()
    code = (
        "import sys, io\n"
        "from zssbir_cli.__main__ import main\n"
        f"for line in {COMMANDS!r}:\n"
        "    sys.argv = ['zssbir', *line]\n"
        "    sys.stderr = said = io.StringIO()\n"
        "    try: main()\n"
        "    except SystemExit as stop: left = stop.code\n"
        "    sys.stderr = sys.__stderr__\n"
        "    words = 'Is a directory' if 'folder' in line else 'Not a directory'\n"
        "    assert left == 3 and f'cannot be written ({words})' in said.getvalue(), (line, said.getvalue())\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"taken", "folder", "data"}


@pytest.mark.parametrize("options", [{"seed": 7}, {"per_class": 3}, {"dedup": True}, {"size": 77}])
def test_an_older_demo_set_is_refused_before_anything_is_drawn(
    tiny_demo: Path, options: dict[str, int]
) -> None:
    """Other options, or another number of pictures."""
    told: list[str] = []
    with pytest.raises(DataError, match="prepared from other files or options"):
        zssbir.prepare("demo", out=tiny_demo, progress=lambda what, *_: told.append(what), **options)  # type: ignore[arg-type]
    assert not told


def test_the_python_api_looks_first_too(tmp_path: Path, tiny_recipe: Path) -> None:
    (tmp_path / "taken").touch()
    out = tmp_path / "taken" / "x"
    for call in (
        lambda: zssbir.train(str(tiny_recipe), runs=out, device="cpu"),
        lambda: zssbir.embed(photos=tmp_path, model="mobilenet", out=out),
        lambda: zssbir.evaluate_file(tmp_path / "nowhere.npz", out=out),
    ):
        with pytest.raises(DataError, match="taken/x: cannot be written"):
            call()


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
def test_permissions_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    check_writable(tmp_path / "new" / "er" / "file")
    check_writable(tmp_path / "new", folder=True)
    check_writable(tmp_path / "file")
    with pytest.raises(DataError, match=r"file: cannot be written \(Not a directory\); elsewhere$"):
        check_writable(tmp_path / "file", "; elsewhere", folder=True)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # the tests may run as root
    with pytest.raises(DataError, match="Permission denied"):
        check_writable(tmp_path / "new" / "file")


def test_a_folder_in_use_is_refused_before_the_sources_are_listed(tiny_demo: Path, tmp_path: Path) -> None:
    """Listing may mean downloading or unpacking."""
    source, mine = tmp_path / "pictures", tmp_path / "mine"
    for folder in (source, mine):
        folder.mkdir()
    (mine / "letter.txt").touch()
    told: list[str] = []
    for out, words in ((mine, "not empty and not a prepared set"), (tiny_demo, "other files or options")):
        with pytest.raises(DataError, match=words):
            zssbir.prepare(source, out=out, size=55, say=told.append)
    assert not told
