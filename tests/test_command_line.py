"""The command line as one types it: typos, Ctrl-C, pipes, full devices, encodings, widths."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zssbir_cli.cli import mistakes
from zssbir_cli.cli.app import app
from zssbir_cli.cli.console import table

ZSSBIR = [sys.executable, "-m", "zssbir_cli"]

PAINT = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

MISTAKES = [
    (["trian"], 2, "did you mean 'train'? see `zssbir --help`"),
    (["eval", "--splitt", "zs"], 2, "did you mean '--split'"),
    (["prepare", "x", "--val", "3"], 2, "--val-classes"),
    (["help", "evl"], 2, "did you mean 'eval'"),
    (["eval", "--classes", ", "], 2, "--classes is empty"),
    (["train"], 2, "--recipe"),
    (["search", "x.png", "--photos", "nowhere"], 2, "--photos nowhere: no such file"),
    (["search", "x.png", "--photos", "."], 3, "x.png: cannot be read"),
    (["embed", "--photos", "nowhere"], 2, "--photos nowhere: no such file"),
    (["embed", "holiday", "--model", "clip"], 2, "holiday: photos are named with --photos"),
    (["embed", "--join", "all.h5"], 2, "name the embeddings files to join"),
    (["embed", "--join", "all.h5", "a.h5", "--half"], 2, "--half has no effect with --join"),
    (["embed", "--join", "all.h5", "a.h5"], 3, "a.h5: cannot be read"),
    (["search", "--text", "red", "--photos", ".", "--approximate"], 2, "--approximate is for tables"),
    (["draw", "--photos", "nowhere"], 2, "--photos nowhere: no such file"),
    (["runs"], 2, "runs: no such folder"),
    (["runs", "export"], 2, "runs: no such folder"),
    (["train", "--recipe", "demo", "--set", "method.name=pux"], 2, "did you mean 'puxim'? `zssbir recipes"),
    (["train", "--recipe", "mobilnet"], 2, "did you mean mobilenet.yaml"),
    (["train", "--recipe", "demo", "--set", "train.epoch=3"], 2, "did you mean 'train.epochs'"),
    (["train", "--recipe", "demo", "--device", "gpu"], 2, "--device gpu: use auto, cpu, cuda or cuda:N"),
    (["train", "--recipe", "demo"], 3, "zssbir prepare demo"),
    (["train", "--resume", "runs/latest"], 2, "zssbir train --recipe"),
    (["train", "--recipe", "demo", "--check", "--overfit", "2"], 2, "--overfit has no effect with --check"),
    (
        ["train", "--recipe", "demo", "--profile", "2", "--runs", "r"],
        2,
        "--runs has no effect with --profile",
    ),
    (["eval", "--seed", "1"], 2, "--seed has no effect with --split zs, which draws nothing"),
    (
        ["eval", "--split", "gzs-distractors", "--seed", "1"],
        2,
        "--seed has no effect with --split gzs-distractors",
    ),
    (["eval", "--split", "gzs-ocean", "--seed", "-1"], 2, "'--seed'"),
    (["eval", "--embeddings", "nowhere.npz", "--report"], 2, "--report needs --out FOLDER"),
    (
        ["eval", "--compare", __file__, __file__, "--split", "val"],
        2,
        "--split has no effect between two result files",
    ),
    (["runs", "--json", "compare", "a", "b"], 2, "--json goes behind `runs compare`"),
    (["doctor", "--runs", "r"], 2, "--runs has no effect without --run"),
    (["mask-viz", "--photos", ".", "--classes", "cup"], 2, "--classes has no effect with --photos"),
    (
        ["mask-viz", "--vxl", "offline", "--vxl-weights", "openai"],
        2,
        "--vxl-weights has no effect with --vxl offline",
    ),
    (
        ["mask-viz", "--photos", ".", "--runs", "r"],
        2,
        "--runs has no effect with --photos or --data without --run",
    ),
    (["recipes", "pumix"], 2, "did you mean puxim"),
    (["recipes", "--markdown"], 2, "needs --keys"),
    (["info", "a", "--sheet", "b", "--sheet", "c"], 2, "--sheet is given more than once and takes one value"),
    (["runs", "--runs", "a", "--runs", "b"], 2, "--runs is given more than once"),
    (["eval", "--json", "--json", "-R", "a", "--run", "b"], 2, "--run is given more than once"),
    (["demo", "--set", "optim.lr=1", "--set", "optim.lr=2"], 2, "--set optim.lr=2: undoes --set optim.lr=1"),
    (["demo", "--set", "train.epoch=3"], 2, "did you mean 'train.epochs'"),
    (["demo", "--set", "model.backbone=resnet81"], 2, "did you mean resnet18"),
    (["demo", "--set", "model.weights=nowhere.pth"], 4, "nowhere.pth: no such weight file"),
    (["search", "x.png", "--photos", ".", "--model", "siglipp"], 2, "did you mean siglip"),
    (["search", "x.png", "--photos", ".", "--model", "nowhere.pth"], 4, "nowhere.pth: no such weight file"),
    (["embed", "--photos", ".", "--model", "resnet50=nowhere.pth"], 4, "nowhere.pth: no such weight file"),
    (["embed", "--photos", ".", "--model", "mobilenetv2_100.ra"], 2, "; there are ra_in1k"),
    (["draw", "--photos", ".", "--model", "x.yaml"], 2, "recipe 'x.yaml': no such file"),
    (["search", "x.png", "--photos", ".", "--run", "lates"], 2, "lates: not a run"),
    (["search", "x.png", "--photos", ".", "--out", "found.htm"], 2, "did you mean '.html'"),
    (["demo", "--set", "model.backbone=resnet18.a1_in1"], 2, "did you mean resnet18.a1_in1k"),
    (["mask-viz", "--vxl", "ViT-B-16", "--vxl-weights", "opnai"], 2, "did you mean openai"),
    (["mask-viz", "--vxl", "ViT-B-61"], 2, "did you mean ViT-B-16"),
    (["mask-viz", "--photos", "nowhere"], 2, "--photos nowhere: no such file"),
    (["eval", "--embeddings", "nowhere.npz"], 2, "--embeddings nowhere.npz: no such file"),
    (["eval", "--embeddings", "rows.npy"], 2, "did you mean '.npz'"),
    (["eval", "--export", "treck"], 2, "did you mean 'trec'"),
    (["eval", "--run", "lates"], 2, "did you mean 'latest'"),
    (["eval", "--qrels", __file__, "--run", "nowhere.txt"], 2, "--run nowhere.txt: no such file"),
    (["eval", "--compare", "lates", "latest"], 2, "lates: not a run"),
    (["eval", "--compare", "zs.json", __file__], 2, "--compare zs.json: no such file"),
    (["eval", "--compare", "rows.npz", __file__], 2, "rows.npz: not a result"),
    (["embed", "--part", "tests"], 2, "did you mean 'test'"),
    (["export", "--format", "onxx"], 2, "did you mean 'onnx'"),
]


def test_no_typo_waits_for_torch(tmp_path: Path) -> None:
    """All mistakes in one process, which in the end has not imported torch."""
    code = (
        "import sys, io, contextlib\n"
        "from zssbir_cli.__main__ import main\n"
        f"for line, code, words in {MISTAKES!r}:\n"
        "    sys.argv = ['zssbir', *line]\n"
        "    sys.stderr = said = io.StringIO()\n"
        "    try: main()\n"
        "    except SystemExit as stop: left = stop.code\n"
        "    sys.stderr = sys.__stderr__\n"
        "    lines = [x for x in said.getvalue().splitlines() if 'error: ' in x]\n"
        "    assert left == code and len(lines) == 1 and words in lines[0], (line, left, said.getvalue())\n"
        "    assert 'torch' not in sys.modules, line\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_summaries_of_commands_are_whole(columns: int) -> None:
    env = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run([*ZSSBIR, "-h"], capture_output=True, text=True, env=env)
    assert done.returncode == 0
    if columns >= 80:
        assert "..." not in done.stdout.partition("Commands:")[2]


def test_every_command_has_an_example_and_speaks_no_python() -> None:
    import typer.main

    group = typer.main.get_command(app)
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        with command.make_context(name, ["--help"], resilient_parsing=True) as context:
            text = context.get_help()
        if name != "help":
            assert "Example: zssbir " in text, name
        assert not re.search(r"<(?!class)\w+|list\[|\bINTEGER\b|int range|\.\.\.\]\.\.\.", text), (name, text)
        assert not re.search(r"\bx[<>]=|<=x|\[\[|\{[A-Z]", text), (name, text)


def test_a_narrow_table_leaves_out_its_spare_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [("mAP@all", "40.79", "36.42 - 45.22", "28.03 - 55.07")]
    columns = ("measure", "%", "95 % over queries", "95 % over classes")
    for width, lines, said in ((80, 3, ""), (40, 3, "no room for 95 % over queries and 95 % over classes")):
        monkeypatch.setenv("COLUMNS", str(width))
        table(columns, rows, spare=2)
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == lines
        assert ("28.03 - 55.07" in shown.out) == (width == 80)
        assert said in shown.err


def test_a_short_option_means_one_thing_and_out_has_one_everywhere() -> None:
    import typer.main

    group = typer.main.get_command(app)
    commands = [*group.commands.values(), *group.commands["runs"].commands.values()]  # type: ignore[attr-defined]
    meant: dict[str, set[str]] = {}
    for parameter in (p for command in commands for p in command.params if p.opts[0].startswith("-")):
        short = [o for o in parameter.opts if len(o) == 2]
        for option in short:
            meant.setdefault(option, set()).add(parameter.opts[0])
        assert "--out" not in parameter.opts or short == ["-o"], parameter
    assert all(len(long) == 1 for long in meant.values()), meant


def test_runs_may_be_named_before_and_after_the_subcommand(tmp_path: Path) -> None:
    for line in (["runs", "--runs", "none", "export"], ["runs", "export", "--runs", "none"]):
        done = subprocess.run([*ZSSBIR, *line], capture_output=True, text=True, cwd=tmp_path)
        assert (done.returncode, "none: no such folder" in done.stderr) == (2, True), done.stderr
    for subcommand in ("export", "compare"):
        done = subprocess.run([*ZSSBIR, "runs", subcommand, "-h"], capture_output=True, text=True)
        assert not re.search(r"<\w|\[\[|\{[A-Z]", done.stdout), done.stdout


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_list_of_splits_is_readable_at_any_width(columns: int) -> None:
    env = os.environ | {"COLUMNS": str(columns)}
    done = subprocess.run([*ZSSBIR, "prepare", "--list"], capture_output=True, text=True, env=env)
    lines = done.stdout.splitlines()[:-1]  # the last is a hint
    assert max(map(len, lines)) <= columns
    assert "  sketchy-21: CVAE (Yelamarthi et al. 2018)" in done.stdout


def test_old_names_work_and_are_noted() -> None:
    line, notes = mistakes.modern(["search", "a.png", "-g", "pics", "--gallery=x", "--", "--gallery"])
    assert line == ["search", "a.png", "--photos", "pics", "--photos=x", "--", "--gallery"]
    assert len(notes) == 2


@pytest.mark.parametrize("moment", [0.02, 0.3, 0.8])
def test_ctrl_c_says_what_is_kept(tmp_path: Path, moment: float) -> None:
    """As a terminal sends it: to the program and all its drawing processes, some of which have only just begun."""
    child = subprocess.Popen(
        [*ZSSBIR, "prepare", "demo", "--out", "d", "--workers", "2"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert child.stderr is not None
    child.stderr.readline()
    child.stderr.readline()  # the second line: the work has begun
    time.sleep(moment)
    os.killpg(child.pid, signal.SIGINT)
    rest = child.stderr.read()
    assert child.wait(60) in (130, -signal.SIGINT)  # the same for a shell; Python chooses
    said = [line for line in rest.splitlines() if line.startswith("zssbir: interrupted: ")]
    assert len(said) == 1, rest
    assert "same command to continue" in said[0]
    assert "Traceback" not in rest, rest


def test_a_closed_pipe_is_no_error() -> None:
    for line in (["recipes", "--keys"], ["recipes"], ["prepare", "--list"]):
        child = subprocess.Popen([*ZSSBIR, *line], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
        assert child.wait(60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_one_line() -> None:
    for line in (["recipes", "--keys"], ["recipes"], ["--version"], ["--help"]):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*ZSSBIR, *line], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 3, (line, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert "space" in done.stderr
        assert "bug" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_name_prints_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    name = os.fsdecode(b"B\xc3\xa4r-\xe5\x86\x99-\xe9")
    env = os.environ | {"PYTHONIOENCODING": encoding, "COLUMNS": "80"}
    code = (
        "import sys\nfrom zssbir_cli.cli.streams import open_streams\nfrom zssbir_cli.cli.console import table\n"
        "open_streams(); print(sys.argv[1]); table(('name', 'n'), [(sys.argv[1], 1)])"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(b"\\xe9") == 2  # the byte that is no UTF-8
    done = subprocess.run([*ZSSBIR, "info", name], capture_output=True, env=env, cwd=tmp_path)
    assert done.returncode == 3
    assert b"\\xe9" in done.stderr


def test_what_libraries_log_does_not_reach_users() -> None:
    """Nor what they warn of; their errors are one line, and with --debug all of it is there."""
    code = (
        "import logging, sys, warnings\n"
        "from zssbir_cli.cli import streams\n"
        "streams.quiet_libraries(sys.argv[1] == 'debug')\n"
        "logging.getLogger('timm.models').warning('raw words')\n"
        "logging.getLogger('uvicorn.error').error('broken\\nas always')\n"
        "logging.getLogger('zssbir').warning('w.pth: not used')\n"
        "logging.getLogger('zssbir').info('secret')\n"
        "warnings.warn('please upgrade')\n"
    )

    def said(mode: str) -> str:
        done = subprocess.run([sys.executable, "-c", code, mode], capture_output=True, text=True, check=True)
        return done.stderr

    assert said("") == "uvicorn.error: broken as always\nw.pth: not used\n"
    assert "raw words" in said("debug")
    assert "please upgrade" in said("debug")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("MemoryError()", "out of memory: use a smaller batch"),
        ("torch.OutOfMemoryError('CUDA out of memory')", "out of memory: use a smaller batch"),
        ("OSError(errno.ENOMEM, 'Cannot allocate memory')", "out of memory: use a smaller batch"),
        (
            "RuntimeError('[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can\\'t allocate memory')",
            "out of memory: ",
        ),
        (
            "ValueError('memory allocation is a bug here')",
            "ValueError: memory allocation is a bug here (this is a bug",
        ),
        ("OSError(errno.ENOSPC, 'No space left on device')", "free some space"),
    ],
)
def test_a_shortage_is_told_by_its_class(
    error: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import errno

    import torch

    from zssbir_cli import __main__

    problem = eval(error, {"torch": torch, "errno": errno})
    monkeypatch.setattr(sys, "argv", ["zssbir", "info", "x"])
    monkeypatch.setattr("zssbir_cli.cli.app.run", lambda _: (_ for _ in ()).throw(problem))
    with pytest.raises(SystemExit):
        __main__.main()
    found = capsys.readouterr().err
    assert words in found
    assert ("this is a bug" in found) == ("bug" in words)


def test_a_library_that_finds_no_room_is_a_shortage() -> None:
    """As `import torch` fails under `ulimit -v 2600000`."""
    from zssbir_cli.compute.memory import out_of_memory

    assert out_of_memory(ImportError("libtorch_cuda.so: failed to map segment from shared object"))
    assert not out_of_memory(ImportError("libfoo.so: cannot open shared object file"))


def test_gigantic_arrays_are_a_shortage() -> None:
    """As numpy, PyTorch and OpenCV raise it themselves."""
    import cv2
    import numpy as np
    import torch

    from zssbir_cli.compute.memory import out_of_memory

    for allocate in (
        lambda: np.empty(1 << 55, np.uint8),
        lambda: np.empty((10**18, 8, 3)),
        lambda: np.random.default_rng(0).integers(0, 9, (10**18, 8, 3)),
        lambda: torch.empty(1 << 55, dtype=torch.uint8),
        lambda: torch.empty(1 << 40, 1 << 40),
        lambda: cv2.resize(np.zeros((9, 9, 4)), (30_000, 30_000 * 64)),
    ):
        with pytest.raises(Exception) as caught:
            allocate()
        assert out_of_memory(caught.value), caught.value
