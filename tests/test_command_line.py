"""The command line as one types it: typos, Ctrl-C, pipes, full devices, encodings, widths."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zssbir_cli.cli import renamed
from zssbir_cli.cli.app import app
from zssbir_cli.cli.console import fitting_widths
from zssbir_cli.cli.display import Display, progress_text
from zssbir_cli.cli.train_progress import progress_line
from zssbir_cli.engine.report import Report

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
    (["recipes", "pumix"], 2, "did you mean puxim"),
    (["recipes", "--markdown"], 2, "goes with --keys"),
    (["demo", "--set", "train.epoch=3"], 2, "did you mean 'train.epochs'"),
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
    line, notes = renamed.modern(["search", "a.png", "-g", "pics", "--gallery=x", "--", "--gallery"])
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
    assert "same command continues" in said[0]
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


@pytest.mark.parametrize(("room", "fits"), [(200, True), (60, True), (28, False)])
def test_columns_never_break_words_or_intervals(room: int, fits: bool) -> None:
    lines = [
        ["measure", "%", "95 % over queries"],
        ["P@min(100,R)", "20.0", "25.40 - 27.90"],
        ["写真", "1", "2"],
    ]
    widths = fitting_widths(lines, room)
    assert (widths is not None) == fits
    if widths is not None:
        assert sum(widths) <= room
        assert widths[0] >= len("P@min(100,R)")
        assert widths[2] >= len("25.40 - 27.90")


def test_progress_tells_true_numbers() -> None:
    assert progress_text("ranking", 256, 353, 256, 0.001, bar=False) == "ranking: 256 of 353 (72 %)"
    assert progress_text("x", 128, 352, 100, 10.0, bar=False) == "x: 128 of 352 (36 %) 10/s, 0:22 left"


def test_training_shows_losses_and_leaves_monitors_to_the_files() -> None:
    logs = {"loss": 2.0, "loss/cluster": 1.0, "monitor/rank": 3.0, "clusters/kept_0": 0.5, "lr": 0.1}
    report = Report(
        step=1,
        total_steps=2,
        epoch=0.5,
        epochs=1,
        images_per_s=1,
        data_wait=0,
        memory_mb=1,
        eta_s=1,
        logs=logs,
    )
    line = progress_line(report)
    assert "loss/cluster 1" in line
    assert not re.search("monitor|kept", line)


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 100_000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    show = Display("embed: loading")
    for done in range(1001):
        show("embedding", done, 1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "embed: loading ..."
    assert lines[1] == "embedding: 0 of 1,000 (0 %)"
    assert 11 <= len(lines) <= 50


@pytest.mark.parametrize("columns", [40, 80])
def test_progress_stays_one_line_of_the_terminal(columns: int) -> None:
    code = (
        "import time\nfrom zssbir_cli.cli.display import progress\nfrom zssbir_cli.cli.console import note\n"
        "with progress('starting') as show:\n"
        "    for i in range(30):\n"
        "        show('embedding a data set with a very long name for any terminal that there is', i, 30)\n"
        "        time.sleep(0.05)\n"
        "        i == 15 and note('a note in between')\n"
        "note('the end')"
    )
    seen = in_terminal([sys.executable, "-c", code], columns)
    rows = screen(seen, columns)
    assert rows == ["a note in between", "the end"], rows


def in_terminal(line: list[str], columns: int) -> str:
    """What a command writes to a terminal of so many columns."""
    import fcntl
    import struct
    import termios

    main, sub = pty.openpty()
    fcntl.ioctl(sub, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = os.environ | {"TERM": "xterm", "COLUMNS": "200", "NO_COLOR": "1"}  # a stale COLUMNS must not matter
    child = subprocess.Popen(line, stdin=sub, stdout=sub, stderr=sub, env=env)
    os.close(sub)
    seen = b""
    while child.poll() is None or select.select([main], [], [], 0)[0]:
        if select.select([main], [], [], 0.1)[0]:
            try:
                seen += os.read(main, 4096)
            except OSError:
                break
    os.close(main)
    assert child.wait() == 0, seen
    return seen.decode("utf-8", "replace")


def screen(text: str, columns: int) -> list[str]:
    """The rows that are left on a terminal: wraps, and knows CR, LF, erase line and cursor up."""
    rows, y, x = [""], 0, 0
    for piece in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|.", text, re.S):
        if piece.startswith("\x1b["):
            if piece.endswith("K"):
                rows[y] = "" if piece[2] == "2" else rows[y][:x]
            elif piece.endswith("A"):
                y = max(0, y - int(piece[2:-1] or 1))
        elif piece == "\r":
            x = 0
        elif piece == "\n":
            y, x = y + 1, 0
        else:
            if x == columns:
                y, x = y + 1, 0
            while len(rows) <= y:
                rows.append("")
            rows[y] = rows[y].ljust(x)[:x] + piece + rows[y][x + 1 :]
            x += 1
        while len(rows) <= y:
            rows.append("")
    return [row.rstrip() for row in rows if row.strip()]


def test_what_libraries_log_does_not_reach_users() -> None:
    """Nor what they warn of; their errors are one line, and with --debug all of it is there."""
    code = (
        "import logging, sys, warnings\n"
        "from zssbir_cli.cli import logs\n"
        "logs.quiet_libraries(sys.argv[1] == 'debug')\n"
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


def test_gigantic_arrays_are_a_shortage() -> None:
    """As numpy, PyTorch and OpenCV raise it themselves."""
    import cv2
    import numpy as np
    import torch

    from zssbir_cli.compute.shortage import out_of_memory

    for allocate in (
        lambda: np.empty(1 << 55, np.uint8),
        lambda: torch.empty(1 << 55, dtype=torch.uint8),
        lambda: cv2.resize(np.zeros((9, 9, 4)), (30_000, 30_000 * 64)),
    ):
        with pytest.raises(Exception) as caught:
            allocate()
        assert out_of_memory(caught.value), caught.value
