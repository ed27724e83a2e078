"""The scan of a gallery: exact against a plain sort, ties, memory maps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval import search as module
from zssbir_cli.retrieval.search import search


def unit(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@cases(60)
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


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_one_wrong_number_is_found_where_the_query_has_a_zero(queries: int, wrong: float) -> None:
    g = unit(np.random.default_rng(1), 5000, 8)
    query = torch.eye(8)[:queries]
    assert search(query, g, 1).rows.shape == (queries, 1)
    for dtype, products in (
        (np.float32, torch.float32),
        (np.float32, torch.bfloat16),
        (np.float16, torch.float32),
    ):
        spoilt = g.astype(dtype)
        spoilt[4321, 5] = wrong
        with pytest.raises(DataError, match=r"NaN, infinity or zero rows \(row 4321\)"):
            search(query, spoilt, 1, products=products)


def test_rows_at_right_angles_to_the_query_are_no_fault() -> None:
    g = np.eye(8, dtype=np.float32)
    assert search(torch.eye(8)[:1], g, 8).rows[0].tolist() == list(range(8))


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
