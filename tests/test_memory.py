"""Freed memory is kept, where that is wanted and possible."""

import os
import subprocess
import sys

import pytest

from zssbir_cli.compute.threads import SPINS

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc")
FAULTS = """
import resource, sys
from zssbir_cli.compute.memory import keep_freed_memory
kept = keep_freed_memory()
import numpy as np
def batch():
    for _ in range(4):
        np.ones(12_000_000, np.float32)  # 48 MB: more than glibc keeps by itself
batch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    batch()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(**environment: str) -> tuple[bool, int]:
    """Whether memory is kept, and the page faults of ten batches, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, count = done.stdout.split()
    return kept == "1", int(count)


@LINUX
def test_freed_memory_is_not_faulted_in_again() -> None:
    kept, count = faults()
    if not kept:
        pytest.skip("this C library has no mallopt, or another allocator is in use")
    assert count < 1000
    off, without = faults(ZSSBIR_KEEP_MEMORY="0")
    assert not off
    assert without > 20 * max(count, 1)


@LINUX
def test_another_allocator_is_left_alone() -> None:
    kept, _ = faults(LD_PRELOAD="/nowhere/libjemalloc.so.2")
    assert not kept


@LINUX
def test_a_limit_of_addresses_is_said_before_pytorch_aborts() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3_000_000_000, -1))\n"
        "from zssbir_cli.cli.display import loading\n"
        "with loading('train', 'the data'):\n    import torch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UsageError: `ulimit -v` allows 3.0 GB of addresses, and loading PyTorch takes 3.3" in done.stderr
    assert done.returncode == 1  # not -6: std::bad_alloc


@pytest.mark.parametrize(
    ("chosen", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_that_wait_for_each_other_sleep_soon(chosen: dict[str, str], spins: str) -> None:
    """As OpenMP itself says when PyTorch loads it."""
    env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-m", "zssbir_cli", "doctor", "--json"], capture_output=True, text=True, check=False,
        env={**env, **chosen, "OMP_DISPLAY_ENV": "verbose"},
    )  # fmt: skip
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("PyTorch has another OpenMP runtime than GNU's here")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
