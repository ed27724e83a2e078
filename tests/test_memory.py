"""Freed memory is kept, where that is wanted and possible."""

import os
import subprocess
import sys

import pytest

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
