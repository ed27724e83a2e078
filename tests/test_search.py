"""Search: exact against a plain sort, ties, memory maps, and the command with galleries of every kind."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from retrieval_helpers import make_run

from zssbir_cli.data.embeddings import read_embeddings, write_embeddings
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval import search as module
from zssbir_cli.retrieval.search import search
from zssbir_cli.workflows import search as workflow
from zssbir_cli.workflows.embed import embed


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    queries=st.integers(1, 5),
    rows=st.integers(1, 200),
    k=st.integers(1, 30),
    products=st.sampled_from([torch.float32, torch.bfloat16]),
    spread=st.sampled_from([1.0, 1e-3, 1e-5]),
)
def test_equal_to_a_plain_sort(
    seed: int, queries: int, rows: int, k: int, products: torch.dtype, spread: float
) -> None:
    rng = np.random.default_rng(seed)
    g = unit(rng, 1, 12) + spread * rng.standard_normal((rows, 12)).astype(
        np.float32
    )  # near ties, below bf16
    g = np.repeat(g / np.linalg.norm(g, axis=1, keepdims=True), 2, axis=0)[rng.permutation(2 * rows)]
    q = unit(rng, queries, 12)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_ROWS", 16)
        patch.setattr(module, "TILE_ROWS", 5)
        found = search(torch.from_numpy(q * 3), g, k, products=products)
    scores = (
        (q / np.linalg.norm(q.astype(np.float64), axis=1, keepdims=True)) @ g.T.astype(np.float64)
    ).astype(np.float32)
    exact = np.take_along_axis(scores, found.rows, 1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(k, 2 * rows)]
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, 1), atol=1e-7)
    np.testing.assert_allclose(found.scores, exact, atol=1e-7)
    for row, score in zip(found.rows, found.scores, strict=True):
        assert len(set(row.tolist())) == len(row)
        assert (np.diff(row)[np.diff(score) == 0] > 0).all()


def test_result_does_not_depend_on_the_scan() -> None:
    rng = np.random.default_rng(5)
    centre = unit(rng, 20, 64)[rng.integers(0, 20, 9000)]
    g = centre + 0.05 * rng.standard_normal(centre.shape).astype(np.float32)
    g = (g / np.linalg.norm(g, axis=1, keepdims=True)).astype(np.float16)
    q = torch.from_numpy(unit(rng, 6, 64))
    exact = search(q, g, 50)
    rough = search(q, g, 50, products=torch.bfloat16)
    np.testing.assert_array_equal(rough.rows, exact.rows)
    np.testing.assert_array_equal(rough.scores, exact.scores)
    for i in range(6):
        alone = search(q[i : i + 1], g, 50)
        np.testing.assert_array_equal(alone.rows[0], exact.rows[i])
        np.testing.assert_array_equal(alone.scores[0], exact.scores[i])
    scanned = (torch.from_numpy(g).bfloat16() @ q.T.bfloat16()).float().numpy()
    true = g.astype(np.float64) @ q.numpy().T.astype(np.float64)
    assert np.abs(scanned - true).max() < module._slack(64, torch.bfloat16, torch.float32)
    # the scan alone would be wrong, so the second look matters
    assert (exact.rows != np.argsort(-scanned, axis=0, kind="stable")[:50].T).any()


def test_the_worst_rounding_of_bfloat16_loses_no_photo() -> None:
    """Row and query whose every element bfloat16 rounds down by almost 2^-8: the best photo is scanned as 0.992."""
    width = 1016
    best = np.full(width, (1 + 2**-8 - 2**-16) / 32)
    best[-1] = 0
    best[-1] = np.sqrt(1 - best @ best)
    g = unit(np.random.default_rng(0), module.TILE_ROWS + 1, width)
    other = g[0] - (g[0] @ best) * best
    g[5] = 0.9987 * best + np.sqrt(1 - 0.9987**2) * other / np.linalg.norm(other)
    g[-1] = best
    found = search(torch.from_numpy(best)[None].repeat(2, 1), g, 1, products=torch.bfloat16)
    assert found.rows.tolist() == [[len(g) - 1]] * 2


def test_scores_too_close_for_bfloat16_are_scanned_again_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    g = unit(rng, 1, 32) + 1e-2 * unit(rng, 9000, 32)
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    q = torch.from_numpy(unit(rng, 4, 32))
    exact = search(q, g, 5)
    looked_at, score = [], module._Best._exact

    def count(self: module._Best, query: np.ndarray, row: np.ndarray) -> np.ndarray:
        looked_at.append(len(row))
        return score(self, query, row)

    monkeypatch.setattr(module._Best, "_exact", count)
    found = search(q, g, 5, products=torch.bfloat16)
    np.testing.assert_array_equal(found.rows, exact.rows)
    np.testing.assert_array_equal(found.scores, exact.scores)
    assert sum(looked_at) < 4 * 9000 / 20


def test_ties_stand_in_gallery_order_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    g = np.repeat(unit(rng, 4, 8), 30, axis=0)[rng.permutation(120)]
    q = torch.from_numpy(unit(rng, 2, 8))
    results = []
    for size in (7, 64, 1000):
        monkeypatch.setattr(module, "BLOCK_ROWS", size)
        found = search(q, g, 40)
        assert (np.diff(found.scores, axis=1) <= 0).all()
        for rows, scores in zip(found.rows, found.scores, strict=True):
            same = np.diff(scores) == 0
            assert (np.diff(rows)[same] > 0).all()
        results.append(found.rows)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_memory_map_of_either_precision(tmp_path: Path, dtype: str) -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng, 500, 16).astype(dtype)
    rows.tofile(tmp_path / "g.bin")
    mapped = np.memmap(tmp_path / "g.bin", dtype, "r", 0, (500, 16))
    q = torch.from_numpy(unit(rng, 3, 16))
    found = search(q, mapped, 10)
    exact = q.numpy() @ rows.astype(np.float32).T
    np.testing.assert_array_equal(found.rows, np.argsort(-exact, axis=1, kind="stable")[:, :10])
    assert search(q[:1], mapped, 10).rows[0].tolist() == found.rows[0].tolist()


def test_what_cannot_be_searched_is_refused() -> None:
    rng = np.random.default_rng(0)
    g = unit(rng, 20, 4)
    with pytest.raises(DataError, match="5 dimensions, the gallery 4"):
        search(torch.ones(1, 5), g, 3)
    with pytest.raises(DataError, match="query 1 has no direction"):
        search(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0]]), g, 3)
    with pytest.raises(UsageError, match="-k must be"):
        search(torch.ones(1, 4), g, 0)
    for wrong in (np.nan, np.inf, 0.0):
        for dtype in (np.float32, np.float16):
            spoilt = g.astype(dtype)
            spoilt[[7, 12]] = wrong
            with pytest.raises(DataError, match=r"NaN, infinity or zero rows \(row 7, 12\)"):
                search(torch.ones(2, 4), spoilt, 3)


@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_rows_stored_in_half_precision_are_ranked_by_cosine(products: torch.dtype) -> None:
    """Their lengths are off by up to 2^-11, more than neighbouring scores differ."""
    rng = np.random.default_rng(5)
    g, q = unit(rng, 5000, 64).astype(np.float16), torch.from_numpy(unit(rng, 20, 64))
    wide = g.astype(np.float64)
    cosines = wide @ q.numpy().astype(np.float64).T / np.linalg.norm(wide, axis=1)[:, None]
    unscaled = wide @ q.numpy().astype(np.float64).T
    wanted = np.argsort(-cosines, axis=0, kind="stable")[:20].T
    assert (wanted != np.argsort(-unscaled, axis=0, kind="stable")[:20].T).any()
    found = search(q, g, 20, products=products)
    np.testing.assert_array_equal(found.rows, wanted)
    np.testing.assert_allclose(found.scores, np.take_along_axis(cosines.T, wanted, 1), atol=1e-7)


def draw(path: Path, fill: int = 0) -> Path:
    image = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(image).ellipse((10, 15, 50, 45), outline=fill, width=3)
    image.save(path)
    return path


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(6):
        path = tmp_path / "photos" / f"{i}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_folder_is_embedded_once_and_reused(tmp_path: Path, run: Path, folder: Path) -> None:
    sketch = draw(tmp_path / "s.png")
    first = workflow.search_sketches([sketch], folder, run=run, k=4)
    assert first.gallery.path is not None
    stamp = first.gallery.path.stat().st_mtime_ns
    second = workflow.search_sketches([sketch], folder, run=run, k=4)
    assert second.gallery.path is not None
    assert second.gallery.path.stat().st_mtime_ns == stamp
    assert second.found == first.found
    assert [h.rank for h in first.found[0].hits] == [1, 2, 3, 4]


@pytest.mark.parametrize("suffix", [".json", ".html", ".png"])
def test_results_are_written(tmp_path: Path, run: Path, folder: Path, suffix: str) -> None:
    result = workflow.search_sketches(
        [draw(tmp_path / "s.png"), draw(tmp_path / "t.png")], folder, run=run, k=3
    )
    out = tmp_path / f"r{suffix}"
    workflow.write_result(result, out)
    if suffix == ".json":
        saved = json.loads(out.read_text())
        assert saved["exact"] is True
        assert [len(s["results"]) for s in saved["sketches"]] == [3, 3]
    elif suffix == ".html":
        assert out.read_text().count("data:image/jpeg") == 8
    else:
        assert 500 < Image.open(out).width < 700  # a drawing and three photos
    with pytest.raises(UsageError, match=r"expected \.html, \.png, \.json"):
        workflow.check_out(tmp_path / "r.gif")


def test_prepared_set_shows_its_unseen_photos_with_classes(
    tmp_path: Path, run: Path, tiny_demo: Path
) -> None:
    result = workflow.search_sketches([draw(tmp_path / "s.png")], tiny_demo, run=run, k=50)
    assert result.photos == 52
    hits = result.found[0].hits
    assert len(hits) == 50
    assert all(h.source.startswith(f"photo/{h.name}/") for h in hits)
    workflow.write_result(result, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg") == 51


def test_gallery_of_another_model_is_refused_and_says_why(
    tmp_path: Path, run: Path, folder: Path, tiny_recipe: Path
) -> None:
    other = make_run(tmp_path / "runs" / "two", tiny_recipe, seed=1)
    file = embed(run, photos=folder, out=tmp_path / "g.h5").files[0]
    sketch = draw(tmp_path / "s.png")
    assert workflow.search_sketches([sketch], file, k=2).found[0].hits
    with pytest.raises(DataError, match=r"g\.h5: made with the weights .* which .*two does not have"):
        workflow.search_sketches([sketch], file, run=other, k=2)


def test_blank_broken_missing_sketches_and_photos(tmp_path: Path, run: Path, folder: Path) -> None:
    Image.new("L", (30, 30), 255).save(tmp_path / "blank.png")
    (tmp_path / "bad.png").write_bytes(b"nope")
    for name, words in (
        ("blank.png", "blank"),
        ("bad.png", "bad.png: not an image"),
        ("no.png", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            workflow.search_sketches([tmp_path / name], folder, run=run)
    found = workflow.search_sketches([folder / "1.jpg"], folder, run=run, k=1).found[0]
    assert "looks like a photo" in found.note
    with pytest.raises(UsageError, match="no such file or folder"):
        workflow.search_sketches([draw(tmp_path / "s.png")], tmp_path / "nothing", run=run)


def test_a_photo_finds_more_like_itself_but_not_itself(tmp_path: Path, run: Path, folder: Path) -> None:
    (folder / "copy.jpg").write_bytes((folder / "3.jpg").read_bytes())
    result = workflow.search_sketches([], folder, run=run, k=3, like=[folder / "3.jpg"])
    assert [len(f.hits) for f in result.found] == [3]
    assert result.found[0].hits[0].source == "copy.jpg"
    assert result.found[0].hits[0].score == pytest.approx(1, abs=1e-3)
    assert "3.jpg" not in {h.source for h in result.found[0].hits}
    both = workflow.search_sketches([draw(tmp_path / "s.png")], folder, run=run, k=3, like=[folder / "3.jpg"])
    assert both.found[1] == result.found[0]
    assert len(both.found[0].hits) == 3
    workflow.write_result(both, tmp_path / "r.html")
    with pytest.raises(UsageError, match="nothing to search for"):
        workflow.search_sketches([], folder, run=run)
    (tmp_path / "bad.jpg").write_bytes(b"nope")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        workflow.search_sketches([], folder, run=run, like=[tmp_path / "bad.jpg"])


def test_nothing_above_the_least_score_is_said(tmp_path: Path, run: Path, folder: Path) -> None:
    sketch = draw(tmp_path / "s.png")
    scores = [h.score for h in workflow.search_sketches([sketch], folder, run=run).found[0].hits]
    least = (scores[1] + scores[2]) / 2
    some = workflow.search_sketches([sketch], folder, run=run, min_score=least).found[0]
    assert [h.score for h in some.hits] == scores[:2]
    assert some.note == ""
    none = workflow.search_sketches([sketch], folder, run=run, min_score=1).found[0]
    assert none.hits == ()
    assert none.note == f"nothing above 1 (the best photo has {scores[0]:.3f})"
    with pytest.raises(UsageError, match="--min-score 2"):
        workflow.search_sketches([sketch], folder, run=run, min_score=2)


@pytest.mark.parametrize("name", ["../secret.jpg", "ABSOLUTE"])
def test_names_of_a_gallery_do_not_lead_out_of_its_folder(
    tmp_path: Path, run: Path, folder: Path, name: str
) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes((folder / "0.jpg").read_bytes())
    own = read_embeddings(embed(run, photos=folder, out=tmp_path / "g.h5").files[0])
    sources = [name.replace("ABSOLUTE", str(secret)), *own.sources[1:]]
    write_embeddings(
        tmp_path / "g.h5",
        np.array(own.embedding),
        own.label,
        own.modality,
        sources,
        own.info,
        stamps=own.stamps,
    )
    result = workflow.search_sketches([draw(tmp_path / "s.png")], tmp_path / "g.h5", run=run, k=6)
    workflow.write_result(result, tmp_path / "out" / "r.html")
    page = (tmp_path / "out" / "r.html").read_text()
    assert len(re.findall(r'href="[^"]*photos/\d\.jpg"', page)) == 5
    assert not re.search(r'href="[^"]*secret', page)
    assert page.count("data:image/jpeg") == 6  # the drawing and five photos


def test_each_sketch_is_read_once_and_bad_ones_are_left_out(
    tmp_path: Path, run: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sketches = tmp_path / "sketches"
    sketches.mkdir()
    draw(sketches / "a.png")
    draw(sketches / "d.png")
    Image.new("L", (30, 30), 255).save(sketches / "b.png")
    (sketches / "c.png").write_bytes(b"nope")
    (sketches / "._a.png").write_bytes(b"\0\5\26\7")
    opened = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (opened.append(self.name), read(self))[1])
    result = workflow.search_sketches([sketches], folder, run=run, k=1)
    workflow.write_result(result, tmp_path / "o.html")
    assert [f.sketch.name for f in result.found] == ["a.png", "d.png"]
    assert [(p.name, why) for p, why in result.left_out] == [
        ("b.png", "blank: no ink found"),
        ("c.png", "not an image"),
    ]
    assert sorted(n for n in opened if (sketches / n).exists()) == ["a.png", "b.png", "c.png", "d.png"]
    assert workflow.result_json(result)["left_out"][0]["reason"] == "blank: no ink found"
    for name in ("a.png", "d.png"):
        (sketches / name).unlink()
    with pytest.raises(DataError, match=r"b.png: blank: no ink found; nothing is left .*1 more"):
        workflow.search_sketches([sketches], folder, run=run)
