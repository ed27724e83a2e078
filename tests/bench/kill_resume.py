"""SIGKILL a training run at random moments, resume it each time, and compare with the uninterrupted run.

    python tests/bench/kill_resume.py --kills 30

A toy method (dropout, a running centre, AdamW, validation, a loading process) trains for 40 steps with a
checkpoint every 3 steps. Weights, best checkpoint, optimizer state and metrics.jsonl (without the measured
times) must come out bit for bit the same. Exits with 1 if they do not.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import faults_worker
from engine_helpers import make_run, toy_fit

from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.runs import latest_run, read_metrics


def start(root: Path, what: str) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=faults_worker.main, args=(str(root), what))
    process.start()
    return process


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves, without measured times."""
    times = ("images_per_s", "data_wait")
    state = checkpoint.load_state(run / "checkpoints" / "last")
    state["state"].pop("seconds")
    return {
        "metrics": [{k: v for k, v in row.items() if k not in times} for row in read_metrics(run)],
        "last": checkpoint.read_weights(run / "checkpoints" / "last"),
        "best": checkpoint.read_weights(run / "checkpoints" / "best"),
        "state": state,
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        toy_fit(make_run(root / "warm"), epochs=1)  # what PyTorch imports late is then imported for all
        began = time.monotonic()
        process = start(root / "straight", "new")
        process.join()
        span = time.monotonic() - began
        expected = outcome(latest_run(root / "straight"))
        print(f"uninterrupted: {span:.2f} s; killing at random moments of a {span:.2f} s window")
        kills = runs = writing = 0
        failures = []
        while kills < options.kills:
            target, mine = root / f"run{runs}", 0
            while True:
                process = start(target, "resume")
                process.join(rng.uniform(0, span))
                if process.is_alive() and kills < options.kills:
                    process.kill()
                    process.join()
                    kills, mine = kills + 1, mine + 1
                    writing += bool(list(target.glob("*/checkpoints/*.partial")))
                    continue
                process.join()
                break
            equal = process.exitcode == 0 and same(outcome(latest_run(target)), expected)
            print(
                f"run {runs}: {mine} kills, then {'equal' if equal else 'DIFFERENT'} (exit {process.exitcode})"
            )
            failures += [] if equal else [runs]
            runs += 1
    print(f"{kills} kills ({writing} in the middle of writing a checkpoint) in {runs} runs: ", end="")
    print("all bitwise equal" if not failures else f"runs {failures} differ")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
