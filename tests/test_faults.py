"""What goes wrong in long runs, one fault each: docs/reliability.md lists them."""

import contextlib
import itertools
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import faults_worker
import pytest
import torch
from engine_helpers import ToyItems, make_run, same_weights, toy_data, toy_fit, toy_method

from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.report import Silent
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import latest_run, read_metrics
from zssbir_cli.errors import CheckpointError, DataError, UsageError

TIMES = ("images_per_s", "data_wait")


def rows(run: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k not in TIMES} for row in read_metrics(run)]


@pytest.fixture(scope="module", autouse=True)
def warm(tmp_path_factory):
    """Forked runs then need not import what PyTorch imports at the first optimizer step."""
    toy_fit(make_run(tmp_path_factory.mktemp("warm")), epochs=1)


def start(*arguments: object) -> "multiprocessing.Process":
    """`faults_worker.py` in a process of its own, with stdout and stderr in files beside the runs."""
    process = multiprocessing.get_context("fork").Process(
        target=faults_worker.main, args=[*map(str, arguments)]
    )
    process.start()
    return process


def wait_for(process: "multiprocessing.Process", root: Path, step: int) -> None:
    """Return as soon as the process has reported a step."""
    while process.is_alive():
        if (root / "step").exists() and int((root / "step").read_text() or 0) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"ended before step {step}")


def ended(process: "multiprocessing.Process") -> int:
    process.join(60)
    process.kill()
    return process.exitcode


def test_sigkill_and_sigterm_then_resume_equal_the_uninterrupted_run(tmp_path):
    """SIGKILL in step 11 or later, resumed; SIGTERM later on, resumed; bit for bit the straight run."""
    assert ended(start(tmp_path / "a", "new")) == 0
    killed = start(tmp_path / "b", "new")
    wait_for(killed, tmp_path / "b", 11)
    killed.kill()
    assert ended(killed) == -signal.SIGKILL
    run = latest_run(tmp_path / "b")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')  # a kill in the middle of a write
    asked = start(tmp_path / "b", "resume")
    wait_for(asked, tmp_path / "b", 20)
    asked.terminate()
    assert ended(asked) == 130
    message = (tmp_path / "b" / "stderr").read_text()
    assert message.startswith("zssbir: error: stopped by SIGTERM after step")
    assert message.count("\n") == 1
    assert ended(start(tmp_path / "b", "resume")) == 0
    straight = latest_run(tmp_path / "a")
    for name in ("last", "best"):
        a, b = (checkpoint.read_weights(r / "checkpoints" / name) for r in (straight, run))
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert rows(straight) == rows(run)


def _in_terminal(ours: int, name: str, *arguments: str) -> None:
    os.close(ours)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup's tests ignore it, and so would this
    os.setsid()
    terminal = os.open(name, os.O_RDWR)  # the first that a session opens is its own
    for stream in range(3):
        os.dup2(terminal, stream)
    faults_worker.main(*arguments)


def test_a_terminal_that_is_closed_stops_and_saves(tmp_path):
    ours, theirs = os.openpty()
    process = multiprocessing.get_context("fork").Process(
        target=_in_terminal, args=(ours, os.ttyname(theirs), str(tmp_path), "new", "terminal-closed")
    )
    process.start()
    wait_for(process, tmp_path, 5)
    os.close(theirs)
    os.close(ours)
    assert ended(process) == 130
    message = (tmp_path / "stderr").read_text()
    assert message.startswith("zssbir: error: stopped by SIGHUP after step")
    assert checkpoint.inspect(latest_run(tmp_path) / "checkpoints" / "last").step >= 5


def test_ctrl_c_twice_interrupts_at_once(tmp_path):
    class Twice(Silent):
        def report(self, report) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        toy_fit(make_run(tmp_path), hooks=Twice())
    assert signal.getsignal(signal.SIGINT) is before


class LimitFiles(Silent):
    """From one step to another no file may grow beyond `size` bytes, as on a full disk."""

    def __init__(self, first: int, last: int, size: int) -> None:
        super().__init__()
        self.first, self.last, self.size = first, last, size

    def report(self, report) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if report.step == self.first:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))
        if report.step == self.last:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def _fit_in_child(run: RunDir, hooks: LimitFiles, out: Path) -> None:
    error, method = "", toy_method()
    try:
        toy_fit(run, method=method, epochs=3, hooks=hooks)
    except CheckpointError as caught:
        error = str(caught)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    torch.save((error, hooks.notes, method.state_dict()), out)
    os._exit(0)


def fit_on_full_disk(run: RunDir, first: int, last: int) -> tuple[str, list[str], dict]:
    """Error, notes and weights of a run whose disk is full from step `first` to `last`."""
    out, hooks = run.path.with_name("result.pt"), LimitFiles(first, last, size=200)
    process = multiprocessing.get_context("fork").Process(target=_fit_in_child, args=(run, hooks, out))
    process.start()
    assert ended(process) == 0
    return torch.load(out, weights_only=True)


def test_full_disk_for_a_while_loses_nothing(tmp_path):
    straight, _ = toy_fit(make_run(tmp_path / "a"), epochs=3)
    run = make_run(tmp_path / "b")
    error, notes, weights = fit_on_full_disk(run, 8, 12)
    assert not error
    assert any("cannot write the checkpoint" in n and "continues" in n for n in notes)
    assert any("metrics.jsonl" in n for n in notes)
    assert all(torch.equal(value, weights[key]) for key, value in straight.state_dict().items())
    assert rows(run.path) == rows(latest_run(tmp_path / "a"))
    assert checkpoint.inspect(run.checkpoints / "last").step == 15


def test_full_disk_to_the_end_keeps_the_checkpoint_before(tmp_path):
    run = make_run(tmp_path)
    error, _, _ = fit_on_full_disk(run, 12, -1)
    assert "the one before it is intact; free some space and continue with --resume" in error
    assert checkpoint.inspect(run.checkpoints / "last").step == 10
    assert not list(run.checkpoints.glob("*.partial"))


def test_a_really_full_disk(tmp_path):
    """A tmpfs that is filled up by somebody else while the run trains, and emptied again."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")

    class Neighbour(Silent):
        def report(self, report) -> None:
            if report.step == 8:
                with (small / "big").open("wb", 0) as file, contextlib.suppress(OSError):
                    while True:
                        file.write(b"x" * 4096)
            if report.step == 12:
                (small / "big").unlink()

    try:
        straight, _ = toy_fit(make_run(tmp_path / "a"), epochs=3)
        run, hooks = make_run(small / "runs"), Neighbour()
        method, _ = toy_fit(run, epochs=3, hooks=hooks)
        assert any("No space left" in n or "os error 28" in n for n in hooks.notes), hooks.notes
        assert same_weights(straight, method)
        assert checkpoint.inspect(run.checkpoints / "last").step == 15
        assert rows(run.path) == rows(latest_run(tmp_path / "a"))
    finally:
        subprocess.run(["umount", str(small)], check=False)


class Failing(ToyItems):
    """Fails in the 8th batch of 12 items, in the way given."""

    def __init__(self, fail) -> None:
        self.fail = fail

    def __getitem__(self, key):
        if key[0] * 5 * 12 + key[1] == 8 * 12 + 3:
            self.fail()
        return super().__getitem__(key)


def missing_shard() -> None:
    Path("data/demo/train-photo-00000.h5").read_bytes()


def cut_shard() -> None:
    raise DataError("data/demo/train-photo-00000.h5: is cut short; run `zssbir prepare` again")


def killed_worker() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (missing_shard, r"No such file.*train-photo-00000\.h5"),
        (cut_shard, r"^data/demo/train-photo-00000\.h5: is cut short"),
        (killed_worker, "a data-loading process died .*in training data.workers"),
    ],
)
def test_data_that_fails_in_the_middle_costs_no_progress(tmp_path, workers, fail, message):
    """One clear line, the state saved at the very step; once repaired, the run ends as if nothing had
    been."""
    if fail is killed_worker and workers == 0:
        pytest.skip("there is no worker to kill")
    straight, _ = toy_fit(make_run(tmp_path / "a"), epochs=3)
    run = make_run(tmp_path / "b")
    with pytest.raises(DataError, match=message) as caught:
        toy_fit(run, epochs=3, data=toy_data(items=Failing(fail)), workers=workers)
    assert f"progress is saved: continue with --resume {run.path}" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    saved = checkpoint.inspect(run.checkpoints / "last").step
    assert saved == 8 if fail is not killed_worker else 1 <= saved <= 8
    resumed, _ = toy_fit(run, epochs=3, resume=True, method=toy_method(seed=4))
    assert same_weights(straight, resumed)
    assert rows(run.path) == rows(latest_run(tmp_path / "a"))


def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch):
    """Names of runs may collide or go back in time; `latest` and all durations do not care."""
    straight, _ = toy_fit(make_run(tmp_path / "a"), validate=lambda m: {"val/mAP@all": 0.1})
    times = itertools.chain([2e9, 2e9, 1e6], itertools.cycle([5.0, 3e9, 0.0]))
    real, hooks = time.strftime, Silent()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: next(times))
        patch.setattr(time, "strftime", lambda f, *_: real(f, time.gmtime(next(times))))
        runs = [make_run(tmp_path / "b") for _ in range(3)]
        method, result = toy_fit(runs[-1], hooks=hooks, validate=lambda m: {"val/mAP@all": 0.1})
    names = [r.path.name for r in runs]
    assert names == ["20330518-033320-toy", "20330518-033320-toy-2", "19700112-134640-toy"]
    assert latest_run(tmp_path / "b") == runs[-1].path
    assert same_weights(straight, method)
    assert all(r.eta_s >= 0 and r.images_per_s >= 0 for r in hooks.reports)
    assert 0 < result.seconds < 60


def _as_nobody(root: Path, queue) -> None:
    if os.getuid() == 0:
        os.setuid(65534)
    try:
        make_run(root)
        queue.put("no error")
    except UsageError as error:
        queue.put(str(error))


def test_a_folder_that_cannot_be_written_is_said_before_training(tmp_path):
    root = tmp_path / "runs"
    root.mkdir()
    root.chmod(0o555)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_as_nobody, args=(root, queue))
    process.start()
    process.join(30)
    assert (
        queue.get()
        == f"{root}: cannot write the run's folder (Permission denied); choose another with --runs"
    )


def test_a_file_in_the_way_of_the_runs_folder(tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(UsageError, match="cannot write the run's folder"):
        make_run(tmp_path / "runs")


def test_out_of_memory_says_which_setting_to_lower(tmp_path):
    class Greedy(ToyItems):
        pass

    method = toy_method()

    def forward(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    method.forward = forward
    with pytest.raises(UsageError, match=r"12 items a batch .* lower train\.batch_size"):
        toy_fit(make_run(tmp_path), method=method)


@pytest.mark.slow
def test_a_rank_that_is_killed_ends_the_run_with_one_message(tmp_path):
    """torchrun, two ranks; rank 1 dies of SIGKILL in step 5. Afterwards the run goes on from its last
    checkpoint."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [faults_worker.__file__, str(tmp_path), "new", "rank-killed"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode != 0
    messages = [line for line in done.stderr.splitlines() if "zssbir: error:" in line]
    assert len(messages) == 1, done.stderr
    assert "lost another rank" in messages[0]
    run = latest_run(tmp_path)
    assert checkpoint.inspect(run / "checkpoints" / "last").step == 3
    assert ended(start(tmp_path, "resume")) == 0
    assert checkpoint.inspect(run / "checkpoints" / "last").step == 40
