"""The embeddings file: what it keeps, and damaged or foreign ones."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from retrieval_helpers import write_rows

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.errors import DataError


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_file_keeps_rows_labels_names_and_facts(tmp_path: Path, dtype: type) -> None:
    rows = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    found = read_embeddings(write_rows(tmp_path / "a" / "e.h5", rows, dtype=dtype))
    np.testing.assert_array_equal(found.embedding, rows)
    assert isinstance(found.embedding, np.memmap)
    assert found.label.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert found.sources[6] == "p/6.jpg"
    assert found.info == EmbeddingInfo(checkpoint="ab", classes=("a", "é b"), size=32)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["e.h5"]


def test_rows_that_are_not_as_many_leave_no_file(tmp_path: Path) -> None:
    blocks = iter([np.ones((3, 2), np.float32)])
    with pytest.raises(DataError, match="3 rows for 4 images"):
        write_embeddings(
            tmp_path / "e.h5", blocks, np.zeros(4, int), np.ones(4, int), ["x"] * 4, EmbeddingInfo()
        )


@cases(60)
@given(cut=st.floats(0, 1) | st.just(1.0), flip=st.integers(0, 10**6))
def test_damaged_files_are_data_errors_or_read(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flip: int
) -> None:
    path = write_rows(tmp_path_factory.mktemp("cut") / "e.h5", np.ones((50, 8), np.float32))
    raw = bytearray(path.read_bytes())
    raw[flip % len(raw)] ^= 0xFF
    kept = raw[: int(cut * len(raw))]
    path.write_bytes(bytes(kept))
    with contextlib.suppress(DataError):
        found = read_embeddings(path)  # a byte that says nothing, or one of a value
        assert len(kept) == len(raw)
        assert len(found.embedding) == len(found.label) == 50


def test_a_strangers_h5_and_a_missing_file_are_named(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["data"] = np.ones(3)
    with pytest.raises(DataError, match="written by an older version or another program"):
        read_embeddings(tmp_path / "x.h5")
    with pytest.raises(DataError, match="no such file"):
        read_embeddings(tmp_path / "y.h5")
