"""TREC: the convention, files read and written, against values by hand and trec_eval's own code (pytrec_eval)."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import pytrec_eval
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.trec import evaluate_trec
from zssbir_cli.retrieval.metrics import Metrics, evaluate

CUTS = (1, 3, 5, 10, 100)
THEIRS = {"map", "Rprec", *(f"{m}.{','.join(map(str, CUTS))}" for m in ("map_cut", "P", "recall"))}


def theirs_of(name: str) -> str:
    """trec_eval's name of a measure of ours."""
    kind, _, cut = name.partition("@")
    return {"mAP": f"map_cut_{cut}", "P": f"P_{cut}", "recall": f"recall_{cut}", "R-precision": "Rprec"}[kind]


def same_as_trec_eval(m: Metrics, values: dict[str, dict[str, float]], queries: list[str]) -> None:
    """Every query and measure that both know, to 1e-6 (query i of ours is `queries[i]`)."""
    names = [n for n in dict(m.columns.keys()) if not n.startswith("P@min")]
    assert len(names) == 2 + 3 * len(m.k)
    assert m.counted.any()
    for i in np.flatnonzero(m.counted):
        theirs = values[queries[i]]
        for name in names:
            expected = theirs["map" if name == "mAP@all" else theirs_of(name)]
            assert m.per_query(name, "trec")[i] == pytest.approx(expected, abs=1e-6), (name, queries[i])


def test_the_example_of_the_documentation() -> None:
    """The ranking 1, 0, 1 with R = 4 (two relevant photos further down)."""
    relevance = np.array([1, 0, 1, 0, 1, 1])
    angles = np.linspace(0.1, 1.0, 6)
    gallery = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    m = evaluate(np.array([[1.0, 0.0]], np.float32), gallery, np.zeros(1, int), 1 - relevance, k=(3, 5, 6))
    for convention, value in (("hits", 5 / 6), ("plain", 5 / 9), ("voc", 5 / 9), ("trec", 5 / 12)):
        assert m.get("mAP@3", convention) == pytest.approx(value, abs=1e-12)
    assert m.get("mAP@5", "trec") == pytest.approx((1 + 2 / 3 + 3 / 5) / 4, abs=1e-12)
    assert m.get("mAP@6", "trec") == m.get("mAP@all", "trec") == m.get("mAP@all", "plain")


@cases(25)
@given(seed=st.integers(0, 10**6), photos=st.integers(3, 60), classes=st.integers(1, 6))
def test_equal_to_trec_eval_without_ties(seed: int, photos: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    q, g = (rng.standard_normal((n, 5)).astype(np.float32) for n in (8, photos))
    lq, lg = rng.integers(0, classes, 8), rng.integers(0, classes, photos)
    lg[0] = lq[0]
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g)]
    scores = unit[0] @ unit[1].T
    qrels = {f"q{i}": {f"d{j}": int(lg[j] == lq[i]) for j in range(photos)} for i in range(8)}
    run = {f"q{i}": {f"d{j}": float(scores[i, j]) for j in range(photos)} for i in range(8)}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, THEIRS).evaluate(run)
    same_as_trec_eval(evaluate(q, g, lq, lg, k=CUTS), theirs, [f"q{i}" for i in range(8)])


def write(path: Path, lines: Iterable[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@cases(40)
@given(data=st.data())
def test_trec_files_are_evaluated_as_trec_eval_does(data: st.DataObject) -> None:
    """Ties (also those of float32 alone), graded and negative relevance, missing documents, names of any length."""
    names = data.draw(
        st.lists(st.text("abAB1é-", min_size=1, max_size=3), min_size=2, max_size=9, unique=True)
    )
    score = st.sampled_from([0.5, 0.5 + 1e-12, 0.25, -1.0, 2.0])
    qrels, run = {}, {}
    for query in ("1", "q2", "q-3"):
        qrels[query] = data.draw(st.dictionaries(st.sampled_from(names), st.integers(-1, 2), min_size=1))
        run[query] = data.draw(st.dictionaries(st.sampled_from(names), score, min_size=1))
    if not any(r > 0 for judged in qrels.values() for r in judged.values()):
        return
    with TemporaryDirectory() as folder:
        files = [Path(folder) / "a.qrels", Path(folder) / "a.run"]
        write(files[0], (f"{q} 0 {d}\t{r}" for q, docs in qrels.items() for d, r in docs.items()))
        write(files[1], (f"{q} Q0  {d} 0 {s!r} x" for q, docs in run.items() for d, s in docs.items()))
        m = evaluate_trec(*files, "trec", CUTS).metrics
    same_as_trec_eval(m, pytrec_eval.RelevanceEvaluator(qrels, THEIRS).evaluate(run), list(qrels))


def test_equal_scores_are_taken_in_random_order_unless_told_otherwise(tmp_path: Path) -> None:
    """b (relevant), a and c tie: places 1 to 3 are equally likely; by name the order is c, b, a."""
    qrels = write(tmp_path / "q", ["1 0 b 1", "1 0 z 1"])
    run = write(tmp_path / "r", [f"1 Q0 {d} 1 0.5 t" for d in "abc"])
    expected = (1 + 1 / 2 + 1 / 3) / 3
    found = {ties: evaluate_trec(qrels, run, ties, [1, 3]).metrics for ties in ("expected", "trec")}
    assert found["expected"].get("mAP@all") == pytest.approx(expected / 2)
    assert found["trec"].get("mAP@all") == pytest.approx(1 / 2 / 2)
    assert found["expected"].get("P@1") == pytest.approx(1 / 3)
    assert found["expected"].get("mAP@3", "hits") == pytest.approx(expected)
    curve = found["trec"].mean_curve()  # recall 0.5 is reached at the second place, more never
    assert curve[[0, 50, 51, 100]] == pytest.approx([1 / 2, 1 / 2, 0, 0])
    with pytest.raises(UsageError, match="--ties first: one of expected, trec"):
        evaluate_trec(qrels, run, "first")


def test_what_does_not_count_is_said(tmp_path: Path) -> None:
    qrels = write(tmp_path / "q", ["a 0 x 1", "b 0 x 0", "c 0 y 2", "d 0 x 1", ""])
    run = write(tmp_path / "r", ["a Q0 x 1 3 t", "b Q0 x 1 3 t", "e Q0 x 1 3 t", "d Q0 y 1 3 t"])
    found = evaluate_trec(qrels, run, k=[2])
    assert found.metrics.get("mAP@all") == pytest.approx(1 / 3)  # a: 1; c and d: 0
    notes = "; ".join(found.inputs.notes)
    assert "1 query without a relevant document left out: 'b'" in notes
    assert "1 query not in the run and counted as 0 (as by trec_eval -c): 'c'" in notes
    assert "1 query of the run without judgements left out: 'e'" in notes
    assert "one class" in notes


@pytest.mark.parametrize(
    ("file", "lines", "said"),
    [
        ("q", ["a 0 x 1", "a 0 y"], r"q:2: expected 4 columns \(`query iteration document relevance`\), found 3"),
        ("q", ["a 0 x high"], "q:1: the relevance 'high' is not a whole number"),
        ("q", ["a 0 x 1", "", "b 0 x 1", "a 0 x 0"], "q:4: document x appears twice for query a"),
        ("q", ["a 0 x 0"], "no document has a relevance above 0"),
        ("q", [], "empty; expected"),
        ("r", ["a Q0 x 1 0.5 t", "a Q0 y 2 nan t"], "r:2: the score 'nan' is not a finite number"),
        ("r", ["a Q0 x 1 0.5"], "r:1: expected 6 columns"),
        ("r", ["a Q0 x 1 0,5 t"], "r:1: the score '0,5'"),
        ("r", ["a Q0 \udcff 1 0.5 t"], "r:1: not UTF-8 text"),
    ],
)  # fmt: skip
def test_malformed_lines_are_named(tmp_path: Path, file: str, lines: list[str], said: str) -> None:
    good = {"q": ["a 0 x 1"], "r": ["a Q0 x 1 0.5 t"], file: lines}
    for name, text in good.items():
        (tmp_path / name).write_bytes("".join(f"{t}\n" for t in text).encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=said) as caught:
        evaluate_trec(tmp_path / "q", tmp_path / "r")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="missing: "):
        evaluate_trec(tmp_path / "missing", tmp_path / "r")


def call(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def embeddings(path: Path, sources: bool = True) -> Path:
    """12 queries and 60 photos of 4 classes and 3 distractors, with names that hold white space."""
    rng = np.random.default_rng(3)
    names = np.array(["cup", "tea pot", "swan", "harp"])
    labels = [np.resize(names, n) for n in (12, 60)]
    centre = dict(zip(names, rng.standard_normal((4, 6)), strict=True))
    rows = [np.stack([centre[n] for n in x]) + rng.standard_normal((len(x), 6)) for x in labels]
    made = {"query": rows[0], "gallery": rows[1], "query_labels": labels[0], "gallery_labels": labels[1]}
    if sources:
        made |= {f"{s}_sources": np.array([f"{n}/ü {i}%.png" for i, n in enumerate(x)])
                 for s, x in zip(("query", "gallery"), labels, strict=True)}  # fmt: skip
    np.savez(path, **made)
    return path


@pytest.mark.parametrize("sources", [True, False])
def test_an_export_gives_the_same_numbers_with_trec_eval_and_with_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    cuts = [x for k in CUTS for x in ("-k", str(k))]
    file = str(embeddings(tmp_path / "e.npz", sources))
    text = call(
        "eval", "--embeddings", file, "--out", "r", "--export", "trec-all", "--no-report", "--json", *cuts
    )
    ours = json.loads(text)
    made = sorted(p.name for p in Path("r").iterdir())
    stem = next(n for n in made if n.endswith(".run.txt")).removesuffix(".run.txt")
    assert made == sorted(f"{stem}.{end}" for end in ("json", "qrels.txt", "queries.npz", "run.txt"))
    qrels, run = (Path("r") / f"{stem}.{kind}.txt" for kind in ("qrels", "run"))
    with qrels.open(encoding="utf-8") as q, run.open(encoding="utf-8") as r:
        judged, ranked = pytrec_eval.parse_qrel(q), pytrec_eval.parse_run(r)
    assert [len(docs) for docs in ranked.values()] == [60] * 12
    theirs = pytrec_eval.RelevanceEvaluator(judged, THEIRS).evaluate(ranked)
    values = {(m["name"], m["convention"]): m["value"] for m in ours["measures"]}
    for (name, convention), value in values.items():
        if convention in ("trec", "") and not name.startswith("P@min"):
            their = "map" if name == "mAP@all" else theirs_of(name)
            assert value == pytest.approx(np.mean([v[their] for v in theirs.values()]), abs=1e-6), name
    for ties in ("trec", "expected"):
        back = json.loads(
            call("eval", "--qrels", str(qrels), "--run", str(run), "--ties", ties, "--json", *cuts)
        )
        assert (back["queries"], back["gallery"], back["classes"], back["ties"]) == (12, 60, 4, ties)
        for mine, its in zip(ours["measures"], back["measures"], strict=True):
            assert its["ci95_queries"] is not None
            assert its["value"] == pytest.approx(mine["value"], abs=1e-9), mine["name"]


def test_the_usual_export_holds_a_thousand_photos_of_each_query(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = np.sign(
        rng.standard_normal((1200, 4))
    )  # 16 directions only: the cut falls within a group of equals
    labels = rng.integers(0, 3, 1200)
    np.savez("e.npz", query=rows[:9], gallery=rows, query_labels=labels[:9], gallery_labels=labels)
    call("eval", "--embeddings", "e.npz", "--out", "all", "--export", "trec-all", "--no-report")
    call("eval", "--embeddings", "e.npz", "--out", "some", "--export", "trec", "--no-report")
    runs = [next(Path(f).glob("*.run.txt")) for f in ("all", "some")]
    qrels = next(Path("all").glob("*.qrels.txt"))
    assert len(runs[1].read_text().splitlines()) == 9000
    a, b = (evaluate_trec(qrels, run, "trec", [10, 1000]).metrics for run in runs)
    for name in ("mAP@10", "mAP@1000", "P@1000", "recall@1000"):
        assert a.get(name, "trec") == pytest.approx(b.get(name, "trec"), abs=1e-12)
    assert a.get("mAP@all") > b.get("mAP@all")


def test_options_that_do_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    embeddings(tmp_path / "e.npz")
    qrels, run = write(tmp_path / "q", ["a 0 x 1"]), write(tmp_path / "r", ["a Q0 x 1 0.5 t"])
    both = ["--qrels", str(qrels), "--run", str(run)]
    for arguments, said in (
        (both[:2], "--qrels needs --run FILE"),
        ([*both, "--classes", "cup"], "--classes has no effect with --qrels"),
        ([*both, "--export", "trec"], "--export has no effect with --qrels"),
        (["--ties", "trec"], "--ties is for a ranking in TREC format"),
        (["--embeddings", "e.npz", "--export", "trec"], "--export trec needs --out FOLDER"),
        (["--embeddings", "e.npz", "--out", "o", "--export", "csv"], "--export csv: one of trec, trec-all"),
    ):
        with pytest.raises(UsageError, match=said):
            call("eval", *arguments)
    assert not (tmp_path / "o").exists()
    assert "mAP@all" in call("eval", *both, "--out", "o")
    call("eval", *both, "--ties", "trec", "--out", "o")
    assert len(list((tmp_path / "o").glob("*.json"))) == 2
