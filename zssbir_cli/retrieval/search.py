"""Exact search: the photos nearest to each sketch, over rows that may lie in a memory-mapped file."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval.ranking import as_tensor, product_precision

BLOCK_ROWS = 65536
"""Rows whose scores are looked at together."""
TILE_ROWS = 4096
"""Rows per product: few enough for a processor's cache."""


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
    size = total if len(unit) == 1 and rows.dtype == torch.float32 else BLOCK_ROWS
    with torch.inference_mode(), product_precision(False):
        for a in range(0, total, size):
            best.add(_products(rows[a : a + size], unit), a)
            if progress:
                progress(min(a + size, total), total)
    return best.result()


def _products(block: Tensor, unit: Tensor) -> Tensor:
    """Scores float32 [B, Q] of the rows of a block."""
    if len(unit) == 1 and block.dtype == torch.float32:
        return (block @ unit[0])[:, None]
    scores, columns = torch.empty(len(block), len(unit)), unit.T.contiguous()
    for a in range(0, len(block), TILE_ROWS):
        torch.mm(block[a : a + TILE_ROWS].float(), columns, out=scores[a : a + TILE_ROWS])
    return scores


class _Best:
    """The k best of all blocks so far: scores [Q, k] and rows [Q, k], sorted by (score falling, row rising)."""

    def __init__(self, queries: int, k: int) -> None:
        self.k = k
        self.rows: list[npt.NDArray[np.int64]] = [np.empty(0, np.int64)] * queries
        self.scores: list[npt.NDArray[np.float32]] = [np.empty(0, np.float32)] * queries

    def add(self, scores: Tensor, start: int) -> None:
        """Take in the scores [B, Q] of gallery rows from `start` on."""
        if len(self.rows[0]) == self.k:
            least = torch.tensor([float(s[-1]) for s in self.scores])
            found = ~(scores <= least)  # NaN is found too, and refused
        else:
            some = scores[: max(self.k, TILE_ROWS)].T.contiguous()  # enough rows for a first bound
            k = min(self.k, some.shape[1])
            found = ~(scores < torch.topk(some, k, sorted=False).values.amin(1))
        row, query = np.divmod(np.flatnonzero(found.numpy()), scores.shape[1])
        order = np.argsort(query, kind="stable")
        row, query = row[order], query[order]
        names, first = np.unique(query, return_index=True)
        for q, places in zip(names.tolist(), np.split(row, first)[1:], strict=True):
            self._merge(q, scores[:, q].numpy()[places], places + start)

    def _merge(self, q: int, scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64]) -> None:
        if np.isnan(scores).any():
            raise DataError(f"the gallery holds NaN (row {int(rows[np.isnan(scores)][0])}); embed it again")
        scores, rows = np.concatenate([self.scores[q], scores]), np.concatenate([self.rows[q], rows])
        order = np.lexsort((rows, -scores))[: self.k]
        self.scores[q], self.rows[q] = scores[order], rows[order]

    def result(self) -> Neighbours:
        """All queries together."""
        return Neighbours(np.stack(self.rows), np.stack(self.scores))
