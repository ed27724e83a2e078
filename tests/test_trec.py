"""The convention `trec` against values by hand and trec_eval's own code (pytrec_eval)."""

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st

from zssbir_cli.retrieval.metrics import Metrics, evaluate

CUTS = (1, 3, 5, 10, 100)
THEIRS = {"map", "Rprec", *(f"{m}.{','.join(map(str, CUTS))}" for m in ("map_cut", "P", "recall"))}


def theirs_of(name: str) -> str:
    """trec_eval's name of a measure of ours."""
    kind, _, cut = name.partition("@")
    return {"mAP": f"map_cut_{cut}", "P": f"P_{cut}", "recall": f"recall_{cut}", "R-precision": "Rprec"}[kind]


def same_as_trec_eval(m: Metrics, values: dict[str, dict[str, float]], queries: list[str]) -> None:
    """Every query and measure that both know, to 1e-6 (query i of ours is `queries[i]`)."""
    names = [n for n in m.names if not n.startswith("P@min")]
    assert len(names) == 2 + 3 * len(m.k)
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


@settings(max_examples=25, deadline=None)
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
