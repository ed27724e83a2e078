"""The seal behind an HDF5 file: any change outside the bulk is noticed before the library reads a byte."""

import contextlib
import io
from pathlib import Path

import h5py
import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.data.seal import LENGTH, check_seal, seal
from zssbir_cli.errors import DataError


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, tuple[int, int]]:
    """A sealed file (to be overwritten), its bytes, and where its rows lie."""
    path = tmp_path_factory.mktemp("seal") / "a.h5"
    with h5py.File(path, "w") as file:
        file["rows"] = np.arange(1000, dtype=np.float32)
        file["names"] = ["a", "bb", "ccc"]
        file.attrs["who"] = "somebody"
        start = int(file["rows"].id.get_offset())
    with path.open("r+b") as raw:
        seal(raw, (start, start + 4000))
    return path, path.read_bytes(), (start, start + 4000)


def test_a_sealed_file_is_still_hdf5(sealed: tuple[Path, bytes, tuple[int, int]]) -> None:
    path, raw, _ = sealed
    path.write_bytes(raw)
    assert check_seal(path)
    with h5py.File(path) as file:
        assert file["names"][1] == b"bb"


@cases(100)
@given(place=st.integers(0), flip=st.integers(1, 255))
def test_every_changed_byte_outside_the_bulk_is_noticed(
    sealed: tuple[Path, bytes, tuple[int, int]], place: int, flip: int
) -> None:
    path, raw, (start, stop) = sealed
    changed = bytearray(raw)
    place %= len(raw)
    changed[place] ^= flip
    path.write_bytes(changed)
    if start <= place < stop:
        assert check_seal(path)
    elif place >= len(raw) - LENGTH:
        with contextlib.suppress(DataError):  # in the seal itself: damaged, or no seal at all
            assert not check_seal(path)
    else:
        with pytest.raises(DataError, match=r"a\.h5 is damaged"):
            check_seal(path)


def test_files_without_a_seal_are_let_through(tmp_path: Path) -> None:
    for raw in (b"", b"x" * 10, b"x" * 1000):
        (tmp_path / "b").write_bytes(raw)
        assert not check_seal(tmp_path / "b")


def test_a_seal_without_a_bulk() -> None:
    file = io.BytesIO(b"abc")
    seal(file, (0, 0))
    assert len(file.getvalue()) == 3 + LENGTH
