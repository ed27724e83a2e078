"""Metrics against golden values of the published programs, hand-made tables and naive loops."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval import ranking
from zssbir_cli.retrieval.metrics import CONVENTIONS, Metrics, evaluate
from zssbir_cli.retrieval.precision import values_of_groups, values_of_ranks

GOLDEN = Path(__file__).parent / "golden" / "metrics.npz"


def naive_ap(relevance: np.ndarray, k: int | None, convention: str, total: int) -> float:
    """AP of one ranking (bool, best first), straight from the definitions."""
    top = relevance if k is None else relevance[:k]
    places = np.flatnonzero(top) + 1
    precision = [(i + 1) / place for i, place in enumerate(places)]
    if convention == "voc":
        precision = [max(precision[i:]) for i in range(len(precision))]
    if not precision:
        return 0.0
    divisor = {"hits": len(precision), "trec": total}.get(convention, min(k or total, total))
    return sum(precision) / divisor


def ranking_of(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return relevant[np.argsort(-scores, kind="stable")]


def circle(angles: np.ndarray) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def from_relevance(relevance: list[int], **options: object) -> Metrics:
    """Evaluate one query whose ranking is exactly `relevance`."""
    gallery = circle(np.linspace(0.1, 2.0, len(relevance)))
    labels = np.where(np.array(relevance) == 1, 0, 1)
    return evaluate(circle(np.zeros(1)), gallery, np.zeros(1, int), labels, **options)  # type: ignore[arg-type]


def random_case(seed: int, queries: int = 40, photos: int = 90, classes: int = 7, dim: int = 6) -> tuple:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, dim))
    lq, lg = rng.integers(0, classes, queries), rng.integers(0, classes, photos)
    q = (centres[lq] + rng.standard_normal((queries, dim))).astype(np.float32)
    g = (centres[lg] + rng.standard_normal((photos, dim))).astype(np.float32)
    return q, g, lq, lg


@pytest.mark.parametrize("block", [None, 7, 128, 10**6])
def test_equal_to_the_published_programs(block: int | None) -> None:
    d = np.load(GOLDEN)
    m = evaluate(d["metric_q"], d["metric_g"], d["metric_lq"], d["metric_lg"], block=block)
    ama = [m.get("mAP@all"), m.get("mAP@200"), m.get("P@100"), m.get("P@200")]
    zse = [m.get("mAP@all"), m.get("mAP@200"), m.get("P@min(100,R)"), m.get("P@min(200,R)")]
    hits = [m.get("mAP@all", "plain"), m.get("mAP@200", "hits")]
    np.testing.assert_allclose(ama, d["metric_ama_mapall_map200_p100_p200"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(zse, d["metric_zse_mapall_map200_p100_p200"], rtol=0, atol=1e-15)
    np.testing.assert_allclose(hits, d["metric_hits_mapall_map200"], rtol=0, atol=1e-8)  # float32 there


def test_hand_computed_table() -> None:
    m = from_relevance([1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1], k=(3, 5), curve_levels=5)
    p = [1, 2 / 3, 3 / 9, 4 / 12]
    expected = {
        ("mAP@all", "plain"): sum(p) / 4,
        ("mAP@all", "voc"): (1 + 2 / 3 + 1 / 3 + 1 / 3) / 4,
        ("mAP@all", "hits"): sum(p) / 4,
        ("mAP@3", "hits"): (1 + 2 / 3) / 2,
        ("mAP@3", "plain"): (1 + 2 / 3) / 3,
        ("mAP@3", "trec"): (1 + 2 / 3) / 4,
        ("mAP@5", "voc"): (1 + 2 / 3) / 4,
        ("mAP@5", "trec"): (1 + 2 / 3) / 4,
        ("mAP@all", "trec"): sum(p) / 4,
        ("P@3", "voc"): 2 / 3,
        ("P@5", "voc"): 2 / 5,
        ("P@min(5,R)", "voc"): 2 / 4,
        ("recall@5", "voc"): 2 / 4,
        ("R-precision", "voc"): 2 / 4,
    }
    assert {key: m.get(*key) for key in expected} == pytest.approx(expected, abs=1e-15)
    assert m.mean_curve() == pytest.approx([1, 1, 2 / 3, 1 / 3, 1 / 3])


def test_voc_looks_only_at_later_hits_within_k() -> None:
    m = from_relevance([0, 0, 1, 1, 1, 1, 0], k=(4,))
    assert m.get("mAP@all", "voc") == pytest.approx(4 / 6)
    assert m.get("mAP@all", "plain") == pytest.approx((1 / 3 + 2 / 4 + 3 / 5 + 4 / 6) / 4)
    assert m.get("mAP@4", "voc") == pytest.approx((0.5 + 0.5) / 4)
    assert m.get("mAP@4", "hits") == pytest.approx((1 / 3 + 1 / 2) / 2)


@cases(40)
@given(seed=st.integers(0, 10**6), photos=st.integers(3, 120), classes=st.integers(1, 30))
def test_equal_to_naive_loops_without_ties(seed: int, photos: int, classes: int) -> None:
    q, g, lq, lg = random_case(seed, 12, photos, classes)
    lg[0] = lq[0]
    m = evaluate(q, g, lq, lg, k=(1, 5, 200))
    scores = (q / np.linalg.norm(q, axis=1, keepdims=True)) @ (g / np.linalg.norm(g, axis=1, keepdims=True)).T
    for i in range(len(q)):
        ranking = ranking_of(scores[i], lg == lq[i])
        total = int(ranking.sum())
        assert m.relevant[i] == total
        if not total:
            assert np.isnan(m.per_query("mAP@all")[i])
            continue
        for k in (None, 1, 5, 200):
            for convention in CONVENTIONS:
                got = m.per_query(f"mAP@{k or 'all'}", convention)[i]
                assert got == pytest.approx(naive_ap(ranking, k, convention, total), abs=1e-12)
        assert m.per_query("P@5")[i] == pytest.approx(ranking[:5].sum() / 5)
        assert m.per_query("P@min(200,R)")[i] == pytest.approx(ranking[:total].sum() / total)
        assert m.per_query("recall@5")[i] == pytest.approx(ranking[:5].sum() / total)
        assert m.per_query("R-precision")[i] == pytest.approx(ranking[:total].sum() / total)
    means = [m.per_query("P@5")[m.counted].mean(), m.get("P@5")]
    assert means[0] == means[1]


@cases(60)
@given(levels=st.lists(st.integers(0, 3), min_size=2, max_size=7), data=st.data())
def test_ties_are_expectations_over_all_orders(levels: list[int], data: st.DataObject) -> None:
    """Every permutation of every tied group, averaged: exact for plain, hits and counts."""
    relevant = data.draw(st.lists(st.integers(0, 1), min_size=len(levels), max_size=len(levels)))
    relevant[data.draw(st.integers(0, len(levels) - 1))] = 1
    m = evaluate(
        circle(np.zeros(1)),
        circle(np.array(levels) * 0.4),
        np.zeros(1, int),
        1 - np.array(relevant),
        k=(2, 3),
    )
    orders = [
        np.array([relevant[j] for j in order], bool)
        for order in itertools.permutations(range(len(levels)))
        if list(order) == sorted(order, key=lambda j: levels[j])
    ]
    total = sum(relevant)
    for k in (None, 2, 3):
        name = f"mAP@{k or 'all'}"
        for convention in ("plain", "hits", "trec"):
            exact = np.mean([naive_ap(r, k, convention, total) for r in orders])
            assert m.get(name, convention) == pytest.approx(exact, abs=1e-12)
        assert m.get(name, "plain") - 1e-12 <= m.get(name, "voc") <= 1
    assert m.get("P@3") == pytest.approx(np.mean([r[:3].sum() / 3 for r in orders]))
    assert m.get("R-precision") == pytest.approx(np.mean([r[:total].sum() / total for r in orders]))


@cases(30)
@given(seed=st.integers(0, 10**6), copies=st.integers(1, 4))
def test_result_does_not_depend_on_the_order_of_the_gallery(seed: int, copies: int) -> None:
    """Duplicated photos, under the same and under other labels, collapsed rows, any order: the same bits."""
    rng = np.random.default_rng(seed)
    q, g, lq, lg = random_case(seed, 10, 30, 4)
    g, lg = (
        np.concatenate([g] * copies),
        np.concatenate([lg, *(rng.permutation(lg) for _ in range(copies - 1))]),
    )
    g[:5] = g[0]
    lg[:4] = np.arange(4)
    order = rng.permutation(len(g))
    a = evaluate(q, g, lq, lg, k=(5, 20))
    b = evaluate(q, g[order], lq, lg[order], k=(5, 20))
    for name in dict(a.columns.keys()):
        for convention in CONVENTIONS:
            np.testing.assert_allclose(
                a.per_query(name, convention), b.per_query(name, convention), rtol=0, atol=1e-14
            )


def test_collapsed_features_give_chance_not_the_order_of_classes() -> None:
    """All scores equal: AP of every class is the expectation, about R / G for many photos."""
    labels = np.repeat(np.arange(8), 50)
    m = evaluate(np.ones((8, 4)), np.ones((400, 4)), np.arange(8), labels)
    values = m.per_query("mAP@all", "plain")
    assert np.ptp(values) < 1e-12
    rng = np.random.default_rng(0)
    simulated = np.mean([naive_ap(rng.permutation(labels == 0), None, "plain", 50) for _ in range(4000)])
    assert values[0] == pytest.approx(simulated, abs=2e-3)
    assert m.get("P@100") == pytest.approx(1 / 8)


def test_voc_interpolates_the_expected_precision_of_tied_places() -> None:
    """A miss, {hit, miss} tied, two hits: precisions 1/2 or 1/3, 2/4, 3/5; the last is the largest."""
    angles = np.array([0.0, 0.4, 0.4, 0.8, 1.2])
    m = evaluate(circle(np.zeros(1)), circle(angles), np.zeros(1, int), np.array([1, 0, 1, 0, 0]), k=(3, 4))
    assert m.get("mAP@all", "voc") == pytest.approx(3 / 5)
    assert m.get("mAP@4", "voc") == pytest.approx((0.5 * 1 / 2 + 0.5 * 1 / 2 + 1 / 2) / 3)
    assert m.get("mAP@3", "voc") == pytest.approx((0.5 * 1 / 2 + 0.5 * 1 / 3) / 3)


def test_opposite_and_zero_scores_rank_below_positive_ones() -> None:
    gallery = np.array([[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1]], np.float32)
    m = evaluate(gallery[:1], gallery, np.array([0]), np.array([1, 0, 0, 1, 1]), k=(5,))
    # order: 0, 4, then {1, 3} tied at exactly 0 (and -0), then 2
    expected = 0.5 * ((1 / 3 + 2 / 5) / 2) + 0.5 * ((1 / 4 + 2 / 5) / 2)
    assert m.get("mAP@all", "plain") == pytest.approx(expected)


def test_groups_and_ranks_agree_when_nothing_is_tied() -> None:
    ranks = np.array([2, 3, 7, 8, 20])
    cuts = [None, 1, 3, 7, 100]
    one = np.ones(5, int)
    by_groups = values_of_groups(ranks - 1, np.arange(5), one, one, cuts, 7)
    np.testing.assert_allclose(by_groups, values_of_ranks(ranks[None], cuts, 7)[0], atol=1e-15)


@pytest.mark.parametrize("threads", [1, 2])
def test_blocks_and_threads_change_nothing(threads: int) -> None:
    q, g, lq, lg = random_case(3, 700, 500, 9, 32)
    g[100:140] = g[0]
    whole = evaluate(q, g, lq, lg, block=len(q), threads=1, curve_levels=11)
    for block in (1, 7, 128, None):
        part = evaluate(q, g, lq, lg, block=block, threads=threads, curve_levels=11)
        np.testing.assert_array_equal(part._values, whole._values)
        np.testing.assert_array_equal(part.curve, whole.curve)


def test_the_sort_for_gpus_gives_what_the_one_for_cpus_gives() -> None:
    """The same scores, with ties of every kind and signed zeros, through both; torch's runs on any device."""
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.choice([-0.5, -0.0, 0.0, 0.25, 0.5, 1.0], (6, 40)).astype(np.float32))
    scores[3:] = torch.from_numpy(rng.uniform(-1, 1, (3, 40)).astype(np.float32))
    row_a, flat_a, tied_a = ranking._sorted_cuda(scores.clone(), (7, 19))
    row_b, flat_b, tied_b = ranking._sorted_cpu(scores.clone().numpy(), (7, 19), np.empty((6, 40), np.int32))
    np.testing.assert_array_equal(flat_a, flat_b)
    np.testing.assert_array_equal(tied_a, tied_b)
    assert set(tied_a // 40) == {0, 1, 2}
    for i in range(6):
        np.testing.assert_array_equal(row_a(i), row_b(i))


def test_torch_float16_and_unnormalised_rows_are_accepted() -> None:
    q, g, lq, lg = random_case(5)
    a = evaluate(q, g, lq, lg)
    b = evaluate(
        torch.from_numpy(q) * 37, torch.from_numpy(g) * 0.01, torch.from_numpy(lq), torch.from_numpy(lg)
    )
    assert b.get("mAP@all") == pytest.approx(a.get("mAP@all"), abs=1e-6)
    c = evaluate(q.astype(np.float16), g.astype(np.float16), lq, lg)
    assert c.get("mAP@all") == pytest.approx(a.get("mAP@all"), abs=2e-2)


def test_queries_without_relevant_photos_are_named_and_left_out() -> None:
    q, g, lq, lg = random_case(7, 30, 60, 4)
    without = evaluate(np.concatenate([q, q[:3]]), g, np.concatenate([lq, [99, 99, 98]]), lg)
    assert without.get("mAP@all") == evaluate(q, g, lq, lg).get("mAP@all")
    assert without.queries == 33
    assert without.counted.sum() == 30
    assert any("3 queries" in n and "98, 99" in n for n in without.notes)
    assert np.isnan(without.per_class("P@100")[99])


def test_one_photo_per_class_and_k_beyond_the_gallery() -> None:
    g = circle(np.linspace(0, 3, 6))
    m = evaluate(g, g, np.arange(6), np.arange(6), k=(1, 100))
    assert m.get("mAP@all") == m.get("mAP@100", "plain") == m.get("P@1") == 1
    assert m.get("P@100") == pytest.approx(0.01)
    assert any("k = 100" in n and "gallery of 6" in n for n in m.notes)


def test_unlabelled_photos_are_distractors() -> None:
    q, g, lq, lg = random_case(8)
    more = np.concatenate([g, g[:20] + 0.01])
    m = evaluate(q, more, lq, np.concatenate([lg, np.full(20, -1)]))
    assert (m.relevant == evaluate(q, g, lq, lg).relevant).all()
    assert m.get("mAP@all") < evaluate(q, g, lq, lg).get("mAP@all")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda q, g, lq, lg: (with_row(q, 3, np.nan), g, lq, lg), "query embeddings with NaN .*row 3 "),
        (lambda q, g, lq, lg: (q, with_row(g, 11, np.inf), lq, lg), "gallery embeddings with NaN .*row 11 "),
        (
            lambda q, g, lq, lg: (q, with_row(g, 0, 0.0), lq, lg),
            "gallery embeddings with zero length: row 0 ",
        ),
        (lambda q, g, lq, lg: (q[:, :3], g, lq, lg), "different models"),
        (lambda q, g, lq, lg: (q, g, lq[:-1], lg), r"\[N, D\] with labels"),
        (lambda q, g, lq, lg: (q, g[:0], lq, lg[:0]), "gallery set is empty"),
        (lambda q, g, lq, lg: (q, g, lq - 50, lg), "no label"),
        (lambda q, g, lq, lg: (q, g, lq + 50, lg), "no query has a relevant photo"),
        (lambda q, g, lq, lg: (q, g, lq.astype(float), lg), "labels must be integers"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(change: object, words: str) -> None:
    with pytest.raises(DataError, match=words):
        evaluate(*change(*random_case(9)))  # type: ignore[operator]


def test_wrong_names_and_cuts_are_usage_errors() -> None:
    case = random_case(10)
    with pytest.raises(UsageError, match="k must be 1"):
        evaluate(*case, k=(0,))
    with pytest.raises(UsageError, match="unknown measure 'mAP@7'"):
        evaluate(*case).get("mAP@7")
    with pytest.raises(UsageError, match="unknown convention 'ndcg'"):
        evaluate(*case).get("mAP@all", "ndcg")


def test_selection_and_classes_are_means_of_queries() -> None:
    m = evaluate(*random_case(11), k=(10,))
    classes = m.per_class("mAP@10", "hits")
    for c, value in classes.items():
        chosen = m.query_labels == c
        assert value == pytest.approx(m.per_query("mAP@10", "hits")[chosen].mean())
        assert m.select(chosen).get("mAP@10", "hits") == pytest.approx(value)


def with_row(x: np.ndarray, row: int, value: float) -> np.ndarray:
    y = x.copy()
    y[row] = value
    return y
