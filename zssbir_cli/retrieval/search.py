"""Exact search: the photos nearest to each sketch, over rows that may lie in a memory-mapped file."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.arrays import Float32, Ints
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.ranking import as_tensor, exact_products

BLOCK_ROWS = 65536
"""Rows whose scores are looked at together, at most."""
TILE_ROWS = 4096
"""Rows per product: few enough for a processor's cache."""
CROWDED = 8
"""A block is scanned again in float32 when bfloat16 leaves more than so many times k rows per query to be scored."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest photos, best first: `rows` int64 [Q, k] (numbers in the gallery), `scores` float32 [Q, k] (cosines).
    Equal scores stand in the order of the gallery."""

    rows: Ints
    scores: Float32


def search(
    query: Tensor,
    gallery: npt.NDArray[np.floating],
    k: int,
    *,
    products: torch.dtype = torch.float32,
    progress: Progress = silent,
) -> Neighbours:
    """Exact top k of every query by cosine.

    A scan of the gallery finds the rows that could be among the best, by scores of which the largest possible
    error is known; these rows are then scored in float64. So the result depends neither on the number of queries,
    nor on blocks, nor on `products`.

    Args:
        query: [Q, D] floats; scaled to unit length here.
        gallery: [G, D] float32 or float16, unit rows to within rounding (as embeddings files hold); the scores are
            cosines, of rows scaled to unit length exactly. May be a memory map; read once, in blocks.
        k: photos per query; at most G are returned.
        products: what the scan of several queries computes in, float32 or (where the processor has it) bfloat16.
        progress: told the number of rows read.
    Errors: DataError: different widths, NaN or zero query, NaN, infinity or a zero row in the gallery. UsageError: k < 1.
    Memory: the scores of a block, 4 * Q * 65,536 bytes.
    """
    if k < 1:
        raise UsageError(f"-k must be 1 or more, not {k}")
    total, width = gallery.shape
    if query.ndim != 2 or query.shape[1] != width:
        raise DataError(f"queries have {query.shape[-1]} dimensions, the gallery {width}: not the same model")
    length = torch.linalg.vector_norm(query.double(), dim=1, keepdim=True)
    if not bool((torch.isfinite(length) & (length > 0)).all()):
        bad = (~(torch.isfinite(length) & (length > 0))).flatten().nonzero().flatten().tolist()
        raise DataError(f"query {bad[0]} has no direction: its embedding is zero or not finite")
    scan = torch.float32 if len(query) == 1 else products
    best = _Best(query.double() / length, gallery, min(k, total))
    columns, rows, done = (query / length).float().T.contiguous(), as_tensor(gallery), 0
    with torch.inference_mode(), exact_products():
        while done < total:
            size = min(max(done, TILE_ROWS), BLOCK_ROWS)  # small at first: they make the bound for the rest
            block = rows[done : done + size]
            scores = _products(block, columns, scan)
            _check_rows(block, scores[:, 0], done)
            near = best.near(scores, _slack(width, scan, rows.dtype))
            if scan == torch.bfloat16 and len(near) > CROWDED * len(query) * k:
                near = best.near(
                    _products(block, columns, torch.float32), _slack(width, torch.float32, rows.dtype)
                )
            best.add(near, done)
            done = min(done + size, total)
            progress("searching", done, total)
    return best.result()


def _check_rows(block: Tensor, score: Tensor, start: int) -> None:
    """Refuse rows without a direction. `score` [B]: of one query, so that only few rows are looked at: such a row scores
    0, NaN or infinity; start: number of the block's first row."""
    doubtful = (~(torch.isfinite(score) & (score != 0))).nonzero().flatten()
    sums = torch.linalg.vector_norm(block[doubtful], ord=1, dim=1, dtype=torch.float32)
    wrong = doubtful[~(torch.isfinite(sums) & (sums > 0))]
    if len(wrong):
        named = ", ".join(str(start + int(i)) for i in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise DataError(f"the gallery holds NaN, infinity or zero rows (row {named}); embed it again")


def _slack(width: int, products: torch.dtype, stored: torch.dtype) -> float:
    """Largest error of a scanned score between unit vectors (to within 1 %) of `width` dimensions.

    Sums in float32, in whatever order, are off by at most width * 2^-24, and scores and bounds are rounded to
    float32 a few times; bfloat16 (8 bits) rounds the row, the query and the result by up to 2^-8 of their length each.
    Rows stored in float16 are off unit length by up to 2^-11 (and denormal entries by 2^-25 each).
    """
    half = 2.0**-11 + width**0.5 * 2.0**-25 if stored == torch.float16 else 0.0
    return half + 1.03 * ((width + 4) * 2.0**-24 + (3.02 * 2.0**-8 if products == torch.bfloat16 else 0))


def _products(block: Tensor, columns: Tensor, products: torch.dtype) -> Tensor:
    """Scores float32 [B, Q] of the rows of a block, columns: unit queries [D, Q]."""
    if columns.shape[1] == 1 and block.dtype == torch.float32:
        return block @ columns
    scores, columns = torch.empty(len(block), columns.shape[1]), columns.to(products)
    for a in range(0, len(block), TILE_ROWS):
        scores[a : a + TILE_ROWS] = torch.mm(block[a : a + TILE_ROWS].to(products), columns)
    return scores


class _Best:
    """The k best of all blocks so far, of all queries: parallel arrays `query`, `row` and `score`, sorted by (query,
    score falling, row rising)."""

    def __init__(self, unit: Tensor, gallery: npt.NDArray[np.floating], k: int) -> None:
        self.unit, self.gallery, self.k = unit.numpy(), gallery, k
        self.query = self.row = np.empty(0, np.int64)
        self.score = np.empty(0, np.float32)

    def near(self, scores: Tensor, slack: float) -> Ints:
        """Flat places in scanned scores [B, Q], each off by at most `slack`, that could be among the best."""
        queries = len(self.unit)
        if len(self.score) == queries * self.k:
            least = torch.from_numpy(self.score.reshape(queries, self.k)[:, -1].copy())
        else:  # k rows score at least the k-th scanned score less the error
            most = min(self.k, len(scores))
            least = torch.topk(scores.T.contiguous(), most, sorted=False).values.amin(1) - slack
        return np.flatnonzero(~(scores < least - slack).numpy())

    def add(self, near: Ints, start: int) -> None:
        """Take in places found by `near` in the block of gallery rows from `start` on."""
        row, query = np.divmod(near, len(self.unit))
        query, row = np.concatenate([self.query, query]), np.concatenate([self.row, row + start])
        new = slice(len(self.score), None)
        score = np.concatenate([self.score, self._exact(query[new], row[new])])
        order = np.lexsort((row, -score, query))
        ranked = query[order]
        best = order[np.arange(len(order)) - np.searchsorted(ranked, ranked) < self.k]
        self.query, self.row, self.score = query[best], row[best], score[best]

    def _exact(self, query: Ints, row: Ints) -> Float32:
        """Cosines [n], computed in float64."""
        score = np.empty(len(row), np.float32)
        for a in range(0, len(row), TILE_ROWS):
            part = slice(a, a + TILE_ROWS)
            rows = self.gallery[row[part]].astype(np.float64)
            length = np.sqrt(np.einsum("nd,nd->n", rows, rows))
            score[part] = np.einsum("nd,nd->n", rows, self.unit[query[part]]) / length
        return score

    def result(self) -> Neighbours:
        """All queries together."""
        shape = (len(self.unit), self.k)
        return Neighbours(self.row.reshape(shape), self.score.reshape(shape))
