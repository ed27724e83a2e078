"""Embeddings of other programs: what pandas and spreadsheets write is read right, or said; metrics as a naive loop has them."""

from pathlib import Path

import numpy as np
import pytest

from zssbir_cli.data.embeddings import EmbeddingInfo, write_embeddings
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.measure import in_both, inputs_of_file, measure
from zssbir_cli.workflows.eval import evaluate_file

ROWS = np.random.default_rng(0).standard_normal((12, 3)).astype(np.float32)


def write_csv(path: Path, head: str, labels: list[str], first: str = "") -> Path:
    lines = [head]
    for i, row in enumerate(ROWS):
        cells = [("query", "gallery")[i % 2], labels[i // 2 % len(labels)], *map(str, row)]
        lines.append(",".join([first.format(i)] * bool(first) + cells))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("head", "first", "odd"),
    [
        (",set,label,e0,e1,e2", "{}", "'(without a name)'"),
        (",set,label,0,1,2", "{}", "'(without a name)'"),
        ("id,set,label,e0,e1,e2", "{}", "'id'"),
        ("set,label,label,e1,e2", "", "'label'"),
    ],
)
def test_a_column_that_is_no_dimension_is_refused(tmp_path: Path, head: str, first: str, odd: str) -> None:
    path = write_csv(tmp_path / "a.csv", head, ["a", "b"], first)
    with pytest.raises(DataError) as caught:
        read_user_embeddings(path)
    assert (
        f"1 column beside the dimensions {head.split(',')[-2 if 'label,label' in head else -3]} ... "
        in str(caught.value)
    )
    assert odd in str(caught.value)


@pytest.mark.parametrize("head", ["set,label,e0,e1,e2", "set,label,0,1,2", "set,label,x,y,z"])
def test_dimensions_may_have_any_names_alike_or_not(tmp_path: Path, head: str) -> None:
    assert read_user_embeddings(write_csv(tmp_path / "a.csv", head, ["a", "b"])).query.shape == (6, 3)


@pytest.mark.parametrize("none", ["-1", "-1.0", "-1.", " ", ""])
def test_no_label_as_pandas_writes_it(tmp_path: Path, none: str) -> None:
    pair = read_user_embeddings(write_csv(tmp_path / "a.csv", "set,label,x,y,z", ["1.0", none, "2.0"]))
    assert pair.classes == ("1.0", "2.0")
    assert (pair.query_labels < 0).sum() == (pair.gallery_labels < 0).sum() == 2


def test_a_quote_that_is_not_closed_swallows_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.csv: damaged or not \.csv"):
        read_user_embeddings(write_csv(tmp_path / "a.csv", "set,label,x,y,z", ["b", '"a', "c"]))


def test_labels_of_two_kinds_are_shown_side_by_side(tmp_path: Path) -> None:
    labels = np.arange(12) % 2
    np.savez(
        tmp_path / "a.npz",
        query=ROWS,
        gallery=ROWS,
        query_labels=np.array(["cat", "dog"])[labels],
        gallery_labels=labels,
    )
    with pytest.raises(DataError, match=r"queries are of 'cat', 'dog', photos are of '0', '1'"):
        evaluate_file(tmp_path / "a.npz")
    np.save(tmp_path / "a.npy", ROWS)
    with pytest.raises(UsageError, match=r"np\.savez\('FILE\.npz', query=\.\.\., gallery="):
        evaluate_file(tmp_path / "a.npy")


def test_queries_that_stand_in_the_gallery_are_counted(tmp_path: Path) -> None:
    gallery = np.concatenate([ROWS[:5], 2 * ROWS])
    only_first_alike = ROWS * [1, 2, 2]
    assert [in_both(ROWS, g) for g in (gallery, 2 * ROWS, only_first_alike.astype(np.float32))] == [5, 0, 0]
    np.savez(
        tmp_path / "a.npz",
        query=ROWS,
        gallery=gallery,
        query_labels=np.arange(12) % 2,
        gallery_labels=np.arange(17) % 2,
    )
    path = tmp_path / "a.npz"
    (warning,) = measure(inputs_of_file(path, read_user_embeddings(path)), device="cpu").inputs.warnings
    assert warning.startswith("5 of 12 queries stand in the gallery too")


def test_where_any_ranking_has_everything_that_is_said(tmp_path: Path) -> None:
    ones = np.ones(12, int)
    np.savez(tmp_path / "a.npz", query=ROWS, gallery=2 * ROWS, query_labels=ones, gallery_labels=ones)
    notes = evaluate_file(tmp_path / "a.npz").evaluation.inputs.notes
    assert any("any ranking scores the same" in note for note in notes)


def naive(hits: list[int], relevant: int, k: int | None) -> dict[str, float]:
    """Measures of one ranking, written as the definitions of docs/metrics.md read."""
    cut = len(hits) if k is None else k
    precision = [sum(hits[: i + 1]) / (i + 1) for i in range(len(hits))]
    places = [i for i in range(cut) if hits[i]]
    near = relevant if k is None else min(k, relevant)
    total = sum(precision[i] for i in places)
    first = min(cut, relevant)
    return {
        "voc": sum(max(precision[i:cut]) for i in places) / near,
        "plain": total / near,
        "hits": total / len(places) if places else 0.0,
        "trec": total / relevant,
        f"P@{k}": len(places) / cut,
        f"P@min({k},R)": sum(hits[:first]) / first,
        f"recall@{k}": len(places) / relevant,
        "R-precision": sum(hits[:relevant]) / relevant,
    }


@pytest.mark.parametrize("seed", range(3))
def test_every_convention_is_what_a_naive_loop_computes(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    query, gallery = rng.standard_normal((20, 5)), rng.standard_normal((50, 5))
    query_labels, gallery_labels = rng.integers(-1, 5, 20), rng.integers(-1, 4, 50)  # no photos of class 4
    gallery_labels[:3] = 9  # no queries of class 9
    path = tmp_path / "a.npz"
    np.savez(path, query=query, gallery=gallery, query_labels=query_labels, gallery_labels=gallery_labels)
    found = evaluate_file(path, k=[5, 20], device="cpu")
    scores = query @ (gallery / np.linalg.norm(gallery, axis=1, keepdims=True)).T
    for k in (None, 5, 20):
        rows = [
            naive(
                (gallery_labels[np.argsort(-of_query)] == label).astype(int).tolist(),
                int((gallery_labels == label).sum()),
                k,
            )
            for of_query, label in zip(scores, query_labels, strict=True)
            if label >= 0 and (gallery_labels == label).any()
        ]
        for name in rows[0] if k else ("voc", "plain", "hits", "trec"):
            expected = np.mean([row[name] for row in rows])
            measure_name, convention = (
                (f"mAP@{k or 'all'}", name) if name in ("voc", "plain", "hits", "trec") else (name, "voc")
            )
            assert found.value(measure_name, convention) == pytest.approx(expected, abs=1e-12), (k, name)


@pytest.mark.parametrize("other", ["1.0", "01", "1.", " 1", "+1"])
def test_a_number_that_is_written_in_two_ways_is_no_two_classes(tmp_path: Path, other: str) -> None:
    """As a table with gaps writes it: `1.0` beside `1`."""
    rows = np.eye(4, dtype=np.float32)
    labels = np.array(["1", other, "2", "10"])
    np.savez(
        tmp_path / "e.npz", query=rows, gallery=rows, query_labels=labels[[0, 0, 2, 3]], gallery_labels=labels
    )
    with pytest.raises(
        DataError, match=r"classes spelt in several ways: .*1.* and .*1.*Write each in one way"
    ):
        read_user_embeddings(tmp_path / "e.npz")


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_rows_beyond_float32_are_refused_without_further_words(tmp_path: Path) -> None:
    rows, labels = np.array([[1.0, 2.0], [1e300, 1.0]]), np.array(["a", "b"])
    np.savez(tmp_path / "u.npz", query=rows, gallery=rows, query_labels=labels, gallery_labels=labels)
    lines = [f"{side},a,{x},{y}" for side in ("query", "gallery") for x, y in rows.tolist()]
    (tmp_path / "u.csv").write_text("\n".join(["set,label,e0,e1", *lines]))
    for name in ("u.npz", "u.csv"):
        with pytest.raises(DataError, match=r"1 of 2 rows of query are zero, not finite or beyond float32"):
            read_user_embeddings(tmp_path / name)


@pytest.mark.parametrize(
    ("whose", "told"),
    [
        ({"run": "runs/one"}, "the train part of pics, embedded with runs/one: classes and images that the run was trained on are not"),
        ({"model": "clip"}, "the train part of pics, embedded with clip"),
    ],
)  # fmt: skip
def test_of_an_own_file_it_is_said_that_nothing_is_left_out(tmp_path: Path, whose: dict, told: str) -> None:
    info = EmbeddingInfo(classes=("a", "b"), part="train", data_name="pics", data_root="data/pics", **whose)
    labels, kind = np.arange(12) // 2 % 2, np.arange(12) % 2
    write_embeddings(tmp_path / "e.h5", ROWS, labels, kind, [str(i) for i in range(12)], info)
    notes = inputs_of_file(tmp_path / "e.h5", read_user_embeddings(tmp_path / "e.h5")).notes
    assert notes[0].startswith(told)
    assert ("zssbir eval --run runs/one --data data/pics" in notes[0]) is ("run" in whose)
