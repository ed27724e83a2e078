"""Threads that wait for each other sleep soon, so that other programs on the machine do not make a pass several times slower."""

import os

SPINS = "10000"
"""Rounds for which GNU's OpenMP runtime waits before it sleeps, a thirtieth of its default: a MobileNetV2 is as fast on an idle
machine, while 1,000 rounds cost it a quarter (tests/bench/bench_busy.py)."""
_CHOICES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


def sleep_when_waiting() -> None:
    """Let PyTorch's threads sleep soon when one of them has to wait for the others; to be called before PyTorch is loaded.

    While another program has a thread's core, the others would otherwise spin for long in each operation and keep the
    cores from whoever could go on. Environment variables of the user's, `GOMP_SPINCOUNT` and `OMP_WAIT_POLICY`, are left alone.
    """
    if not any(name in os.environ for name in _CHOICES):
        os.environ["GOMP_SPINCOUNT"] = SPINS
