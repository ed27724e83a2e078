"""Shell completion as bash and zsh ask for it: right words, without torch, and a script that both shells accept."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

MAIN = "import sys; sys.argv = ['zssbir']\nfrom zssbir_cli.__main__ import main\ntry: main()\n"
MAIN += "finally: assert 'torch' not in sys.modules"


def ask(shell: str, line: str, folder: Path) -> str:
    """What the program answers when Tab is pressed at the end of `line`."""
    words = line.split(" ")
    env = os.environ | {"_ZSSBIR_COMPLETE": f"complete_{shell}"}
    env |= {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run([sys.executable, "-c", MAIN], env=env, cwd=folder, capture_output=True, text=True)
    assert "Error" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("zssbir tr", ["train"], ["eval"]),
        ("zssbir train --re", ["--recipe", "--resume"], ["--runs"]),
        ("zssbir train --recipe mob", ["mobilenet"], ["demo"]),
        ("zssbir eval --split gzs-d", ["gzs-dr-clip", "gzs-distractors"], ["val"]),
        ("zssbir eval --run 2026", ["20260102-b", "20260101-a"], ["latest"]),
        ("zssbir runs compare l", ["latest"], ["2026"]),
        ("zssbir info ", ["data/own"], ["data/other"]),
        ("zssbir prepare s", ["sketchy"], ["demo"]),
    ],
)
def test_words_of_commands_options_and_values(
    line: str, wanted: list[str], unwanted: list[str], tmp_path: Path
) -> None:
    for name in ("20260101-a", "20260102-b"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").write_text("{}")
    (tmp_path / "data" / "own").mkdir(parents=True)
    (tmp_path / "data" / "own" / "manifest.json").write_text("{}")
    (tmp_path / "data" / "other").mkdir()
    for shell in ("bash", "zsh"):
        answer = ask(shell, line, tmp_path)
        assert all(word in answer for word in wanted), (shell, answer)
        assert not any(word in answer for word in unwanted), (shell, answer)
    assert answer.index(wanted[0]) <= answer.index(wanted[-1])


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_the_script_completes_in_the_shell_itself(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    program = tmp_path / "zssbir"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m zssbir_cli "$@"\n')
    program.chmod(0o755)
    env = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }
    script = subprocess.run(
        ["zssbir"],
        env=env | {"_ZSSBIR_COMPLETE": f"source_{shell}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (tmp_path / "complete").write_text(script)
    if shell == "zsh":
        assert "zssbir train " in pressed_in_zsh("zssbir tra\t", "zssbir train ", tmp_path, env)
        return
    press = f"source {tmp_path}/complete; COMP_WORDS=(zssbir tra); COMP_CWORD=1; _zssbir_completion zssbir; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", press], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["train"]


def pressed_in_zsh(keys: str, wanted: str, folder: Path, env: dict[str, str]) -> str:
    """What an interactive zsh shows after `keys`, until that holds `wanted` (or a minute is over)."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-f", "-i"], env | {"TERM": "dumb", "HOME": str(folder)})
    os.write(terminal, b"autoload -Uz compinit; compinit -u; source ./complete; echo rea''dy\n")
    shown = ""
    try:
        for text, after in (("ready\r\n", keys), (wanted, "")):
            until = time.monotonic() + 60
            while text not in shown and time.monotonic() < until:
                if select.select([terminal], [], [], 0.2)[0]:
                    shown += os.read(terminal, 4096).decode(errors="replace")
            os.write(terminal, after.encode())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return shown
