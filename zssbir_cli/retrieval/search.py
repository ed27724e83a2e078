"""Exact search: the photos nearest to each sketch, over rows that may lie in a memory-mapped file."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval.ranking import as_tensor, product_precision

BLOCK_ROWS = {torch.float32: 65536, torch.float16: 8192}
"""Rows per product: large for rows that are used in place, small (a cache's size) for rows that are converted
first."""


@dataclass(frozen=True)
class Neighbours:
    """Nearest photos, best first: `rows` int64 [Q, k] (numbers in the gallery), `scores` float32 [Q, k] (cosines).
    Equal scores stand in the order of the gallery."""

    rows: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


def search(
    query: Tensor,
    gallery: npt.NDArray[np.floating],
    k: int,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Neighbours:
    """Exact top k of every query by inner product; with unit rows, which embeddings files hold, the cosine.

    Args:
        query: [Q, D] floats; scaled to unit length here.
        gallery: [G, D] float32 or float16, may be a memory map; read once, in blocks.
        k: photos per query; at most G are returned.
        progress: called with (rows read, G).
    Errors: DataError: different widths, NaN or zero query, NaN in the gallery. UsageError: k < 1.
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
    unit = (query / length).float()
    k = min(k, total)
    best = _Best(len(unit), k)
    rows = as_tensor(gallery)
    size = total if len(unit) == 1 and rows.dtype == torch.float32 else BLOCK_ROWS[rows.dtype]
    with torch.inference_mode(), product_precision(False):
        for a in range(0, total, size):
            block = rows[a : a + size].float()
            scores = (block @ unit[0])[None] if len(unit) == 1 else unit @ block.T
            best.add(scores, a)
            if progress:
                progress(min(a + size, total), total)
    return best.result()


class _Best:
    """The k best of all blocks so far: scores [Q, k] and rows [Q, k], sorted by (score falling, row rising)."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.rows: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * queries
        self.scores: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * queries

    def add(self, scores: Tensor, start: int) -> None:
        """Take in the scores [Q, B] of gallery rows from `start` on."""
        k = min(self.k, scores.shape[1])
        for q, row in enumerate(scores):
            full = len(self.scores[q]) == self.k
            least = (
                float(self.scores[q][-1]) if full else float(torch.topk(row, k, sorted=False).values.min())
            )
            values = row.numpy()
            found = np.flatnonzero(~(values < least)) if not full else np.flatnonzero(~(values <= least))
            if found.size:
                self._merge(q, values[found], found + start)

    def _merge(self, q: int, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
        if np.isnan(scores).any():
            raise DataError(f"the gallery holds NaN (row {int(rows[np.isnan(scores)][0])}); embed it again")
        scores, rows = np.concatenate([self.scores[q], scores]), np.concatenate([self.rows[q], rows])
        order = np.lexsort((rows, -scores))[: self.k]
        self.scores[q], self.rows[q] = scores[order], rows[order]

    def result(self) -> Neighbours:
        """All queries together."""
        return Neighbours(np.stack(self.rows), np.stack(self.scores))
