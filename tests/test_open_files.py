"""One table of open files, read from many threads and processes at once."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from zssbir_cli.data.open_files import OpenFiles

THREADS = 8


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """60 files of 4,096 bytes; every byte of a file is its number."""
    paths = [tmp_path / f"{i}.bin" for i in range(60)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * 4096)
    return paths


def test_threads_that_evict_each_others_files_read_their_own_bytes(files: list[Path]) -> None:
    table = OpenFiles(limit=2)

    def wrong(seed: int) -> int:
        picks = np.random.default_rng(seed).integers(0, len(files), 3000)
        return sum(table.read(files[i], 7, 512) != bytes([i]) * 512 for i in picks)

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(wrong, range(THREADS))) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_does_not_wait_for_its_parents_lock(files: list[Path]) -> None:
    table = OpenFiles()
    table.read(files[0], 0, 8)
    with table._lock:  # as when another thread is in the middle of a read while the process forks
        child = os.fork()
        if not child:
            os._exit(0 if table.read(files[3], 0, 8) == bytes([3]) * 8 else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_pickled_table_opens_its_own_files(files: list[Path]) -> None:
    table = OpenFiles(limit=3)
    table.read(files[0], 0, 8)
    copy = pickle.loads(pickle.dumps(table))
    assert copy.read(files[5], 0, 8) == bytes([5]) * 8


def test_the_end_of_a_file_is_a_short_read(files: list[Path]) -> None:
    assert len(OpenFiles().read(files[0], 4090, 100)) == 6
