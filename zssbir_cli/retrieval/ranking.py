"""Ranks of the relevant photos of every query: exact, blocked, without an argsort.

Average precision needs only the ranks of the positives. Queries and gallery are sorted by class, so that the
positives of a query are one slice of its row of scores. Scores lie in (-2, 2), where bit 30 of a float32 is
always 0: each score becomes an integer of the same order with one bit to spare, which marks the positives.
One in-place sort of the integers then shows all their ranks, and whether any of them is tied with an
irrelevant photo.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.errors import DataError
from zssbir_cli.retrieval.precision import VALUES_PER_CUT, values_of_groups, values_of_ranks

Rows = npt.NDArray[np.floating] | Tensor
Labels = npt.NDArray[np.integer] | Tensor

TILE = 256
"""Rows of one matrix product. Always the same (the last tile is padded), because a product of another shape
may round scores differently: results must not depend on the block size."""
COLUMN_PAD = 64
"""The gallery is padded to a multiple of this, for the same reason."""
SCORE_BUDGET = 256 << 20
"""Bytes of scores per thread; a very large gallery gets smaller tiles."""


@dataclass(frozen=True)
class Sorted:
    """A gallery sorted by class: unit rows float32 [G padded, D] and where each class begins and ends."""

    rows: Tensor
    count: int
    starts: dict[int, tuple[int, int]]


def unit_rows(rows: Rows, index: npt.NDArray[np.int64], out: Tensor, what: str) -> None:
    """Write `rows[index]`, scaled to unit length in float32, into the first rows of `out` [>= len(index), D].

    Errors: DataError naming the rows that hold NaN or infinity, or whose length is zero.
    """
    taken = rows[torch.from_numpy(index)] if isinstance(rows, Tensor) else torch.from_numpy(rows[index])
    target = out[: len(index)]
    target.copy_(taken)
    length = torch.linalg.vector_norm(target, dim=1, keepdim=True, dtype=torch.float64)
    wrong = ~(torch.isfinite(length) & (length > 0)).squeeze(1)
    if bool(wrong.any()):
        bad = wrong.nonzero().squeeze(1).cpu().numpy()
        first = int(bad[0])
        kind = "zero length" if bool(length[first] == 0) else "NaN or infinite values"
        named = ", ".join(str(int(i)) for i in np.sort(index[bad])[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(f"{what} embeddings with {kind}: row {named} ({len(bad)} of the rows looked at)")
    target.div_(length.to(torch.float32))


def sort_gallery(rows: Rows, labels: npt.NDArray[np.int64], device: torch.device) -> Sorted:
    """Sort a gallery [G, D] with labels [G] by class, scale its rows to unit length, pad it."""
    order = np.argsort(labels, kind="stable")
    count, width = len(order), int(rows.shape[1])
    padded = -(-count // COLUMN_PAD) * COLUMN_PAD
    out = torch.zeros((padded, width), dtype=torch.float32, device=device)
    step = 8192
    for a in range(0, count, step):
        unit_rows(rows, order[a : a + step], out[a : a + step], "gallery")
    names, first, counts = np.unique(labels[order], return_index=True, return_counts=True)
    slices = zip(names.tolist(), first.tolist(), counts.tolist(), strict=True)
    return Sorted(out, count, {name: (a, a + n) for name, a, n in slices})


def rank_values(
    query: Rows,
    query_labels: npt.NDArray[np.int64],
    gallery: Sorted,
    cuts: Sequence[int | None],
    *,
    levels: int = 0,
    fast: bool = False,
    block: int | None = None,
    threads: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> npt.NDArray[np.float64]:
    """Values of every query (columns of `precision.values_of_ranks`), NaN where nothing is relevant.

    Args:
        query: [Q, D]; any float type; rows are scaled to unit length.
        query_labels: int64 [Q].
        block: rows ranked at a time; changes memory only. Default: one tile.
        threads: CPU threads, each with its own block. Default: torch's number.
        fast: bf16 products where the hardware has them; scores then differ by up to about 4e-3.
        progress: called with the number of queries done, after each block.
    Returns:
        float64 [Q, columns].
    """
    width = VALUES_PER_CUT * len(cuts) + 2 + levels
    values = np.full((len(query_labels), width), np.nan)
    order = np.argsort(query_labels, kind="stable")
    device = gallery.rows.device
    tile = tile_rows(gallery.rows.shape[0])
    step = tile * max(1, -(-(block or tile) // tile))
    starts = range(0, len(order), step)
    workers = 1 if device.type != "cpu" else max(1, min(threads or torch.get_num_threads(), len(starts)))

    def work(start: int) -> int:
        index = order[start : start + step]
        scores = _scores(query, index, gallery, tile, step, fast)
        size = block or len(index)
        for a in range(0, len(index), size):
            rows = index[a : a + size]
            values[rows] = _rank_block(scores[a : a + size], query_labels[rows], gallery, cuts, levels, width)
        return len(index)

    with one_thread_each(workers), product_precision(fast), ThreadPoolExecutor(workers) as pool:
        for done in pool.map(work, starts):
            if progress:
                progress(done)
    return values


def tile_rows(gallery_rows: int) -> int:
    """Rows of a product against `gallery_rows` photos: `TILE`, fewer (a multiple of 8) for huge galleries."""
    return max(8, min(TILE, SCORE_BUDGET // (4 * max(1, gallery_rows)) // 8 * 8))


def _scores(
    query: Rows, index: npt.NDArray[np.int64], gallery: Sorted, tile: int, step: int, fast: bool
) -> Tensor:
    """Cosine scores of the queries `index`, float32 [len(index), G], in products of `tile` rows."""
    total, width = gallery.rows.shape
    rows = torch.zeros((-(-len(index) // tile) * tile, width), device=gallery.rows.device)
    unit_rows(query, index, rows, "query")
    scores = torch.empty((rows.shape[0], total), device=rows.device)
    for a in range(0, rows.shape[0], tile):
        torch.mm(rows[a : a + tile], gallery.rows.T, out=scores[a : a + tile])
    return scores[: len(index), : gallery.count]


def _rank_block(
    scores: Tensor,
    labels: npt.NDArray[np.int64],
    gallery: Sorted,
    cuts: Sequence[int | None],
    levels: int,
    width: int,
) -> npt.NDArray[np.float64]:
    """Values [B, columns] of a block of scores [B, G] whose labels are sorted."""
    out = np.full((len(labels), width), np.nan)
    names, first = np.unique(labels, return_index=True)
    ends = [*first[1:].tolist(), len(labels)]
    runs = [
        (a, b, gallery.starts.get(c)) for c, a, b in zip(names.tolist(), first.tolist(), ends, strict=True)
    ]
    keys = ordered_keys(scores)
    for a, b, where in runs:
        if where is not None:
            keys[a:b, where[0] : where[1]] |= 1
    keys = _sorted_rows(keys)
    for a, b, where in runs:
        if where is not None:
            out[a:b] = _run_values(keys[a:b], where[1] - where[0], cuts, levels)
    return out


def ordered_keys(scores: Tensor) -> Tensor:
    """Even int32 keys in the order of float32 scores in (-2, 2); equal scores (0 and -0 too) share a key.

    The scores are overwritten: the keys lie in their memory.
    """
    bits = scores.add_(0.0).view(torch.int32)  # -0 + 0 = +0
    return bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF)).bitwise_left_shift_(1)


def _sorted_rows(keys: Tensor) -> Tensor:
    """Each row ascending. numpy's sort by value is several times faster than torch's on CPUs."""
    if keys.device.type != "cpu":
        return torch.sort(keys, dim=1).values
    keys.numpy().sort(axis=1)
    return keys


def _run_values(
    keys: Tensor, relevant: int, cuts: Sequence[int | None], levels: int
) -> npt.NDArray[np.float64]:
    """Values of rows of sorted keys [B, G] that hold `relevant` odd keys each."""
    rows, total = keys.shape
    if keys.device.type == "cpu":
        array = keys.numpy()
        places = np.flatnonzero(array & 1).reshape(rows, relevant) - (np.arange(rows) * total)[:, None]
        here = np.take_along_axis(array, places, axis=1)
        below = np.take_along_axis(array, np.maximum(places - 1, 0), axis=1)
        tied = ((below == here - 1) & (places > 0)).any(axis=1)
    else:
        found = (keys & 1).nonzero()[:, 1].reshape(rows, relevant)
        low = (found - 1).clamp_(min=0)
        equal = keys.gather(1, low) == keys.gather(1, found) - 1
        tied = (equal & (found > 0)).any(dim=1).cpu().numpy()
        places = found.cpu().numpy()
    ranks = np.ascontiguousarray(total - places[:, ::-1])
    out = values_of_ranks(ranks, cuts, levels)
    for i in np.flatnonzero(tied):
        out[i] = values_of_groups(*_groups(keys[i].cpu().numpy()), cuts, levels)
    return out


def _groups(
    row: npt.NDArray[np.int32],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(photos above, hits above, size, hits) of each group of equal scores that holds a hit, best first."""
    positives = row[(row & 1) == 1]
    score, hits = np.unique(positives, return_counts=True)
    left = np.searchsorted(row, score - 1, side="left")
    right = np.searchsorted(row, score, side="right")
    above_hits = len(positives) - np.cumsum(hits)
    flip = slice(None, None, -1)
    return (len(row) - right)[flip], above_hits[flip], (right - left)[flip], hits[flip]


@contextmanager
def one_thread_each(workers: int) -> Iterator[None]:
    """Run torch single-threaded while several Python threads share the cores."""
    before = torch.get_num_threads()
    try:
        if workers > 1:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def product_precision(fast: bool) -> Iterator[None]:
    """Exact float32 products, or bf16 (CPU) and TF32 (CUDA) products with float32 sums when `fast`, whatever
    was set before."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("medium" if fast else "highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    kept = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision = "bf16" if fast else "ieee"
    cuda.fp32_precision = "tf32" if fast else "ieee"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = kept
