"""Embeddings files and the embed workflow: folders of anything, resuming, freshness."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from retrieval_helpers import follow, make_run, photos, write_rows

from zssbir_cli.data.embeddings import read_embeddings, write_embeddings
from zssbir_cli.embedding import embedder as embedders
from zssbir_cli.embedding import gallery as galleries
from zssbir_cli.embedding import listing, parts
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.folder import FolderResult, PhotoFiles, follow_folder
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.embedding.listing import list_photos
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.types import Modality
from zssbir_cli.workflows.embed import embed

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _no_ready_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that a search of another test keeps ready are not found here."""
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path / "own-cache"))


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


def test_folder_of_photos_without_classes(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "notes.txt").write_text("hello")
    Image.new("CMYK", (9, 9)).save(folder / "cmyk.jpg")
    result = follow(run, folder)
    found = read_embeddings(result.path)
    assert found.sources == ("cmyk.jpg", *(f"sub 0/{i}.jpg" for i in (0, 2, 4)), "sub 1/1.jpg", "sub 1/3.jpg")
    assert [name for name, _ in result.skipped] == ["broken.jpg"]
    assert result.images == len(found)
    assert set(found.label) == {-1}
    np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-3)
    assert [p.name for p in result.path.parent.iterdir()] == [result.path.name]
    embedder = Embedder(RunWeights(run), CPU, workers=0)
    alone = embedder.embed(PhotoFiles(list_photos(folder / "sub 1"), 32), Modality.PHOTO)
    np.testing.assert_allclose(found.embedding[-2:], alone.numpy(), atol=1e-6)


def age(folder: Path, seconds: int = 100) -> None:
    """Let all files be old, so that their time stamps are believed."""
    past = time.time_ns() - seconds * 10**9
    for path in folder.rglob("*"):
        os.utime(path, ns=(past, past))


def test_a_file_follows_its_folder(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "UNSURE_NS", 0)
    folder = photos(tmp_path / "photos", 8)
    first = follow(run, folder)
    before = read_embeddings(first.path)
    stamp = first.path.stat().st_mtime_ns
    same = follow(run, folder)
    assert (same.kept, same.new, first.path.stat().st_mtime_ns) == (8, 0, stamp)
    (folder / "sub 0" / "0.jpg").rename(folder / "moved.jpg")
    (folder / "sub 0" / "2.jpg").unlink()
    Image.new("RGB", (20, 20), "red").save(folder / "sub 1" / "1.jpg")
    photos(folder / "more", 2, seed=1)
    (folder / "bad.png").write_bytes(b"")
    result = follow(run, folder)
    assert str(result) == "3 new, 1 changed, 1 moved, 1 gone, 5 kept, 1 unreadable"
    assert [name for name, _ in result.skipped] == ["bad.png"]
    after = read_embeddings(result.path)
    old, new = (dict(zip(e.sources, e.embedding, strict=True)) for e in (before, after))
    np.testing.assert_array_equal(new["moved.jpg"], old["sub 0/0.jpg"])
    assert np.abs(new["sub 1/1.jpg"] - old["sub 1/1.jpg"]).max() > 1e-3
    whole = read_embeddings(follow(run, folder, out=tmp_path / "anew.h5").path)
    assert whole.sources == after.sources
    np.testing.assert_allclose(whole.embedding, after.embedding, atol=1e-5)
    assert [name for name, _ in follow(run, folder).skipped] == ["bad.png"]


def test_unreadable_files_are_tried_again_when_they_change(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos", 2)
    (folder / "bad.png").write_bytes(b"")
    assert follow(run, folder).skipped[0][0] == "bad.png"
    Image.new("RGB", (20, 20), "red").save(folder / "bad.png")
    result = follow(run, folder)
    assert (result.skipped, result.images, result.changed) == ((), 3, 1)


def test_swapped_files_of_one_size_and_time_are_found_out(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, color in (("a.bmp", "red"), ("b.bmp", "blue")):
        Image.new("RGB", (20, 20), color).save(folder / name)
    age(folder)
    before = read_embeddings(follow(run, folder).path).embedding.copy()
    (folder / "a.bmp").rename(folder / "t")
    (folder / "b.bmp").rename(folder / "a.bmp")
    (folder / "t").rename(folder / "b.bmp")
    age(folder)
    np.testing.assert_array_equal(read_embeddings(follow(run, folder).path).embedding, before[::-1])


def test_damaged_rows_are_embedded_again(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "UNSURE_NS", 0)
    folder = photos(tmp_path / "photos", 6)
    path = follow(run, folder).path
    good = read_embeddings(path).embedding.copy()
    raw = bytearray(path.read_bytes())
    at = raw.index(good[2].tobytes())
    raw[at : at + 8] = bytes(8)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"1 of 6 rows are not as they were written .*row 2"):
        read_embeddings(path)
    assert follow(run, folder).kept == 5
    np.testing.assert_allclose(read_embeddings(path).embedding, good, atol=1e-6)


KILLED = """
import os, sys
from pathlib import Path
from zssbir_cli.data.stage import Stage
from zssbir_cli.workflows.embed import embed
put, done = Stage.put, []
def count(self, name, **arrays):
    put(self, name, **arrays)
    done.append(name)
    if len(done) == int(sys.argv[4]):
        os.kill(os.getpid(), int(sys.argv[5]))
Stage.put = count
embed(Path(sys.argv[1]), photos=Path(sys.argv[2]), out=Path(sys.argv[3]), workers=0, batch=4)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_folder_pass_loses_no_finished_batch(tmp_path: Path, run: Path, number: int) -> None:
    folder = photos(tmp_path / "photos", 12)
    target = tmp_path / "part.h5"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run), str(folder), str(target), "2", str(int(number))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert killed.returncode != 0
    assert not target.exists()
    photos(tmp_path / "photos" / "more", 1)  # a photo is added meanwhile
    counted: list[int] = []
    follow(run, folder, out=target, progress=lambda what, done, total: counted.append(done))
    assert counted[0] == 8
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("part")] == ["part.h5"]
    whole = read_embeddings(follow(run, folder, out=tmp_path / "whole.h5").path)
    found = read_embeddings(target)
    assert found.sources == whole.sources
    np.testing.assert_allclose(found.embedding, whole.embedding, atol=1e-5)


def test_two_at_once_both_end_with_a_whole_file(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos", 12)
    target = tmp_path / "g.h5"
    line = [sys.executable, "-m", "zssbir_cli", "embed", "--images", str(folder), "--run", str(run), "--out"]
    jobs = [
        subprocess.Popen([*line, str(target), "--workers", "0", "--batch", "2"], stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outcomes = [(job.communicate()[1], job.returncode) for job in jobs]
    assert [code for _, code in outcomes] == [0, 0], outcomes
    found = read_embeddings(target)
    assert len(found) == 12
    assert np.linalg.norm(found.embedding, axis=1).min() > 0.99
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("g.h5")] == ["g.h5"]


def test_other_weights_preprocessing_or_versions_are_not_reused(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = Embedder(RunWeights(run), CPU)
    info = embedder.info()
    assert embedder.accepts(info)
    assert not embedder.accepts(replace(info, checkpoint="0" * 64))
    assert not embedder.accepts(replace(info, made=""))
    assert not Embedder(RunWeights(run), CPU, precision="fp32").accepts(replace(info, precision="bf16"))
    monkeypatch.setattr(embedders, "STEPS_VERSION", 0)
    assert not Embedder(RunWeights(run), CPU).accepts(info)
    monkeypatch.undo()
    monkeypatch.setattr(embedders, "library_versions", lambda *names: {"torch": "1.0"})
    assert not Embedder(RunWeights(run), CPU).accepts(info)


def test_a_damaged_copy_of_a_set_is_refused(tmp_path: Path, run: Path, tiny_demo: Path) -> None:
    copy = shutil.copytree(tiny_demo, tmp_path / "copy")
    victim = next(iter(sorted(copy.glob("test-photo-*.h5"))))
    with h5py.File(victim, "r+") as file:
        at = file["blob"].id.get_offset()
    raw = bytearray(victim.read_bytes())
    raw[at + 700] ^= 1
    victim.write_bytes(raw)
    with pytest.raises(DataError, match=victim.name):
        embed(run, data=copy, parts=["test"])
    good = embed(run, parts=["test"]).files[0]
    assert read_embeddings(good).info.part == "test"


def test_parts_of_the_runs_data_set(tmp_path: Path, run: Path) -> None:
    paths = list(embed(run).files)
    assert [read_embeddings(p).info.part for p in paths] == ["test", "val"]
    found = read_embeddings(paths[0])
    assert len(found.rows_of(Modality.SKETCH)) == 39
    assert len(found.rows_of(Modality.PHOTO)) == 52
    stamp = paths[0].stat().st_mtime_ns
    embed(run, parts=["test"])
    assert paths[0].stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="--part tset: one of train"):
        embed(run, parts=["tset"])


def test_empty_and_wholly_unreadable_folders(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures below"):
        follow(run, tmp_path / "empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        follow(run, tmp_path / "empty")
    with pytest.raises(DataError, match="not a folder"):
        follow(run, tmp_path / "nothing")


def test_half_is_close_and_half_as_large(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos")
    full = follow(run, folder, out=tmp_path / "f.h5")
    half = follow(run, folder, out=tmp_path / "h.h5", half=True)
    a, b = read_embeddings(full.path).embedding, read_embeddings(half.path).embedding
    assert b.dtype == np.float16
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_weights_that_training_replaces_meanwhile_are_not_taken_for_the_ones_that_were_found(
    tmp_path: Path, tiny_recipe: Path, run: Path
) -> None:
    embedder = Embedder(RunWeights(run), CPU, workers=0)
    other = make_run(tmp_path / "runs" / "other", tiny_recipe, seed=1)
    shutil.rmtree(run / "checkpoints" / "best")
    shutil.copytree(other / "checkpoints" / "best", run / "checkpoints" / "best")
    with pytest.raises(CheckpointError, match="training has replaced these weights"):
        _ = embedder.method


def test_a_file_that_another_process_replaces_is_not_taken_for_ones_own(
    tmp_path: Path, tiny_recipe: Path, run: Path, tiny_demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both write to one place, where models share a cache folder, or while training replaces a run's weights."""
    folder = photos(tmp_path / "photos")
    other = Embedder(RunWeights(make_run(tmp_path / "runs" / "other", tiny_recipe, seed=1)), CPU, workers=0)

    def follow_and_lose(*args: object, **options: object) -> FolderResult:
        result = follow_folder(*args, **options)  # type: ignore[arg-type]
        follow_folder(other, folder, result.path)
        return result

    def write_and_lose(path: Path, *args: object, **options: object) -> Path:
        write_embeddings(path, *args, **options)  # type: ignore[arg-type]
        theirs = write_rows(tmp_path / "theirs.h5", np.ones((3, 4), np.float32))
        return theirs.replace(path)

    monkeypatch.setattr(galleries, "follow_folder", follow_and_lose)
    with pytest.raises(DataError, match="replaced by another process"):
        open_gallery(folder, CPU, run=run, workers=0)
    monkeypatch.setattr(parts, "write_embeddings", write_and_lose)
    with pytest.raises(DataError, match="replaced by another process"):
        open_gallery(tiny_demo, CPU, run=run, workers=0)
