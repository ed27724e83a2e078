"""Embeddings files and the embed workflow: folders of anything, resuming, freshness, precision."""

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from retrieval_helpers import make_run

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.data.stage import Stage
from zssbir_cli.embedding import folder as folders
from zssbir_cli.embedding import parts as workflow
from zssbir_cli.embedding.parts import Embedder, Request
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.folder import PhotoFolder, read_photo, read_sketch
from zssbir_cli.prepare.svg import rasterise
from zssbir_cli.types import Modality

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


def write(path: Path, rows: np.ndarray, **options: object) -> Path:
    n = len(rows)
    info = EmbeddingInfo(checkpoint="ab", classes=("a", "é b"), size=32)
    return write_embeddings(
        path, rows, np.arange(n) % 2, np.arange(n) % 2, [f"p/{i}.jpg" for i in range(n)], info, **options
    )  # type: ignore[arg-type]


def photos(folder: Path, count: int = 5) -> Path:
    rng = np.random.default_rng(0)
    for i in range(count):
        path = folder / f"sub {i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_file_keeps_rows_labels_names_and_facts(tmp_path: Path, dtype: type) -> None:
    rows = np.random.default_rng(0).standard_normal((7, 5)).astype(dtype)
    found = read_embeddings(write(tmp_path / "a" / "e.h5", rows, dtype=dtype))
    np.testing.assert_array_equal(found.embedding, rows)
    assert isinstance(found.embedding, np.memmap)
    assert found.label.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert found.sources[6] == "p/6.jpg"
    assert found.info == EmbeddingInfo(checkpoint="ab", classes=("a", "é b"), size=32)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["e.h5"]


def test_rows_that_are_not_as_many_leave_no_file(tmp_path: Path) -> None:
    blocks = iter([np.ones((3, 2), np.float32)])
    with pytest.raises(DataError, match="3 embeddings for 4 images"):
        write_embeddings(
            tmp_path / "e.h5", blocks, np.zeros(4, int), np.ones(4, int), ["x"] * 4, EmbeddingInfo()
        )


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1) | st.just(1.0), flip=st.integers(0, 10**6))
def test_damaged_files_are_data_errors_or_read(
    tmp_path_factory: pytest.TempPathFactory, cut: float, flip: int
) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "e.h5", np.ones((50, 8), np.float32))
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
    with pytest.raises(DataError, match="not an embeddings file of zssbir"):
        read_embeddings(tmp_path / "x.h5")
    with pytest.raises(DataError, match="no such file"):
        read_embeddings(tmp_path / "y.h5")


def test_folder_of_photos_without_classes(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no")
    (folder / "notes.txt").write_text("hello")
    Image.new("CMYK", (9, 9)).save(folder / "cmyk.jpg")
    result = folders.run_folder(Request(run), folder, None, half=False, force=False)
    found = read_embeddings(result.path)
    assert found.sources == ("cmyk.jpg", *(f"sub 0/{i}.jpg" for i in (0, 2, 4)), "sub 1/1.jpg", "sub 1/3.jpg")
    assert [name for name, _ in result.skipped] == ["broken.jpg"]
    assert set(found.label) == {-1}
    np.testing.assert_allclose(np.linalg.norm(found.embedding, axis=1), 1, atol=1e-3)
    assert not list(result.path.parent.glob("*.rows*"))
    embedder = Embedder.open(run, CPU, workers=0)
    alone = embedder.embed(PhotoFolder(folder / "sub 1", 32), Modality.PHOTO)
    np.testing.assert_allclose(found.embedding[-2:], alone.numpy(), atol=1e-6)


def test_killed_folder_pass_continues_and_gives_the_same(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = photos(tmp_path / "photos", 9)
    monkeypatch.setattr(folders, "CHUNK", 4)
    whole = folders.run_folder(
        Request(run, workers=0), folder, tmp_path / "whole.h5", half=False, force=False
    )
    append, calls = Stage.append, []

    def dies(self: Stage, rows: np.ndarray, failed: list[int]) -> None:
        calls.append(len(rows))
        if len(calls) == 2:
            raise KeyboardInterrupt
        append(self, rows, failed)

    monkeypatch.setattr(Stage, "append", dies)
    target = tmp_path / "part.h5"
    with pytest.raises(KeyboardInterrupt):
        folders.run_folder(Request(run, workers=0), folder, target, half=False, force=False)
    assert not target.exists()
    result = folders.run_folder(Request(run, workers=0), folder, target, half=False, force=False)
    assert result.resumed == 4
    assert calls == [4, 4, 4, 1]
    np.testing.assert_array_equal(read_embeddings(target).embedding, read_embeddings(whole.path).embedding)


def test_stage_of_other_weights_or_half_written_is_not_continued(tmp_path: Path) -> None:
    stage = Stage(tmp_path / "e.h5", {"checkpoint": "a"})
    stage.append(np.ones((3, 2), np.float32), [1])
    assert (again := Stage(tmp_path / "e.h5", {"checkpoint": "a"})).done == 3
    assert again.failed == [1]
    assert Stage(tmp_path / "e.h5", {"checkpoint": "b"}).done == 0
    os.truncate(stage.rows_file, 10)
    assert Stage(tmp_path / "e.h5", {"checkpoint": "a"}).done == 0


def test_fresh_file_is_kept_and_changed_folder_is_not(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos")
    first = folders.run_folder(Request(run), folder, None, half=False, force=False)
    before = first.path.stat().st_mtime_ns
    folders.run_folder(Request(run), folder, None, half=False, force=False)
    assert first.path.stat().st_mtime_ns == before
    photos(folder / "more", 1)
    assert folders.run_folder(Request(run), folder, None, half=False, force=False).images == 6


def test_parts_of_the_runs_data_set(tmp_path: Path, run: Path) -> None:
    paths = workflow.run_parts(Request(run), None, [], force=False)
    assert [read_embeddings(p).info.part for p in paths] == ["test", "val"]
    found = read_embeddings(paths[0])
    assert len(found.rows_of(Modality.SKETCH)) == 39
    assert len(found.rows_of(Modality.PHOTO)) == 52
    stamp = paths[0].stat().st_mtime_ns
    workflow.run_parts(Request(run), None, ["test"], force=False)
    assert paths[0].stat().st_mtime_ns == stamp
    with pytest.raises(UsageError, match="--part tset: one of train"):
        workflow.run_parts(Request(run), None, ["tset"], force=False)


def test_empty_and_wholly_unreadable_folders(tmp_path: Path, run: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images below"):
        folders.run_folder(Request(run), tmp_path / "empty", None, half=False, force=False)
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        folders.run_folder(Request(run), tmp_path / "empty", None, half=False, force=False)
    with pytest.raises(DataError, match="not a folder"):
        folders.run_folder(Request(run), tmp_path / "nothing", None, half=False, force=False)


def test_half_is_close_and_half_as_large(tmp_path: Path, run: Path) -> None:
    folder = photos(tmp_path / "photos")
    full = folders.run_folder(Request(run), folder, tmp_path / "f.h5", half=False, force=False)
    half = folders.run_folder(Request(run), folder, tmp_path / "h.h5", half=True, force=False)
    a, b = read_embeddings(full.path).embedding, read_embeddings(half.path).embedding
    assert b.dtype == np.float16
    np.testing.assert_allclose(a, b, atol=1e-3)


def test_bf16_weights_stay_close_to_fp32(run: Path) -> None:
    images = torch.randint(
        0, 255, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    exact = Embedder.open(run, CPU, precision="fp32").method.embed(images, Modality.PHOTO)
    fast = Embedder.open(run, CPU, precision="bf16")
    with torch.inference_mode(), fast.precision.autocast():
        rounded = fast.method.embed(images, Modality.PHOTO).float()
    assert torch.cosine_similarity(exact, rounded).min() >= workflow.LEAST_COSINE
    assert fast.info().precision == fast.precision.name


def test_bf16_that_strays_falls_back_to_fp32(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "LEAST_COSINE", 1.1)
    assert Embedder.open(run, CPU, precision="bf16").precision.name == "fp32"


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><path d="M4 4L36 16" stroke="{}" stroke-width="2"/></svg>'


@pytest.mark.parametrize("color", ["black", "white", "#888"])
def test_svg_sketches_are_dark_on_white(tmp_path: Path, color: str) -> None:
    (tmp_path / "a.svg").write_text(SVG.format(color))
    image = read_sketch(tmp_path / "a.svg")
    assert image.shape == (1, 256, 512)
    assert image[0, 0, -1] == 255
    assert image[0, 128, 256] < 180


@pytest.mark.parametrize("text", ["", "<svg", "<svg xmlns='x'/>", "\x00\xff<svg >", "<html></html>"])
def test_broken_svg_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.svg").write_text(text)
    with pytest.raises(DataError, match=r"a\.svg"):
        read_sketch(tmp_path / "a.svg")


def test_svg_of_extreme_shape_is_small() -> None:
    thin = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 100000"><path d="M0 0L1 9" stroke="black"/></svg>'
    assert len(rasterise(thin.encode())) < 10_000


def test_transparent_sketch_and_unreadable_photo(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (5, 5, 15, 7))
    image.save(tmp_path / "t.png")
    sketch = read_sketch(tmp_path / "t.png")
    assert (int(sketch[0, 0, 0]), int(sketch[0, 6, 10])) == (255, 0)
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.jpg: not an image"):
        read_photo(tmp_path / "b.jpg")
