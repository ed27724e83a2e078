"""`zssbir search` with galleries of every kind."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare_helpers import CLASSES, make_folder
from retrieval_helpers import make_run
from search_helpers import draw, six_photos

from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.pictures import jpeg_of_gallery
from zssbir_cli.web.opened import Opened
from zssbir_cli.workflows import search as workflow
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.load import load
from zssbir_cli.workflows.prepare import prepare


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return six_photos(tmp_path / "photos")


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


def test_photos_of_one_name_are_told_apart_and_pages_name_no_place_of_this_machine(
    tmp_path: Path, run: Path
) -> None:
    places = [tmp_path / "photos" / p / "cat.jpg" for p in ("one", "two", f"{'deep ' * 12}/in/here", "")]
    for i, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(place)
    (tmp_path / "q" / "b").mkdir(parents=True)
    draw(tmp_path / "q" / "b" / "s.png")
    queries = [draw(tmp_path / "q" / "s.png"), tmp_path / "q" / "x" / ".." / "b" / "s.png"]
    (tmp_path / "q" / "x").mkdir()
    result = workflow.search_sketches(queries, tmp_path / "photos", run=run, k=4)
    workflow.write_result(result, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    shown = re.findall(r'class="name" title="(.*?)">(.*?)</div>', page)
    assert {(f"{p}/cat.jpg", f"{p}/") for p in ("one", "two")} < set(shown)
    long = [text for title, text in shown if title.startswith("deep") and text != "cat.jpg"]
    assert long[0].endswith("/in/here/")
    assert "…" in long[0]
    assert re.findall("<h2>(.*?)</h2>", page) == ["s.png", "b/s.png"]
    assert "4 photos of photos;" in page
    assert str(tmp_path) not in page
    assert re.findall('href="(.*?)"', page)[0].startswith("photos/")
    workflow.write_result(result, tmp_path / "r.png")
    flat = replace(result.opened, stored=replace(result.gallery, sources=tuple(f"{i}.jpg" for i in range(4))))
    workflow.write_result(workflow.search_gallery(flat, queries, k=4), tmp_path / "flat.png")
    heights = [Image.open(tmp_path / name).height for name in ("r.png", "flat.png")]
    assert heights[0] > heights[1]  # a line for the folders


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
    assert "lazy" not in (tmp_path / "r.html").read_text()  # a printer gets only what is loaded


def test_a_prepared_set_that_was_moved_shows_its_photos(tmp_path: Path, run: Path, tiny_demo: Path) -> None:
    """Also when the file of its embeddings, which knows the old place, is renewed while it is open."""
    place = Path(shutil.copytree(tiny_demo, tmp_path / "before"))
    embed_before = workflow.search_sketches([draw(tmp_path / "s.png")], place, run=run, k=4)
    moved = place.rename(tmp_path / "after")
    result = workflow.search_sketches([tmp_path / "s.png"], moved, run=run, k=4)
    assert result.gallery.path == embed_before.gallery.path
    workflow.write_result(result, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg") == 5
    assert result.gallery.path
    renewed = Opened.first(result.opened).renewed(read_embeddings(result.gallery.path))
    assert jpeg_of_gallery(renewed.gallery.stored, renewed.gallery.rows.start, 64)


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


def large_photo(path: Path) -> Path:
    """A JPEG whose pixels the network sees differently when it is decoded at a part of its size."""
    rng = np.random.default_rng(4)
    Image.fromarray(rng.integers(0, 256, (1600, 1280, 3), dtype=np.uint8)).save(path, quality=40)
    return path


def test_a_large_photo_is_decoded_in_the_same_way_as_query_and_in_the_gallery(
    tmp_path: Path, run: Path, folder: Path
) -> None:
    large = large_photo(folder / "large.jpg")
    query = tmp_path / "query.jpg"
    query.write_bytes(large.read_bytes())
    result = workflow.search_sketches([], folder, run=run, k=1, like=[query])
    hit = result.found[0].hits[0]
    assert hit.source == "large.jpg"
    assert hit.score == pytest.approx(1, abs=1e-6)
    retriever = load(run, device="cpu", workers=0)
    row = result.gallery.embedding[list(result.gallery.sources).index("large.jpg")]
    (vector,) = retriever.embed([query])
    assert vector @ row == pytest.approx(1, abs=1e-6)
    file = embed(run, photos=folder, out=tmp_path / "g.h5").files[0]
    assert workflow.search_sketches([], file, k=1, like=[query]).found[0].hits[0].score == pytest.approx(1)


def test_a_large_photo_of_a_prepared_set_is_like_itself(tmp_path: Path, run: Path) -> None:
    """Stored images are decoded whole, and so is the query."""
    pictures = make_folder(tmp_path / "pics")
    large = large_photo(pictures / "photo" / CLASSES[0] / "large.jpg")
    prepare(pictures, out=tmp_path / "data", unseen="all")
    result = workflow.search_sketches([], tmp_path / "data", run=run, k=1, like=[large])
    assert result.found[0].hits[0].score == pytest.approx(1, abs=1e-6)


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


def test_what_is_no_picture_is_said(tmp_path: Path, run: Path, folder: Path) -> None:
    """Of the gallery's folder, every time, and of a folder of drawings."""
    for name in ("notes.txt", "clip.mp4"):
        (folder / name).write_text("words")
    sketches = tmp_path / "sketches"
    sketches.mkdir()
    draw(sketches / "a.png")
    (sketches / "b.pdf").write_text("%PDF-1.4")
    for _ in range(2):
        result = workflow.search_sketches([sketches], folder, run=run, device="cpu")
        assert "passed over 1 .mp4, 1 .txt, which are not pictures" in str(result.folder)
        assert result.left_out == ((sketches, "passed over 1 .pdf, which are not pictures"),)
