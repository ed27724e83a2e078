"""Protocols, intervals, comparison, user files and the eval workflow's warnings, without a trained model."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation import results
from zssbir_cli.evaluation.bootstrap import intervals, paired_difference
from zssbir_cli.evaluation.compare import compare_results
from zssbir_cli.evaluation.measure import Inputs, comparable, duplicates, inputs_of_file, measure
from zssbir_cli.evaluation.published import SIZES, published
from zssbir_cli.evaluation.report import write_report
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.retrieval.projection import confusion, pca


def file_inputs(path: Path, classes: Sequence[str] = ()) -> Inputs:
    return inputs_of_file(path, read_user_embeddings(path), classes)


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):
        i = intervals(rng.normal(0.3, 0.1, (80, 1)), None, seed)[0]
        covered += i.low <= 0.3 <= i.high
    assert 50 <= covered <= 60


def test_classes_that_differ_widen_the_interval_over_classes() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(10), 50)
    values = (groups / 10 + rng.normal(0, 0.02, 500))[:, None]
    over_queries, over_classes = intervals(values, None)[0], intervals(values, groups)[0]
    assert over_classes.high - over_classes.low > 3 * (over_queries.high - over_queries.low)


def test_paired_difference_finds_a_small_steady_gain_and_no_gain() -> None:
    rng = np.random.default_rng(0)
    base, groups = rng.uniform(0, 1, 400), np.arange(400) % 8
    gain = paired_difference(base, base + 0.01 + rng.normal(0, 0.02, 400), groups)
    assert gain.p < 0.001
    assert gain.over_queries.low > 0
    none = paired_difference(base, base + rng.normal(0, 0.02, 400), groups)
    assert none.p > 0.01
    same = paired_difference(base, base, groups)
    assert (same.mean, same.better, same.worse, same.p) == (0, 0, 0, 1)


def write_npz(path: Path, seed: int = 0, shift: float = 0.0, **change: np.ndarray) -> Path:
    rng = np.random.default_rng(seed)
    centres = 2 * np.random.default_rng(1).standard_normal((4, 8))
    lq, lg = np.repeat(np.arange(4), 6), np.repeat(np.arange(4), 9)
    arrays = {
        "query": centres[lq] + rng.standard_normal((24, 8)) * (1.5 - shift),
        "gallery": centres[lg] + rng.standard_normal((36, 8)),
        "query_labels": np.array(["cup", "swan", "harp", "tea pot"])[lq],
        "gallery_labels": np.array(["cup", "swan", "harp", "tea pot"])[lg],
    }
    np.savez(path, **(arrays | change))
    return path


def test_npz_h5_and_csv_of_another_model_give_the_same_result(tmp_path: Path) -> None:
    import csv

    import h5py

    npz = write_npz(tmp_path / "a.npz")
    arrays = dict(np.load(npz))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, value in arrays.items():
            file[name] = value.astype("S") if value.dtype.kind == "U" else value
    with (tmp_path / "a.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["set", "label", *(f"d{i}" for i in range(8))])
        for kind in ("query", "gallery"):
            for label, row in zip(arrays[f"{kind}_labels"], arrays[kind], strict=True):
                out.writerow([kind, label, *map(repr, row.astype(np.float32).tolist())])
    found = [read_user_embeddings(tmp_path / f"a.{s}") for s in ("npz", "h5", "csv")]
    for pair in found:
        assert pair.classes == ("cup", "harp", "swan", "tea pot")
        np.testing.assert_allclose(pair.query, found[0].query, atol=1e-6)
        np.testing.assert_array_equal(pair.gallery_labels, found[0].gallery_labels)
    values = [evaluate(p.query, p.gallery, p.query_labels, p.gallery_labels).get("mAP@all") for p in found]
    assert values[0] == pytest.approx(values[1]) == pytest.approx(values[2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": np.zeros((24, 8, 2))}, r"query must be numbers \[N, D\]"),
        ({"query_labels": np.zeros(24)}, "labels must be integers or names"),
        ({"gallery_labels": np.zeros((36, 2), int)}, "one-dimensional"),
        (
            {"query_labels": np.array(["cup"] * 24, object)},
            r"query_labels .*np\.array\(query_labels, dtype=str\)",
        ),
        ({"query_labels": np.zeros(23, int)}, "query_labels must be .* each of 24 rows"),
        ({"gallery_sources": np.array(["a"])}, "gallery_sources must be .* each of 36 rows"),
        ({"query": np.ones((24, 7))}, "query has 7 dimensions and gallery 8"),
        ({"query": np.eye(24, 8)}, "16 of 24 rows of query are zero"),
        ({"gallery": np.full((36, 8), np.inf)}, "36 of 36 rows of gallery are .*not finite"),
        ({"query_labels": np.array(["CUP"] * 24)}, "several ways: 'CUP' and 'cup'"),
        ({"gallery_labels": np.array(["cup", "Cup", "harp"] * 12)}, "several ways: 'Cup' and 'cup'"),
        (
            {"query_labels": np.array(["caf\u00e9", "cafe\u0301", "cup"] * 8)},
            r"'cafe\\u0301' and 'caf\\xe9'",
        ),
    ],
)
def test_user_files_that_do_not_fit_are_named(tmp_path: Path, change: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_user_embeddings(write_npz(tmp_path / "a.npz", **change))


@cases(30)
@given(suffix=st.sampled_from(["npz", "h5", "csv"]), content=st.binary(max_size=300))
def test_hostile_user_files_are_data_errors(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("hostile") / f"a.{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        read_user_embeddings(path)


@pytest.mark.parametrize("none", [-1, "-1"])
def test_images_without_a_label_are_said_and_not_counted(tmp_path: Path, none: int | str) -> None:
    arrays = dict(np.load(write_npz(tmp_path / "a.npz")))
    for name in ("query_labels", "gallery_labels"):
        number = {x: i if none == -1 else x for i, x in enumerate(sorted(set(arrays[name].tolist())))}
        labels = [none if i % 5 == 0 else number[x] for i, x in enumerate(arrays[name].tolist())]
        arrays[name] = np.array(labels)
    np.savez(tmp_path / "b.npz", **arrays)
    inputs = file_inputs(tmp_path / "b.npz")
    assert len(inputs.classes) == 4
    assert (len(inputs.query.labels), len(inputs.gallery.labels)) == (24 - 5, 36)
    assert inputs.notes == (
        "5 queries without a label (-1): not counted",
        "8 photos without a label (-1): in the gallery, relevant to no query",
    )
    assert measure(inputs, k=(5,), device="cpu").metrics.relevant.max() <= 8
    np.savez(tmp_path / "c.npz", **(arrays | {"query_labels": np.full(24, none)}))
    with pytest.raises(DataError, match=r"c\.npz: no query has a label"):
        file_inputs(tmp_path / "c.npz")


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, query=np.array([{}], object), gallery=0, query_labels=0, gallery_labels=0)
    with pytest.raises(DataError, match=r"a\.npz"):
        read_user_embeddings(path)


def test_minus_one_is_no_label_in_every_format(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", query=np.ones((2, 2)), gallery=np.ones((3, 2)), query_labels=["a", "-1"],
             gallery_labels=["", "a", "-1"])  # fmt: skip
    (tmp_path / "a.csv").write_text(
        "set,label,x,y\nquery,a,1,1\nquery,-1,1,1\ngallery,,1,1\ngallery,a,1,1\ngallery,-1,1,1\n"
    )
    for name in ("a.npz", "a.csv"):
        found = read_user_embeddings(tmp_path / name)
        assert found.classes == ("a",)
        assert found.query_labels.tolist() == [0, -1]
        assert found.gallery_labels.tolist() == [-1, 0, -1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_csv_files_of_any_usual_encoding_are_read(tmp_path: Path, encoding: str) -> None:
    text = "set,label,x,y\nquery,caf\u00e9,1,1\ngallery,caf\u00e9,1,1\ngallery,nan,1,1\n"
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    assert read_user_embeddings(tmp_path / "a.csv").classes == ("caf\u00e9", "nan")
    notes = file_inputs(tmp_path / "a.csv").notes
    assert any("Windows-1252" in note for note in notes) == (encoding == "cp1252")
    assert any(note.startswith("'nan': taken for a class") for note in notes)


def test_missing_arrays_and_lines_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", query=np.ones((2, 2)))
    with pytest.raises(
        DataError,
        match=r"needs the arrays query, gallery, query_labels, gallery_labels; found are only query$",
    ):
        read_user_embeddings(tmp_path / "a.npz")
    (tmp_path / "a.csv").write_text("set,label,x\nquery,a,1\ngallery,a,no\n")
    with pytest.raises(DataError, match=r"a\.csv:3:.*'no'"):
        read_user_embeddings(tmp_path / "a.csv")
    with pytest.raises(UsageError, match=r"expected a \.npz"):
        read_user_embeddings(tmp_path / "a.txt")


def test_duplicates_are_counted_and_reported(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((36, 8)).astype(np.float32)
    rows[5] = rows[20] = rows[3]
    assert duplicates(rows) == 2
    found = measure(file_inputs(write_npz(tmp_path / "a.npz", gallery=rows)), device="cpu")
    assert any("2 of 36 photos of the gallery are exact copies" in n for n in found.inputs.notes)


def test_result_says_convention_sizes_and_rule_and_is_whole(tmp_path: Path) -> None:
    found = measure(file_inputs(write_npz(tmp_path / "a.npz")), k=[5], device="cpu")
    results.write(found, tmp_path / "out" / "r.json")
    saved = json.loads((tmp_path / "out" / "r.json").read_text())
    assert (saved["queries"], saved["gallery"], saved["classes"]) == (24, 36, 4)
    assert {(m["name"], m["convention"]) for m in saved["measures"]} == {
        *((f"mAP@{k}", c) for k in ("all", 5) for c in ("voc", "plain", "hits", "trec")),
        *((n, "") for n in ("P@5", "P@min(5,R)", "recall@5", "R-precision")),
    }
    for m in saved["measures"]:
        assert m["ci95_queries"][0] <= m["value"] <= m["ci95_queries"][1]
    assert [row["class"] for row in saved["per_class"]] == ["cup", "harp", "swan", "tea pot"]
    assert saved["published"] == []
    text = results.markdown(found)
    assert "| mAP@5 | hits |" in text
    assert "24 queries of 4 classes against a gallery of 36 photos (9 relevant to each)" in text
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["r.json", "r.queries.npz"]


def test_published_numbers_name_their_paper_and_stand_only_beside_what_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = published("sketchy-21", "zs", 12_694, 12_553)
    assert [(p.method, p.convention, p.value) for p in found if p.measure == "mAP@200"] == [
        ("SAKE", "voc", 49.7),
        ("ZSE-SBIR", "voc", 50.4),
        ("CLIP-AT", "hits", 72.3),
    ]
    assert all(re.fullmatch(r"arXiv:\d{4}\.\d{5}", p.source) and p.source in p.title for p in found)
    assert not published("sketchy-21", "zs", 12_694, 12_552)
    assert not published("sketchy-21", "gzs-ocean", 12_694, 12_553)
    here = measure(file_inputs(write_npz(tmp_path / "a.npz")), k=[5], device="cpu")
    about = replace(here.inputs.about, split="sketchy-21", protocol="zs", run="runs/one")
    monkeypatch.setitem(SIZES, "sketchy-21", (here.metrics.queries, here.metrics.gallery))
    text = results.markdown(replace(here, inputs=replace(here.inputs, about=about)))
    assert "| mAP@200, SAKE 2019 (arXiv:1904.03208), CSE-ResNet50 (published) | voc | 49.7 |" in text
    for kind, stands in (("near copy", True), ("image", False)):
        leaky = replace(about, leaks=(f"{kind} photo/a.jpg: train, and test as photo/b.jpg",))
        assert bool(comparable(replace(here, inputs=replace(here.inputs, about=leaky)))) is stands


def test_compare_pairs_by_query_and_refuses_other_queries(tmp_path: Path) -> None:
    for name, shift in (("a", 0.0), ("b", 1.2)):
        found = measure(file_inputs(write_npz(tmp_path / f"{name}.npz", shift=shift)), k=[5], device="cpu")
        results.write(found, tmp_path / f"{name}.json")
    compared = compare_results(tmp_path / "a.json", tmp_path / "b.json")
    name, a, b, difference = compared.rows[0]
    assert name == "mAP@all voc"
    assert b - a == pytest.approx(difference.mean)
    assert difference.mean > 0
    assert compare_results(tmp_path / "a.json", tmp_path / "a.json").rows[0][3].p == 1
    about = replace(found.inputs.about, precision="bf16", ties="trec")
    results.write(replace(found, inputs=replace(found.inputs, about=about)), tmp_path / "d.json")
    said = compare_results(tmp_path / "b.json", tmp_path / "d.json").notes
    assert said == ("precision differs: None and bf16", "ties differs: None and trec")
    about = replace(about, extra="more")
    results.write(replace(found, inputs=replace(found.inputs, about=about)), tmp_path / "d.json")
    with pytest.raises(DataError, match="cannot be compared: extra differs: None and more"):
        compare_results(tmp_path / "b.json", tmp_path / "d.json")
    other = write_npz(tmp_path / "c.npz", query_labels=np.array(["cup"] * 24))
    results.write(measure(file_inputs(other), k=[5], device="cpu"), tmp_path / "c.json")
    with pytest.raises(DataError, match="do not have the same queries"):
        compare_results(tmp_path / "a.json", tmp_path / "c.json")
    with pytest.raises(DataError, match="no such file"):
        compare_results(tmp_path / "a.json", tmp_path / "nothing.json")


def test_compare_tells_other_photos_classes_and_weights(tmp_path: Path) -> None:
    """Results of equal size whose photos, classes or weights are not the same."""
    labels = np.repeat(["swan", "cup"], 12)
    plain = write_npz(tmp_path / "a.npz", query_labels=labels)
    renamed = write_npz(tmp_path / "b.npz", query_labels=labels, gallery_sources=np.arange(36).astype(str))
    other = {"query_labels": np.char.replace(labels, "swan", "swum")}
    given = np.load(plain)["gallery_labels"]
    other["gallery_labels"] = np.char.replace(given, "swan", "swum")
    (tmp_path / "run" / "eval").mkdir(parents=True)
    for name, file in (("a", plain), ("b", renamed), ("c", write_npz(tmp_path / "c.npz", **other))):
        found = measure(file_inputs(file), k=[5], device="cpu")
        about = replace(found.inputs.about, which="best", checkpoint="aa")
        results.write(
            replace(found, inputs=replace(found.inputs, about=about)), tmp_path / "run/eval" / f"{name}.json"
        )
    a, b, c = (tmp_path / "run" / "eval" / f"{name}.json" for name in "abc")
    assert compare_results(a, a).notes == ()
    assert compare_results(a, b).notes == (
        "the photos of the galleries are not the same (their classes, names or content)",
    )
    with pytest.raises(DataError, match="are of other classes"):
        compare_results(a, c)
    best = tmp_path / "run" / "checkpoints" / "best"
    best.mkdir(parents=True)
    (best / "meta.json").write_text('{"sha256": {"model.safetensors": "bb"}}')
    assert "training has replaced the weights of this result since" in compare_results(a, a).notes[0]


def test_subset_of_a_file_and_unknown_class(tmp_path: Path) -> None:
    inputs = file_inputs(write_npz(tmp_path / "a.npz"), ["Tea_Pot", "cup"])
    assert (len(inputs.query.labels), len(inputs.gallery.labels)) == (12, 18)
    assert file_inputs(tmp_path / "a.npz", ["Tea_Pot, cup,"]).about.chosen == ("tea pot", "cup")
    with pytest.raises(UsageError, match=r"--classes spoon: no such class"):
        file_inputs(tmp_path / "a.npz", ["cup", "spoon"])


def test_report_is_one_self_contained_page_with_escaped_names(tmp_path: Path) -> None:
    labels = np.array(["<b>cup</b>", "swan", "harp", "tea pot"])
    arrays = {"query_labels": np.repeat(labels, 6), "gallery_labels": np.repeat(labels, 9)}
    found = measure(file_inputs(write_npz(tmp_path / "a.npz", **arrays)), k=[5], device="cpu")
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "classes.png").write_bytes(b"a figure of version 0.1, of other numbers")
    page = write_report(found, tmp_path / "r").read_text()
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == [
        "classes.svg", "confusion.svg", "map.svg", "precision_recall.svg", "report.html", "report.md",
    ]  # fmt: skip
    assert "<b>cup" not in page
    assert "<script" not in page
    assert 'src="http' not in page
    assert page.count("<svg") == 4


def test_confusion_rows_are_shares() -> None:
    shares = confusion(np.array([[0, 0], [1, 0], [2, 2]]), np.array([0, 1, 1]), 3)
    np.testing.assert_allclose(shares, [[1, 0, 0], [0.25, 0.25, 0.5], [0, 0, 0]])


def test_the_map_shows_the_plane_of_largest_variance() -> None:
    rng = np.random.default_rng(0)
    plane = rng.standard_normal((60, 2)) * (5, 2)
    rotation = np.linalg.qr(rng.standard_normal((10, 10)))[0]
    points, share = pca(np.hstack([plane, 0.1 * rng.standard_normal((60, 8))]) @ rotation + 7)
    assert 0.99 < share < 1
    centred = plane - plane.mean(axis=0)
    assert (np.abs(np.corrcoef(points.T, centred.T)[:2, 2:]).max(axis=1) > 0.95).all()
    np.testing.assert_allclose(points.std(axis=0), centred.std(axis=0), rtol=0.05)
