"""Writing HDF5 on a disk that is really full, and the checksums of rows."""

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from cases import cases
from hypothesis import example, given
from hypothesis import strategies as st

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.data.hdf5 import differing_rows, row_sums
from zssbir_cli.data.scores import read_scores
from zssbir_cli.data.stage import Stage
from zssbir_cli.errors import DataError

WRITERS = {
    "embeddings": "write_embeddings(path, (np.ones((1000, 64), np.float32) for _ in range(40)), np.zeros(40000), "
    "np.ones(40000), [str(i) for i in range(40000)], EmbeddingInfo())",
    "renewal": "write_embeddings(path, (Summed(np.ones((1000, 64), np.float32), np.ones(1000, np.uint64)) for _ in range(40)), "
    "np.zeros(40000), np.ones(40000), [str(i) for i in range(40000)], EmbeddingInfo())",
    "scores": "write_scores(path, np.ones((20000, 14, 14), np.float16), data='d', facts={})",
    "stage": "Stage(path, {}).put('1', rows=np.ones((9000, 128), np.float32))",
}
CODE = """
import resource, sys
from pathlib import Path
import numpy as np
from zssbir_cli.data.embeddings import EmbeddingInfo, write_embeddings
from zssbir_cli.data.hdf5 import Summed
from zssbir_cli.data.scores import write_scores
from zssbir_cli.data.stage import Stage
from zssbir_cli.errors import DataError
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    {call}
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [0, 700, 5000, 3_000_000])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_line_and_no_crash(tmp_path: Path, writer: str, limit: int) -> None:
    """The system refuses to let files grow past `limit`: as a full disk, at any place of the writing."""
    path = tmp_path / "x.h5"
    path.write_bytes(b"what was there")
    code = CODE.format(call=WRITERS[writer])
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(limit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert "cannot" in done.stdout
    assert "File too large" in done.stdout
    assert path.read_bytes() == b"what was there"
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p != path]


@cases(200)
@given(seed=st.integers(0, 1000), width=st.integers(1, 40), half=st.booleans(), bit=st.integers(0, 10**6))
def test_any_flipped_bit_is_found_in_its_row(seed: int, width: int, half: bool, bit: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((9, width)).astype(np.float16 if half else np.float32)
    sums = row_sums(rows)
    assert not len(differing_rows(rows, sums, block=4))
    raw = bytearray(rows.tobytes())
    bit %= 8 * len(raw)
    raw[bit // 8] ^= 1 << bit % 8
    altered = np.frombuffer(raw, rows.dtype).reshape(rows.shape)
    assert differing_rows(altered, sums, block=4).tolist() == [bit // 8 // (len(raw) // 9)]


def test_other_rows_zeros_and_an_order_are_found() -> None:
    rows = np.random.default_rng(0).standard_normal((50, 8)).astype(np.float32)
    sums = row_sums(rows)
    assert len(differing_rows(rows[::-1], sums)) == 50
    assert len(differing_rows(-rows, sums)) == 50
    assert len(differing_rows(np.zeros_like(rows), sums)) == 50
    assert len(differing_rows(np.roll(rows, 1, axis=1), sums)) == 50


def test_damage_is_noticed_before_the_library_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any changed byte of an embeddings file is named, and HDF5 never opens damaged, cut or unsealed bytes."""
    path = tmp_path / "a.h5"
    rows = np.random.default_rng(0).standard_normal((200, 16)).astype(np.float32)
    write_embeddings(path, rows, np.zeros(200), np.ones(200), [str(i) for i in range(200)], EmbeddingInfo())
    sound, draw = path.read_bytes(), np.random.default_rng(0)
    start = sound.index(rows.tobytes())
    opened: list[int] = []
    real = h5py.File
    monkeypatch.setattr("zssbir_cli.data.hdf5.h5py.File", lambda *a, **k: opened.append(1) or real(*a, **k))
    for place in draw.integers(0, len(sound), 300).tolist():
        damaged = bytearray(sound)
        damaged[place] ^= 1 << int(draw.integers(8))
        path.write_bytes(damaged)
        opened.clear()
        with pytest.raises(DataError, match=r"a\.h5.*run `zssbir embed` again"):
            read_embeddings(path)
        assert not opened or start <= place < start + rows.nbytes
    for cut in (0, 10, 3000, len(sound) - 1):
        path.write_bytes(sound[:cut])
        with pytest.raises(DataError, match=r"a\.h5.*run `zssbir embed` again"):
            read_embeddings(path)
        with pytest.raises(
            DataError, match=r"a\.h5.*write it again with .*write_scores.*method.masks=cached"
        ):
            read_scores(path, data="d", count=200)


@cases(200)
@given(at=st.integers(0, 10**4), value=st.integers(0, 255))
@example(at=8, value=99)  # another method of compression
@example(at=6, value=1)  # "encrypted"
@example(at=4, value=255)  # a version of zip to come
def test_a_damaged_block_of_a_stage_is_missing(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    stage = Stage(tmp_path_factory.getbasetemp() / "x.h5", {})
    rows = np.arange(6, dtype=np.float32)
    stage.put("1", rows=rows)
    file = stage.folder / "1.npz"
    raw = bytearray(file.read_bytes())
    for start in (0, raw.index(b"PK\x01\x02") + 2):  # the file's own header, and the directory's copy
        raw[(start + at) % len(raw)] = value
    file.write_bytes(raw)
    found = stage.load("1")
    assert found is None or "rows" not in found or np.array_equal(found["rows"], rows)


def test_a_foreign_file_that_the_library_never_finishes_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of an object in the heap of texts is such that the next one begins where it does."""
    path, rows = tmp_path / "a.h5", np.random.default_rng(0).standard_normal((6, 4))
    with h5py.File(path, "w") as file:
        for name in ("query", "gallery"):
            file[name] = rows
            file.create_dataset(f"{name}_labels", data=["cat", "dog", "cup"] * 2, dtype=h5py.string_dtype())
    assert read_user_embeddings(path).classes == ("cat", "cup", "dog")
    damaged = bytearray(path.read_bytes())
    size = damaged.index(b"GCOL") + 16 + 8
    damaged[size : size + 8] = ((1 << 64) - 16).to_bytes(8, "little")
    path.write_bytes(damaged)
    monkeypatch.setattr("zssbir_cli.data.hdf5.PATIENCE", 4.0)
    with pytest.raises(DataError, match=r"a\.h5 is damaged: the HDF5 library does not finish"):
        read_user_embeddings(path)
