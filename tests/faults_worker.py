"""A toy training run as its own process, for tests that kill it: `python faults_worker.py RUNS {new|resume}
[fault]`."""

import os
import select
import signal
import sys
import time
from pathlib import Path

import torch
from engine_helpers import Toy, make_run, toy_data, toy_fit

from zssbir_cli.compute import distributed
from zssbir_cli.engine.report import Silent
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import latest_run
from zssbir_cli.errors import ZssbirError


class Slow(Toy):
    """Each step takes a few milliseconds; `rank-killed`: rank 1 dies without a word before step 4; `terminal-closed`:
    step 6 waits until the terminal on stdin is."""

    fault = ""

    def before_step(self, progress) -> None:
        time.sleep(0.004)
        if self.fault == "rank-killed" and progress.step == 4 and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "terminal-closed" and progress.step == 6:
            closed = select.poll()
            closed.register(0, 0)
            closed.poll(60_000)
            time.sleep(0.5)  # the signal is on its way


class Progress(Silent):
    """Writes each reported step into a file, so that a test knows when to strike."""

    def __init__(self, root: str) -> None:
        super().__init__()
        self.file = Path(root) / "step"

    def report(self, report) -> None:
        self.file.write_text(str(report.step))


def train(root: str, what: str, *fault: str) -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    method = Slow(0.2)
    method.fault = fault[0] if fault else ""
    try:
        with distributed.session(torch.device("cpu")):
            resume = what == "resume" and (Path(root) / "latest").exists()
            run = (
                RunDir(latest_run(Path(root)), {"name": "toy"}, {"identity": "a"})
                if resume
                else make_run(Path(root))
            )
            toy_fit(
                run,
                method=method,
                data=toy_data(steps=8),
                epochs=5,
                workers=1,
                checkpoint_every=3,
                hooks=Progress(root),
                resume=resume,
                validate=lambda m: {"val/mAP@all": float(m.net[0].weight.sum().sin())},
            )
    except ZssbirError as error:
        os.write(1, b".")  # as a display does that ends; raises when the terminal is gone
        print(f"zssbir: error: {error}", file=sys.stderr, flush=True)
        return error.exit_code
    return 0


def main(*arguments: str) -> None:
    """Train, with stderr in a file when forked by a test, and leave without Python's own end."""
    if arguments:
        Path(arguments[0]).mkdir(exist_ok=True)
        sys.stderr = (Path(arguments[0]) / "stderr").open("w")
    code = train(*(arguments or sys.argv[1:]))
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
