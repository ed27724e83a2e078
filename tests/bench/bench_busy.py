"""Training steps and embedding on a machine that does other things too: threads that sleep when they wait, against threads that
spin as GNU's OpenMP runtime lets them by default.

    python tests/bench/bench_busy.py [--backbone resnet18] [--size 64] [--batch 32] [--steps 20] [--busy 2] [--repeat 5]

Each measurement is a process of its own with a thread per core, alone and beside `--busy` endless loops. Interleaved; medians of
seconds and of processor seconds, without start-up.
"""

import argparse
import os
import statistics
import subprocess
import sys

from zssbir_cli.compute.threads import SPINS

WORK = """
import os, sys, time, timm, torch
from zssbir_cli.compute.memory import keep_freed_memory
keep_freed_memory()
name, size, batch, steps = sys.argv[1], *map(int, sys.argv[2:])
model = timm.create_model(name, num_classes=0).to(memory_format=torch.channels_last)
images = torch.rand(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
def train(): model(images).square().mean().backward()
@torch.inference_mode()
def embed(): model(images)
for work in (train, embed):
    model.train(work is train)
    work()
    begin, before = time.perf_counter(), time.process_time()
    for _ in range(steps): work()
    print(time.perf_counter() - begin, time.process_time() - before)
"""
BASELINE, OURS = "300000", SPINS


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--spins", default=OURS, help="instead of the product's own")
    args = parser.parse_args()
    work = (args.backbone, *map(str, (args.size, args.batch, args.steps)))
    for busy in (0, args.busy):
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
        try:
            runs = {spins: [] for spins in (BASELINE, args.spins)}
            for _ in range(args.repeat):
                for spins, seen in runs.items():
                    seen.append(measured(spins, work))
        finally:
            for loop in loops:
                loop.kill()
        report(f"{args.backbone}, {args.size} px, {busy} other programs, load {os.getloadavg()[0]:.1f}", runs)


def measured(spins: str, work: tuple[str, ...]) -> list[float]:
    """Seconds and processor seconds of training, then of embedding."""
    done = subprocess.run(
        [sys.executable, "-c", WORK, *work], env={**os.environ, "GOMP_SPINCOUNT": spins}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return [float(word) for word in done.stdout.split()]


def report(title: str, runs: dict[str, list[list[float]]]) -> None:
    """One line per kind of work and unit."""
    print(title)
    spun, slept = (
        [statistics.median(column) for column in zip(*seen, strict=True)] for seen in runs.values()
    )
    names = [
        f"{work}, {unit}" for work in ("training", "embedding") for unit in ("seconds", "processor seconds")
    ]
    for name, before, after in zip(names, spun, slept, strict=True):
        print(f"  {name:28s} spinning {before:6.2f}, sleeping {after:6.2f}: {before / after:.2f} x")


if __name__ == "__main__":
    main()
