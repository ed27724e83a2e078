"""What one sees while a command works: progress lines and tables, on a terminal of any width and without one."""

import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

from zssbir_cli.cli.console import fitting_widths
from zssbir_cli.cli.display import Display, progress_line, progress_text
from zssbir_cli.engine.report import Report


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
