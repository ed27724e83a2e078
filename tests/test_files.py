"""Files are written whole or not at all, locks hold, and what a killed process left never counts."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from zssbir_cli.files import (
    Lock,
    Locked,
    is_locked,
    parsed,
    printable,
    reason,
    remedy,
    replacing,
    write_bytes,
    write_json,
    write_text,
)

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and flock")


def listed(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_block_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fails() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fails()
    assert path.read_text() == "old"
    assert listed(tmp_path) == ["a.txt"]


def test_names_that_are_not_utf8_can_be_written(tmp_path: Path) -> None:
    write_json(tmp_path / "x" / "a.json", {"name": "caf\udce9"})
    write_text(tmp_path / "b.txt", "caf\udce9 é")
    assert (tmp_path / "b.txt").read_bytes().decode() == "caf\ufffd é"
    assert printable("ok") == "ok"


def test_a_very_long_name_can_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


@POSIX
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from zssbir_cli.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as p:\n p.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    path = tmp_path / "result[1].json"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not path.exists()
    assert len(listed(tmp_path)) == 1
    write_text(path, "whole")
    assert listed(tmp_path) == [path.name]


@POSIX
def test_a_running_writers_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a"
    other = tmp_path / f"a.{os.getppid()}.partial"
    other.write_text("of a process that runs")
    write_text(path, "mine")
    assert other.exists()


def test_two_writers_of_one_process_number_do_not_meet(tmp_path: Path) -> None:
    """Containers that share a folder give the same numbers to their processes; so do the threads of one process."""
    path = tmp_path / "a"
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert listed(tmp_path) == ["a"]


def test_a_writers_file_on_another_machine_is_left_alone_for_a_day(tmp_path: Path) -> None:
    other = tmp_path / "a.0123abcd-89abcdef.99999999.partial"
    other.write_text("of a process that this machine cannot see")
    write_text(tmp_path / "a", "mine")
    assert other.exists()
    os.utime(other, (time.time() - 2 * 24 * 3600,) * 2)
    write_text(tmp_path / "a", "mine")
    assert listed(tmp_path) == ["a"]


@POSIX
def test_one_process_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from zssbir_cli.files import Lock\n"
        "with Lock(Path(sys.argv[1]), 'zssbir prepare'): print('ready', flush=True); time.sleep(60)"
    )
    path = tmp_path / ".lock"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(Locked, match=rf"in use by another process \(zssbir prepare, pid {process.pid} on "):
        Lock(path, "zssbir prepare").__enter__()
    process.kill()
    process.wait()
    for _ in range(3):  # the file stays, and can be taken again at once
        with Lock(path, "zssbir prepare") as lock:
            assert lock.held
            with pytest.raises(Locked):
                Lock(path, "x").__enter__()
    assert path.exists()


@POSIX
def test_who_only_looks_whether_it_is_locked_keeps_nobody_out(tmp_path: Path) -> None:
    """It takes the lock for a moment."""
    import fcntl

    path = tmp_path / ".lock"
    assert not is_locked(path)
    with path.open("wb") as glance:
        fcntl.flock(glance, fcntl.LOCK_EX)
        assert is_locked(path)
        end = threading.Timer(0.05, fcntl.flock, (glance, fcntl.LOCK_UN))
        end.start()
        with Lock(path, "x") as lock:
            assert lock.held
            assert is_locked(path)
        end.join()
    assert not is_locked(path)


def test_a_file_system_without_locks_is_worked_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with Lock(tmp_path / ".lock", "x") as lock:
        assert not lock.held


def test_an_error_is_one_line_and_never_empty() -> None:
    assert reason(OSError(28, "No space left on device")) == "No space left on device"
    assert reason(ValueError("a\n b")) == "a b"
    assert reason(MemoryError()) == "MemoryError"
    assert len(reason(ValueError("x" * 999))) == 160


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    assert parsed('{"a": [1]}') == {"a": [1]}
    for text in ("[" * 100_000, b'{"a":' * 100_000, b"\xff", ""):
        with pytest.raises(ValueError):
            parsed(text)


def test_an_old_leftover_goes_even_if_its_number_is_in_use(tmp_path: Path) -> None:
    left = tmp_path / f"a.{os.getppid()}.partial"
    left.write_text("x")
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(left, (yesterday, yesterday))
    write_text(tmp_path / "a", "new")
    assert listed(tmp_path) == ["a"]


def test_digits_that_are_no_process_are_left_alone(tmp_path: Path) -> None:
    tagged = tmp_path / "a.h5.9071252330425137.partial"
    tagged.mkdir()
    (tmp_path / "a.h5.99999999999.partial").touch()
    write_text(tmp_path / "a.h5", "new")
    assert (tmp_path / "a.h5").read_text() == "new"
    assert tagged.is_dir()


def test_the_remedy_fits_the_fault() -> None:
    assert remedy(PermissionError(errno.EACCES, "Permission denied")) == "allow writing there"
    assert remedy(OSError(errno.EROFS, "Read-only file system")) == "allow writing there"
    assert remedy(OSError(errno.ENOSPC, "No space left on device")) == "make room"
