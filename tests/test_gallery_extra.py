"""Evaluation-only sets, extra photos in the gallery, and search results as CSV."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from retrieval_helpers import make_run

import zssbir_cli as zssbir
from zssbir_cli.data.embeddings import read_embeddings, write_embeddings
from zssbir_cli.data.manifest import read_manifest
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.compare import compare_results
from zssbir_cli.types import Role
from zssbir_cli.workflows.search import write_result
from zssbir_cli.workflows.search_pages import changed_photos


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


def copies(pictures: Path, classes: list[str], folder: Path) -> int:
    """The photos of some classes in one folder without class names; returns how many."""
    folder.mkdir(parents=True)
    photos = [p for name in classes for p in sorted((pictures / "photo" / name).iterdir())]
    for i, photo in enumerate(photos):
        shutil.copy(photo, folder / f"{i}.jpg")
    return len(photos)


def test_extra_photos_are_relevant_to_no_query(run: Path, tiny_demo: Path) -> None:
    pictures = tiny_demo.with_name("demo-pictures")
    seen = [c.name for c in read_manifest(tiny_demo).classes_of(Role.SEEN)][:5]
    count = copies(pictures, seen, Path("more"))
    plain = zssbir.evaluate(run, k=[5], device="cpu", report=False)
    extra = zssbir.evaluate(run, k=[5], device="cpu", gallery_extra="more")
    assert extra.as_json()["gallery"] == plain.as_json()["gallery"] + count
    assert (extra.as_json()["extra"], extra.as_json()["extra_photos"]) == ("more", count)
    assert extra.value() < plain.value()
    assert extra.value("P@5") < plain.value("P@5")
    assert any("20 photos of more" in note for note in extra.as_json()["notes"])
    assert extra.result != plain.result
    assert extra.report is not None
    page = (extra.report / "report.html").read_text()
    assert "20 extra photos in the gallery" in page
    # by hand: the first five photos of a query among all
    side, gallery = extra.evaluation.inputs.query, extra.evaluation.inputs.gallery
    order = np.argsort(-(side.rows @ gallery.rows.T), axis=1, kind="stable")[:, :5]
    by_hand = (gallery.labels[order] == side.labels[:, None]).mean()
    assert extra.value("P@5") == pytest.approx(by_hand, abs=1e-6)
    with pytest.raises(DataError, match="gallery differs"):
        compare_results(plain.result, extra.result)  # type: ignore[arg-type]


def test_photos_of_queried_classes_are_left_out(run: Path, tiny_demo: Path) -> None:
    pictures = tiny_demo.with_name("demo-pictures")
    manifest = read_manifest(tiny_demo)
    unseen, seen = (manifest.classes_of(role)[0].name for role in (Role.UNSEEN, Role.SEEN))
    for name in (unseen, seen):
        copies(pictures, [name], Path("more") / name)
    notes = zssbir.evaluate(run, k=[5], device="cpu", gallery_extra="more", report=False).as_json()["notes"]
    assert any(n.startswith("4 photos of more added to the gallery") for n in notes)
    assert any(n.startswith("4 photos of more left out") and unseen in n for n in notes)
    with pytest.raises(DataError, match="every photo is of a queried class"):
        zssbir.evaluate(run, device="cpu", gallery_extra=tiny_demo)
    with pytest.raises(UsageError, match="--gallery-extra nowhere"):
        zssbir.evaluate(run, device="cpu", gallery_extra="nowhere")


def test_a_class_is_known_by_any_folder_around_its_photos(run: Path, tiny_demo: Path) -> None:
    """A level further down, in another spelling, and where the folder itself is given."""
    pictures = tiny_demo.with_name("demo-pictures")
    manifest = read_manifest(tiny_demo)
    unseen, seen = (manifest.classes_of(role)[0].name for role in (Role.UNSEEN, Role.SEEN))
    copies(pictures, [unseen], Path("more") / unseen.upper() / "large")
    copies(pictures, [seen], Path("more") / "others")
    notes = zssbir.evaluate(run, k=[5], device="cpu", gallery_extra="more", report=False).as_json()["notes"]
    assert any(n.startswith("4 photos of more left out") and unseen in n for n in notes)
    with pytest.raises(DataError, match="every photo is of a queried class"):
        zssbir.evaluate(run, device="cpu", gallery_extra=f"more/{unseen.upper()}")


def test_copies_of_the_gallerys_photos_are_no_distractors(run: Path, tiny_demo: Path) -> None:
    """Without a folder of their class they would be counted as wrong answers."""
    pictures = tiny_demo.with_name("demo-pictures")
    manifest = read_manifest(tiny_demo)
    unseen, seen = (manifest.classes_of(role)[0].name for role in (Role.UNSEEN, Role.SEEN))
    copies(pictures, [unseen], Path("copies"))
    copies(pictures, [unseen, seen], Path("both"))
    found = zssbir.evaluate(run, k=[5], device="cpu", gallery_extra="both", report=False).as_json()
    assert found["extra_photos"] == 4
    assert any(
        n.startswith("4 photos of both left out: copies of photos that the gallery") for n in found["notes"]
    )
    with pytest.raises(DataError, match="the gallery holds every photo already"):
        zssbir.evaluate(run, device="cpu", gallery_extra="copies")


def test_embeddings_of_other_weights_are_refused(run: Path, tiny_recipe: Path, tiny_demo: Path) -> None:
    copies(tiny_demo.with_name("demo-pictures"), ["cup"], Path("more"))
    other = make_run(run.parent / "two", tiny_recipe, seed=5)
    zssbir.embed(other, photos="more", out="more.h5", device="cpu")
    with pytest.raises(DataError, match="weights"):
        zssbir.evaluate(run, device="cpu", gallery_extra="more.h5")
    zssbir.embed(run, photos="more", out="own.h5", device="cpu")
    found = zssbir.evaluate(run, device="cpu", gallery_extra="own.h5", report=False, k=[5])
    assert found.as_json()["extra_photos"] == 4


def test_embeddings_that_say_little_or_nothing_sensible(run: Path, tiny_demo: Path) -> None:
    """Files of another program that keeps to our format: each ends in a result or in one line that names it."""
    copies(tiny_demo.with_name("demo-pictures"), ["cup"], Path("more"))
    place = zssbir.embed(run, photos="more", out="more.h5", device="cpu").files[0]
    own = read_embeddings(place)
    rows, label, kind = np.array(own.embedding), np.array(own.label), np.array(own.modality)

    def extra(
        rows: np.ndarray = rows, label: np.ndarray = label, kind: np.ndarray = kind, **info: str
    ) -> int:
        write_embeddings(place, rows, label, kind, own.sources, replace(own.info, **info))
        found = zssbir.evaluate(run, device="cpu", gallery_extra=place, report=False, baselines=False, k=[5])
        return int(found.as_json()["extra_photos"])

    assert extra() == extra(label=label + 8) == 4  # of classes that the file does not name
    with pytest.raises(DataError, match=r"more\.h5: holds no photos"):
        extra(kind=np.zeros_like(kind))
    with pytest.raises(DataError, match=r"--gallery-extra more\.h5: 3 dimensions, not the 96 of"):
        extra(rows=rows[:, :3])
    for made in ("no JSON", "[" * 100_000, "7", "{}"):
        with pytest.raises(DataError, match=r"more\.h5: made with a different "):
            extra(made=made)
    made = json.dumps({**json.loads(own.info.made), "versions": None})
    assert extra(made=made) == 4


def test_photos_whose_names_no_file_can_have_are_gone(run: Path, tiny_demo: Path) -> None:
    copies(tiny_demo.with_name("demo-pictures"), ["cup"], Path("more"))
    place = zssbir.embed(run, photos="more", out="more.h5", device="cpu").files[0]
    own = read_embeddings(place)
    for name in ("x" * 5000, "a/b"):
        names = [name, *own.sources[1:]]
        write_embeddings(
            place, np.array(own.embedding), own.label, own.modality, names, own.info, stamps=own.stamps
        )
        found = zssbir.search("more", place, device="cpu")
        assert changed_photos(found) == [name]
        write_result(found, Path("page.html"))


def test_a_set_of_unseen_classes_is_for_evaluation_only(
    run: Path, tiny_demo: Path, tiny_recipe: Path
) -> None:
    prepared = zssbir.prepare(tiny_demo.with_name("demo-pictures"), unseen="all", out="all")
    assert {c.role for c in prepared.manifest.classes} == {Role.UNSEEN}
    with pytest.raises(DataError, match="for evaluation only"):
        zssbir.train(str(tiny_recipe), data="all", device="cpu")
    assert [p.name for p in Path("runs").iterdir()] == ["one"]
    found = zssbir.evaluate(run, data="all", device="cpu", report=False, k=[5]).as_json()
    own = read_manifest(tiny_demo)
    assert {r["class"] for r in found["per_class"]} == {c.name for c in own.classes_of(Role.UNSEEN)}
    assert len(found["excluded"]) == 39


def test_an_evaluation_set_keeps_classes_of_one_side(run: Path, tiny_demo: Path) -> None:
    """Photos without sketches join the gallery; sketches without photos are queries that nothing answers."""
    pictures = Path("pictures")
    shutil.copytree(tiny_demo.with_name("demo-pictures"), pictures, ignore=lambda *_: ["mask"])
    unseen = [c.name for c in read_manifest(tiny_demo).classes_of(Role.UNSEEN)]
    for side in ("sketch", "photo"):
        for folder in (pictures / side).iterdir():
            if folder.name not in unseen:
                shutil.rmtree(folder)
    zssbir.prepare(pictures, unseen="all", out="whole")
    before = zssbir.evaluate(run, data="whole", device="cpu", k=[5], report=False)
    shutil.copytree(pictures / "photo" / unseen[0], pictures / "photo" / "lone photo")
    shutil.copytree(pictures / "sketch" / unseen[1], pictures / "sketch" / "lone sketch")
    both = zssbir.prepare(pictures, unseen="all", out="both", strict=True)
    assert {c.name for c in both.manifest.classes} == {*unseen, "lone photo", "lone sketch"}
    assert any("class 'lone sketch' has no photos" in w for w in both.manifest.warnings)
    assert any("class 'lone photo' has no sketches" in w for w in both.manifest.warnings)
    after = zssbir.evaluate(run, data="both", device="cpu", k=[5])
    found, plain = after.as_json(), before.as_json()
    assert found["gallery"] == plain["gallery"] + 4
    assert found["queries"] == plain["queries"] + 3
    scores = {r["class"]: (r["photos"], r["mAP@all"]) for r in found["per_class"]}
    assert set(scores) == {*unseen, "lone sketch"}
    assert scores["lone sketch"] == (0, None)
    assert after.value() < before.value()
    assert any("no relevant photo and are left out (classes lone sketch)" in n for n in found["notes"])
    # where something is learnt from, both sides are needed
    trained = zssbir.prepare(pictures, unseen="1", val_classes=0, out="trained")
    assert {c.name for c in trained.manifest.classes} == set(unseen)


def test_search_results_as_csv(run: Path, tiny_demo: Path) -> None:
    pictures = tiny_demo.with_name("demo-pictures")
    copies(pictures, ["cup", "fish"], Path("photos, and more"))
    sketch = next((pictures / "sketch" / "cup").iterdir())
    found = zssbir.search(sketch, "photos, and more", run=run, k=3, device="cpu")
    write_result(found, Path("r.csv"))
    with Path("r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(r["rank"], r["photo"]) for r in rows] == [(str(h.rank), h.source) for h in found.found[0].hits]
    assert rows[0]["kind"] == "sketch"
    assert float(rows[0]["cosine"]) == pytest.approx(found.found[0].hits[0].score, abs=1e-6)


def test_json_of_a_result_without_extra_photos_is_as_before(run: Path) -> None:
    saved = zssbir.evaluate(run, k=[5], device="cpu", report=False).result
    assert saved is not None
    assert "extra" not in json.loads(saved.read_text())
