"""Ranks of the relevant photos of every query: exact, blocked, without an argsort.

Average precision needs only the ranks of the positives. Queries and gallery are sorted by class, so that the
positives of a query are one slice of its row of scores. Scores lie in (-2, 2), where bit 30 of a float32 is
always 0: each score becomes an integer of the same order with one bit to spare, which marks the positives.
One in-place sort of the integers then shows all their ranks, and whether any of them is tied with an
irrelevant photo.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.arrays import Float32, Floats, Ints
from zssbir_cli.errors import DataError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.precision import VALUES_PER_CUT, values_of_groups, values_of_ranks

Rows = npt.NDArray[np.floating] | Tensor
Labels = npt.NDArray[np.integer] | Tensor

TILE = 256
"""Rows of one matrix product on a CPU. Always the same (the last tile is padded), because a product of
another shape may round differently: results must not depend on the block size or the number of threads."""
CUDA_TILE = 2048
"""The same on a GPU."""
COLUMN_PAD = 64
"""The gallery is padded to a multiple of this, for the same reason."""
CACHE_KEYS = 1 << 16
"""Keys that are sorted together on a CPU: few enough to stay in its second-level cache."""
SCORE_BUDGET = 256 << 20
"""Bytes of scores per thread; a very large gallery gets smaller tiles."""


@dataclass(frozen=True)
class Sorted:
    """A gallery sorted by class: unit rows float32 [G padded, D] and where each class begins and ends."""

    rows: Tensor
    count: int
    starts: dict[int, tuple[int, int]]


def unit_rows(rows: Rows, index: Ints, out: Tensor, what: str) -> None:
    """Write `rows[index]`, scaled to unit length in float32, into the first rows of `out` [>= len(index), D].

    Errors: DataError naming the rows that hold NaN or infinity, or whose length is zero.
    """
    source = rows if isinstance(rows, Tensor) else as_tensor(rows)
    target = out[: len(index)]
    target.copy_(source[torch.from_numpy(index)])
    length = torch.linalg.vector_norm(target, dim=1, keepdim=True)
    if not bool((torch.isfinite(length) & (length > 0)).all()):  # float32 may have over- or underflowed
        length = torch.linalg.vector_norm(target, dim=1, keepdim=True, dtype=torch.float64)
    wrong = ~(torch.isfinite(length) & (length > 0)).squeeze(1)
    if bool(wrong.any()):
        bad = wrong.nonzero().squeeze(1).cpu().numpy()
        first = int(bad[0])
        kind = "zero length" if bool(length[first] == 0) else "NaN or infinite values"
        named = ", ".join(str(int(i)) for i in np.sort(index[bad])[:5]) + (", ..." if len(bad) > 5 else "")
        raise DataError(f"{what} embeddings with {kind}: row {named} ({len(bad)} of the rows looked at)")
    target.div_(length)


def as_tensor(rows: npt.NDArray[np.floating]) -> Tensor:
    """A tensor over an array, without a copy; read-only memory maps too, of which torch warns (nothing here
    writes)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(np.asarray(rows))


def sort_gallery(rows: Rows, labels: Ints, device: torch.device) -> Sorted:
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
    query_labels: Ints,
    gallery: Sorted,
    cuts: Sequence[int | None],
    *,
    levels: int = 0,
    block: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Floats:
    """Values of every query (columns of `precision.values_of_ranks`), NaN where nothing is relevant.

    Args:
        query: [Q, D]; any float type; rows are scaled to unit length.
        query_labels: int64 [Q].
        block: rows ranked at a time; changes memory only. Default: what fits the processor's cache.
        threads: CPU threads, each with its own block. Default: torch's number.
        progress: told the number of queries ranked, after each block.
    Returns:
        float64 [Q, columns].
    """
    width = VALUES_PER_CUT * len(cuts) + 2 + levels
    values = np.full((len(query_labels), width), np.nan)
    order = np.argsort(query_labels, kind="stable")
    device = gallery.rows.device
    tile = tile_rows(gallery.rows.shape[0], TILE if device.type == "cpu" else CUDA_TILE)
    step = tile * -(-min(block or tile, len(order)) // tile)
    starts = range(0, len(order), step)
    workers = 1 if device.type != "cpu" else max(1, min(threads or torch.get_num_threads(), len(starts)))

    def work(start: int) -> int:
        index = order[start : start + step]
        scores = _scores(query, index, gallery, tile, step)
        for rows, where in _runs(query_labels[index], gallery.starts):
            values[index[rows]] = _run_values(scores[rows], where, block, cuts, levels)
        return len(index)

    with one_thread_each(), exact_products(), ThreadPoolExecutor(workers) as pool:
        done = 0
        progress("ranking", 0, len(order))
        for count in pool.map(work, starts):
            done += count
            progress("ranking", done, len(order))
    return values


def score_rows(
    query: Rows, query_labels: Ints, gallery: Rows, gallery_labels: Ints, device: str | torch.device = "cpu"
) -> Iterator[tuple[Ints, Float32]]:
    """The scores that `rank_values` ranks by, in blocks: numbers of queries int64 [B], and cosines float32 [B, G] in
    the order of the gallery. Errors: DataError as `unit_rows`."""
    held = sort_gallery(gallery, gallery_labels, torch.device(device))
    back = np.argsort(np.argsort(gallery_labels, kind="stable"))
    order = np.argsort(query_labels, kind="stable")
    tile = tile_rows(held.rows.shape[0], TILE if held.rows.device.type == "cpu" else CUDA_TILE)
    for start in range(0, len(order), tile):
        index = order[start : start + tile]
        with one_thread_each(), exact_products():
            scores = _scores(query, index, held, tile, tile)
        yield index, scores.cpu().numpy()[:, back]


def tile_rows(gallery_rows: int, most: int) -> int:
    """Rows of a product against `gallery_rows` photos: `most`, fewer (a multiple of 8) for huge galleries."""
    return max(8, min(most, SCORE_BUDGET // (4 * gallery_rows) // 8 * 8))


def _scores(query: Rows, index: Ints, gallery: Sorted, tile: int, step: int) -> Tensor:
    """Cosine scores of the queries `index`, float32 [len(index), G], in products of `tile` rows."""
    total, width = gallery.rows.shape
    rows = torch.zeros((step, width), device=gallery.rows.device)
    unit_rows(query, index, rows, "query")
    scores = torch.empty((step, total), device=rows.device)
    for a in range(0, len(index), tile):
        torch.mm(rows[a : a + tile], gallery.rows.T, out=scores[a : a + tile])
    return scores[: len(index), : gallery.count]


def _runs(labels: Ints, starts: dict[int, tuple[int, int]]) -> Iterator[tuple[slice, tuple[int, int]]]:
    """Rows of each class in a sorted block of labels, and the class's slice of the gallery if it has one."""
    names, first = np.unique(labels, return_index=True)
    for c, a, b in zip(names.tolist(), first.tolist(), [*first[1:].tolist(), len(labels)], strict=True):
        if c in starts:
            yield slice(a, b), starts[c]


def _run_values(
    scores: Tensor, where: tuple[int, int], block: int | None, cuts: Sequence[int | None], levels: int
) -> Floats:
    """Values of queries of one class from their scores [B, G] (overwritten); `where`: the class's photos."""
    rows, total = scores.shape
    on_cpu = scores.device.type == "cpu"
    size = min(block or (max(1, CACHE_KEYS // total) if on_cpu else rows), rows)
    ranks = np.empty((rows, where[1] - where[0]), dtype=np.int32)
    tied: dict[int, npt.NDArray[np.int32]] = {}
    scratch = np.empty((size, total), dtype=np.int32) if on_cpu else None
    for a in range(0, rows, size):
        part = scores[a : a + size]
        if scratch is not None:
            keys, flat, odd_tie = _sorted_cpu(part.numpy(), where, scratch[: len(part)])
        else:
            keys, flat, odd_tie = _sorted_cuda(part, where)
        ranks[a : a + size] = _ranks(flat, len(part), total)
        for i in np.unique(odd_tie // total):
            tied[a + int(i)] = keys(int(i))
    out = values_of_ranks(ranks, cuts, levels)
    for i, row in tied.items():
        out[i] = values_of_groups(*_groups(row), cuts, levels)
    return out


SortedKeys = tuple[Callable[[int], npt.NDArray[np.int32]], Ints, Ints]
"""A function that gives a sorted row of keys; flat places of the positives; flat places of those of them that
are tied with an irrelevant photo."""


def _sorted_cpu(scores: Float32, where: tuple[int, int], scratch: npt.NDArray[np.int32]) -> SortedKeys:
    """Turn scores [B, G] into keys in place, mark the positives, sort every row (numpy sorts by SIMD).

    A float32 in (-2, 2) keeps its order as the integer 2 * magnitude with the sign of the score: equal scores
    (0 and -0 too) share an even key, and a positive becomes the odd key above it.
    """
    keys = scores.view(np.int32)
    np.right_shift(keys, 31, out=scratch)
    np.left_shift(keys, 1, out=keys)
    np.bitwise_xor(keys, scratch, out=keys)
    np.subtract(keys, scratch, out=keys)
    keys[:, where[0] : where[1]] |= 1
    keys.sort(axis=1)
    np.copyto(scratch[: len(keys)], keys)  # the scores may be a view with a wider stride
    odd = (keys.astype(np.uint8) & 1).view(np.bool_)
    flat = np.flatnonzero(odd)
    line = scratch[: len(keys)].reshape(-1)
    tied = flat[line[flat - 1] == line[flat] - 1]
    return (lambda i: keys[i]), flat, tied


def _sorted_cuda(scores: Tensor, where: tuple[int, int]) -> SortedKeys:
    """The same on a GPU, with torch's sort."""
    keys = scores.contiguous().view(torch.int32)
    sign = keys >> 31
    keys = ((keys << 1) ^ sign) - sign
    keys[:, where[0] : where[1]] |= 1
    line = torch.sort(keys, dim=1).values.reshape(-1)
    flat = (line & 1).nonzero().squeeze(1)
    tied = flat[line[flat - 1] == line[flat] - 1]
    total = keys.shape[1]
    return (lambda i: line[i * total : (i + 1) * total].cpu().numpy()), flat.cpu().numpy(), tied.cpu().numpy()


def _ranks(flat: Ints, rows: int, total: int) -> Ints:
    """Ranks [rows, R], best first, from flat places in `rows` ascending rows of `total`."""
    places = flat.reshape(rows, -1) - (np.arange(rows) * total)[:, None]
    result: Ints = total - places[:, ::-1]
    return result


def _groups(row: npt.NDArray[np.int32]) -> tuple[Ints, Ints, Ints, Ints]:
    """(photos above, hits above, size, hits) of each group of equal scores that holds a hit, best first."""
    positives = row[(row & 1) == 1]
    score, hits = np.unique(positives, return_counts=True)
    left = np.searchsorted(row, score - 1, side="left")
    right = np.searchsorted(row, score, side="right")
    above_hits = len(positives) - np.cumsum(hits)
    flip = slice(None, None, -1)
    return (len(row) - right)[flip], above_hits[flip], (right - left)[flip], hits[flip]


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Run torch single-threaded while Python threads share the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def exact_products() -> Iterator[None]:
    """Exact float32 products, whatever was set before."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # torch < 2.9
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
        return
    cpu, cuda = torch.backends.mkldnn.matmul, torch.backends.cuda.matmul  # type: ignore[attr-defined]
    kept = cpu.fp32_precision, cuda.fp32_precision
    cpu.fp32_precision = cuda.fp32_precision = "ieee"
    try:
        yield
    finally:
        cpu.fp32_precision, cuda.fp32_precision = kept
