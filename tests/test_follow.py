"""A gallery that follows its folder: what it holds after any changes, and what becomes of rows that it had."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from retrieval_helpers import make_run

from zssbir_cli.data.embeddings import EmbeddingInfo, Embeddings, read_embeddings, write_embeddings
from zssbir_cli.data.hdf5 import Summed, row_sums
from zssbir_cli.embedding import kept
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.folder import follow_folder
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.embedding.join import join_galleries
from zssbir_cli.embedding.kept import rows_in_order
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.workflows.embed import embed

CPU = torch.device("cpu")


def stored(path: Path, rows: np.ndarray) -> Embeddings:
    """The rows as an embeddings file, opened."""
    n = len(rows)
    names = [f"{i:04d}.jpg" for i in range(n)]
    write_embeddings(path, rows, np.full(n, -1), np.ones(n), names, EmbeddingInfo(), dtype=rows.dtype.type)
    return read_embeddings(path)


def picture(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (24, 30, 3), dtype=np.uint8)).save(path)


def change(folder: Path, rng: np.random.Generator) -> None:
    """One of: photos are added, changed, removed, moved, swapped, or become unreadable."""
    files = sorted(p for p in folder.rglob("*.jpg"))
    some = [files[i] for i in rng.permutation(len(files))[: int(rng.integers(1, 4))]]
    what = int(rng.integers(6))
    if what == 0 or len(files) < 8:
        for _ in range(4):
            picture(folder / "abc"[rng.integers(3)] / f"{rng.integers(10**6)}.jpg", rng)
    for file in some if what in (1, 2, 3, 5) else ():
        if what == 1:
            picture(file, rng)
        elif what == 2:
            file.unlink()
        elif what == 3:
            target = folder / "abcd"[rng.integers(4)] / f"{rng.integers(10**6)}.jpg"
            target.parent.mkdir(exist_ok=True)
            file.rename(target)
        else:
            file.write_bytes(file.read_bytes()[:100])
    if what == 4:
        spare = folder / "spare"
        for one, other in ((some[0], spare), (files[0], some[0]), (spare, files[0])):
            if one.exists():
                one.rename(other)


def test_any_changes_leave_what_embedding_from_scratch_does(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "TOGETHER", 3)  # with so few photos, too, rows are written from where they lie
    embedder = Embedder(RunWeights(make_run(tmp_path / "run", tiny_recipe)), CPU, workers=0, batch=4)
    folder, gallery, fresh = tmp_path / "photos", tmp_path / "g.h5", tmp_path / "fresh.h5"
    rng = np.random.default_rng(5)
    for i in range(12):
        picture(folder / "abc"[i % 3] / f"{i}.jpg", rng)
    query = torch.from_numpy(rng.standard_normal((3, 1)).astype(np.float32))
    for _ in range(25):
        change(folder, rng)
        follow_folder(embedder, folder, gallery)
        follow_folder(embedder, folder, fresh, force=True)
        ours, theirs = (
            open_gallery(gallery, CPU, embedder=embedder),
            open_gallery(fresh, CPU, embedder=embedder),
        )
        assert ours.stored.sources == theirs.stored.sources
        assert [s.name for s in ours.stored.skipped] == [s.name for s in theirs.stored.skipped]
        assert np.allclose(ours.photos, theirs.photos, atol=1e-5)
        queries = query.expand(3, ours.photos.shape[1])
        found = [[(h.row, h.name) for h in g.nearest(queries, 5)[0]] for g in (ours, theirs)]
        assert found[0] == found[1]


def test_a_renamed_folder_keeps_its_rows(
    tmp_path: Path, photo_gallery: tuple[Path, Path], tiny_recipe: Path
) -> None:
    """The gallery of a folder that is there no more serves the same photos elsewhere; that of one that is, or of others, does not."""
    embedder = Embedder(RunWeights(make_run(tmp_path / "run", tiny_recipe)), CPU)
    shutil.copytree(photo_gallery[0], tmp_path / "first")
    first = follow_folder(embedder, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "second")
    picture(tmp_path / "second" / "a" / "new.jpg", np.random.default_rng(0))
    second = follow_folder(embedder, tmp_path / "second")
    assert (second.new, second.changed, second.kept) == (1, 0, 12)
    assert (second.path != first.path, first.path.exists()) == (True, True)
    found = read_embeddings(second.path)
    assert found.info.data_root == str(tmp_path / "second")
    before = read_embeddings(first.path)
    rows = [i for i, name in enumerate(found.sources) if name in before.sources]
    np.testing.assert_array_equal(np.array(found.embedding)[rows], before.embedding)
    shutil.copytree(tmp_path / "second", tmp_path / "copy")
    assert follow_folder(embedder, tmp_path / "copy").kept == 12  # those of `first`, which is gone
    first.path.unlink()
    shutil.copytree(tmp_path / "second", tmp_path / "other")
    assert follow_folder(embedder, tmp_path / "other").new == 13


def test_a_file_says_where_its_photos_are_after_the_folder_was_moved(
    tmp_path: Path, tiny_recipe: Path
) -> None:
    embedder = Embedder(RunWeights(make_run(tmp_path / "run", tiny_recipe)), CPU, workers=0)
    gallery, rng = tmp_path / "g.h5", np.random.default_rng(0)
    for i in range(3):
        picture(tmp_path / "before" / f"{i}.jpg", rng)
    follow_folder(embedder, tmp_path / "before", gallery)
    (tmp_path / "before").rename(tmp_path / "after")
    assert follow_folder(embedder, tmp_path / "after", gallery).kept == 3
    assert read_embeddings(gallery).file_of(0) == tmp_path / "after" / "0.jpg"
    written = gallery.stat().st_mtime_ns
    follow_folder(embedder, tmp_path / "after", gallery)
    assert gallery.stat().st_mtime_ns == written


def test_nothing_but_an_embeddings_file_is_overwritten(tmp_path: Path, tiny_recipe: Path) -> None:
    run = make_run(tmp_path / "run", tiny_recipe)
    photo = tmp_path / "photos" / "0.jpg"
    picture(photo, np.random.default_rng(0))
    before = photo.read_bytes()
    with pytest.raises(UsageError, match=r"0\.jpg: this file is no embeddings file and is not overwritten"):
        embed(run, photos=tmp_path / "photos", out=photo)
    with pytest.raises(UsageError, match=r"photos: is a folder; name a file"):
        embed(run, photos=tmp_path / "photos", out=tmp_path / "photos")
    part = embed(run, photos=tmp_path / "photos", out=tmp_path / "g.h5", workers=0).files[0]
    with pytest.raises(UsageError, match="not overwritten"):
        join_galleries([part], photo)
    with pytest.raises(UsageError, match=r"0\.jpg: neither an embeddings file nor a folder"):
        open_gallery(photo, CPU, run=run)
    assert photo.read_bytes() == before


def test_why_every_photo_is_embedded_again_is_said(
    tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / f"run{i}", tiny_recipe, seed=i) for i in range(2)]
    picture(tmp_path / "photos" / "0.jpg", np.random.default_rng(0))
    for run, half, said in (
        (0, True, ""),
        (0, False, "g.h5: made with --half: every photo is embedded again"),
        (1, False, "g.h5: made with other weights ("),
        (1, False, ""),
    ):
        embed(runs[run], photos=tmp_path / "photos", out=tmp_path / "g.h5", half=half, workers=0)
        err = capsys.readouterr().err
        assert said in err
        assert bool(said) == ("embedded again" in err)


def test_a_photo_that_may_not_be_opened_is_named_with_the_reason(
    tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe)
    for name in ("0.jpg", "1.jpg"):
        picture(tmp_path / "photos" / name, np.random.default_rng(0))
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "1.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)  # root may open everything
    done = embed(run, photos=tmp_path / "photos", out=tmp_path / "g.h5", workers=0).folder
    assert done is not None
    assert done.skipped == (("1.jpg", "Permission denied"),)


@cases(150)
@given(
    source=st.lists(st.one_of(st.just(-1), st.integers(0, 29)), min_size=1, max_size=40),
    run=st.integers(0, 20),
    together=st.integers(1, 8),
    half=st.booleans(),
    was_half=st.booleans(),
)
def test_old_and_new_rows_come_in_the_order_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
    source: list[int],
    run: int,
    together: int,
    half: bool,
    was_half: bool,
) -> None:
    """Kept rows carry the checksum of the old file, whatever it says; only a change of type makes another one."""
    types = {True: np.float16, False: np.float32}
    rng = np.random.default_rng(len(source))
    rows, new = (rng.standard_normal((40, 6)).astype(types[was_half]) for _ in range(2))
    old = replace(
        stored(tmp_path_factory.getbasetemp() / "old.h5", rows), checksum=np.arange(40, dtype=np.uint64)
    )
    order = np.array([*source, *range(run, 40)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept, "TOGETHER", together)
        patch.setattr(kept, "BLOCK", 7)
        blocks = list(rows_in_order(old, order, lambda i: new[i % 40], types[half]))
    want = np.stack([rows[r] if r >= 0 else new[i % 40] for i, r in enumerate(order)]).astype(types[half])
    assert np.array_equal(np.concatenate([b.rows if isinstance(b, Summed) else b for b in blocks]), want)
    assert all(isinstance(b, Summed) == (half == was_half) for b in blocks)
    if half == was_half:
        sums = np.where(order >= 0, order.astype(np.uint64), row_sums(want))
        assert np.array_equal(np.concatenate([b.sums for b in blocks if isinstance(b, Summed)]), sums)


def test_rows_that_stay_are_neither_gathered_nor_summed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 5,000 rows, 3 new ones among them, those are written from the memory map that lie together."""
    rows = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    old = stored(tmp_path / "old.h5", rows)
    source = np.insert(np.arange(5000), [0, 2000, 2001], -1)
    summed: list[int] = []
    monkeypatch.setattr(kept, "row_sums", lambda block: summed.append(len(block)) or row_sums(block))
    blocks = list(rows_in_order(old, source, lambda i: rows[0], np.float32))
    lying = [b for b in blocks if isinstance(b, Summed) and np.shares_memory(b.rows, old.embedding)]
    assert sum(map(len, lying)) == 4999
    assert sum(summed) == 4


def test_damage_to_an_old_row_is_not_taken_for_its_contents(tmp_path: Path) -> None:
    """Also when it comes between looking at the old file and writing the new one."""
    rows = np.random.default_rng(0).standard_normal((600, 4)).astype(np.float32)
    old = stored(tmp_path / "old.h5", rows)
    raw = bytearray(old.path.read_bytes())  # type: ignore[union-attr]
    start = raw.index(rows.tobytes())
    for row in (100, 598):  # one that is written from where it lies, and one that is gathered
        raw[start + 16 * row] ^= 1
    with (tmp_path / "old.h5").open("r+b") as file:  # not another file: that of the memory map
        file.write(raw)
    source = np.array([*range(500), -1, 598, -1, 599])
    path = write_embeddings(
        tmp_path / "new.h5", rows_in_order(old, source, lambda i: rows[0], np.float32), np.full(504, -1),
        np.ones(504), [str(i) for i in range(504)], EmbeddingInfo(),
    )  # fmt: skip
    with pytest.raises(DataError, match="2 of 504 rows are not as they were written"):
        read_embeddings(path)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.embedding.kept import rows_in_order
old = read_embeddings(sys.argv[1])
def fresh(i):
    if i == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return old.embedding[0]
source = np.insert(np.arange(3000), [0, 1000, 3000], -1)
write_embeddings(old.path, rows_in_order(old, source, fresh, np.float32), np.full(3003, -1), np.ones(3003),
    [str(i) for i in range(3003)], EmbeddingInfo())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_kill_in_the_middle_of_a_renewal_leaves_the_old_file(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((3000, 32)).astype(np.float32)
    path = tmp_path / "g.h5"
    stored(path, rows)
    before = path.read_bytes()
    for at, code in ((0, -signal.SIGKILL), (1001, -signal.SIGKILL), (-1, 0)):
        line = [sys.executable, "-c", KILLED, os.fspath(path), str(at)]
        assert subprocess.run(line, check=False).returncode == code
        assert code == 0 or path.read_bytes() == before
    assert len(read_embeddings(path)) == 3003
    assert [p.name for p in tmp_path.iterdir()] == ["g.h5"]
