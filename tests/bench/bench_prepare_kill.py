"""Kill `prepare` with SIGKILL at random moments, many times; the repeated command must end with the same bytes.

python tests/bench/bench_prepare_kill.py [--kills 50] [--scale 0.08] [--seed 0]
"""

import argparse
import hashlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from full_layouts import write

Digests = dict[str, str]


def digests(folder: Path) -> Digests:
    """sha256 of every file."""
    return {
        p.name: hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.iterdir())
        if p.is_file() and p.name != ".lock"
    }


def command(source: Path, out: Path) -> list[str]:
    """The command under test; small shards, so that kills fall before, in and after many of them."""
    code = (
        "import sys; from zssbir_cli.data import shards; shards.ShardWriter.__init__.__kwdefaults__.update("
        "max_bytes=1 << 18); from zssbir_cli.__main__ import main; main()"
    )
    return [sys.executable, "-c", code, "prepare", "sketchy", "--from", str(source), "--out", str(out)]


def finish(source: Path, out: Path) -> None:
    """Run the command undisturbed."""
    done = subprocess.run(command(source, out), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"prepare failed: {done.stderr[-2000:]}")


def run_killed(source: Path, out: Path, kills: int, rng: random.Random, files: int) -> int:
    """Start and kill until `kills` kills were made or the run finished; returns the kills made.

    The moment: when a random number of files lies in the output folder, plus up to 50 ms.
    """
    for made in range(kills):
        process = subprocess.Popen(command(source, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        present = len(list(out.glob("*"))) if out.exists() else 0
        target = rng.randint(min(present, files), files)
        while process.poll() is None and (not out.exists() or len(list(out.glob("*"))) < target):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is not None:
            return made
        process.send_signal(signal.SIGKILL)
        process.wait()
    return kills


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scale", type=float, default=0.08)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        source, whole = Path(folder) / "Sketchy", Path(folder) / "whole"
        images = write("sketchy", source, args.scale, 48, "folder")
        start = time.monotonic()
        finish(source, whole)
        whole_s = time.monotonic() - start
        expected = digests(whole)
        print(f"{images:,} images, {len(expected) - 2} shards, {whole_s:.1f} s undisturbed")
        made = rounds = 0
        while made < args.kills:
            out = Path(folder) / f"out-{rounds}"
            made += run_killed(source, out, min(8, args.kills - made), rng, len(expected))
            finish(source, out)
            rounds += 1
            if digests(out) != expected or {p.name for p in out.iterdir()} != {*expected, ".lock"}:
                sys.exit(f"round {rounds}: the output differs after {made} kills")
            print(f"{made} kills, {rounds} finished sets, all equal", flush=True)


if __name__ == "__main__":
    main()
