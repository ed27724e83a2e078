"""Spherical k-means of unit vectors, in blocks, on any device (Hornik et al. 2012).

Maximises sum_i x_i . c(i) over unit centroids. Features of a network often lie in a narrow cone (mean cosine 0.998),
where cosines differ in their last digits only. So the mean of the rows is subtracted first: between unit vectors
argmax_k x . c_k = argmax_k (x - m) . (c_k - m) - |c_k - m|^2 / 2, whose terms are of the size of the differences.
A pass is a blocked float32 product with an argmax, and sums per cluster of which only rows that changed their
cluster are moved. Memory beyond the input: the centred rows and one block of scores. The same seed, device and
thread count give the same result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zssbir_cli.errors import DataError

_SCORES = {"cpu": 1 << 20, "cuda": 1 << 23}  # scores per block: in a CPU's cache; enough work for a GPU
_SAME = 1e-6  # share of the mean squared distance to the mean: nearer rows are the same but for rounding
_FILLS = 10  # passes at most that fill clusters which are empty at the end


@dataclass(frozen=True)
class KMeansResult:
    """centroids: unit float32 [K, D]; labels: int64 [N], the nearest centroid of each row; similarity: sum of
    the rows' cosines to their centroids; sizes: int64 [K], 0 only where fewer than K different rows exist;
    iterations: passes over all rows; repaired: how often an empty cluster was given a new centroid."""

    centroids: Tensor
    labels: Tensor
    similarity: float
    sizes: Tensor
    iterations: int
    repaired: int

    @property
    def objective(self) -> float:
        """Sum of squared distances of the rows to their unit centroids, 2 (N - similarity)."""
        return 2 * (self.labels.shape[0] - self.similarity)

    @property
    def empty(self) -> int:
        """Clusters without a row."""
        return int((self.sizes == 0).sum())


def kmeans(
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    tolerance: float = 3e-3,
    initial: Tensor | None = None,
) -> KMeansResult:
    """Cluster the rows of `x` [N, D] (normalised here) into `k` groups by cosine.

    generator: a CPU generator, the only source of randomness. iterations: passes over all rows at most;
    it ends earlier once a pass improves the objective by less than the share `tolerance`; the best pass is
    returned. initial: centroids [k, D] to start from (a warm start) instead of seeding.
    On a GPU products follow PyTorch's setting (TF32 rounds each factor by up to 2^-11 of its distance to the mean).
    Raises DataError when there are fewer rows than clusters or a row is not finite or has no direction.
    """
    rows, mean = _centred(x, k)
    squares = rows.square().sum(1)
    if initial is None:
        centroids = rows[seeds(rows, k, generator)]
    else:
        centroids = F.normalize(initial.to(rows), dim=1) - mean
    sums, labels = rows.new_zeros(k, rows.shape[1]), torch.empty(0)
    best: tuple[float, tuple[Tensor, Tensor, Tensor]] | None = None
    repaired, passes = 0, 0
    while True:
        before, (labels, distances) = labels, assign(rows, squares, centroids)
        sums = _sums(rows, labels, sums, before if passes else None)
        passes += 1
        loss = float(distances.sum(dtype=torch.float64))
        enough = best is not None and best[0] - loss <= tolerance * loss
        if best is None or loss < best[0]:
            best = loss, (centroids, labels, distances)
        if passes >= iterations or enough or loss == 0:
            break
        centroids, empty = _means(sums, mean, rows, labels, distances)
        repaired += empty
    found = best[1]
    empty = int((torch.bincount(found[1], minlength=k) == 0).sum())
    centroids, labels, distances = _fill(rows, squares, *found) if empty else found
    sizes = torch.bincount(labels, minlength=k)
    return KMeansResult(
        centroids=F.normalize(centroids + mean, dim=1),
        labels=labels,
        similarity=len(rows) - float(distances.sum(dtype=torch.float64)) / 2,
        sizes=sizes,
        iterations=passes,
        repaired=repaired + empty - int((sizes == 0).sum()),
    )


def assign(rows: Tensor, squares: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid [K, D] of each of `rows` [N, D] with squared lengths `squares` [N], all less the same mean:
    labels int64 [N] and squared distances float32 [N]."""
    offset, matrix = -centroids.square().sum(1) / 2, centroids.T.contiguous()
    labels = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
    best = torch.empty_like(squares)
    for block in _blocks(len(rows), centroids):
        best[block], labels[block] = torch.addmm(offset, rows[block], matrix).max(dim=1)
    return labels, (squares - 2 * best).clamp_(min=0)


def seeds(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Numbers [k] of rows [N, D] to start from, chosen in the manner of k-means++, several per round for large k.

    Each round draws its share with probability proportional to the squared distance to the centroids so
    far (the sampling of k-means||, Bahmani et al. 2012), from at most 40 rows per cluster.
    """
    count, rounds = min(len(rows), 40 * k), k if k <= 32 else 16
    drawn = torch.randperm(len(rows), generator=generator)[:count].to(rows.device)
    pool = rows[drawn]
    squares = pool.square().sum(1)
    chosen = torch.zeros(0, dtype=torch.int64)
    distance = torch.ones(count)
    for round_ in range(1, rounds + 1):
        share = k * round_ // rounds - chosen.numel()
        least = max(float(distance.max()) * 1e-9, 1e-30)  # a draw needs some weight where all rows are equal
        weights = distance.clamp(min=least).index_fill(0, chosen, 0.0)
        new = torch.multinomial(weights, share, generator=generator)
        chosen = torch.cat([chosen, new])
        nearest = assign(pool, squares, pool[new.to(drawn.device)])[1].cpu()
        distance = torch.minimum(distance, nearest) if round_ > 1 else nearest
    return drawn[chosen.to(drawn.device)]


def _centred(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Unit rows less their mean, float32 [N, D], and the mean [D]."""
    if x.ndim != 2 or k < 1 or x.shape[0] < k:
        raise DataError(f"k-means: {k} clusters need at least {k} rows of features, got {tuple(x.shape)}")
    norms = x.float().norm(dim=1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0))[:, 0]
    if bad.numel():
        raise DataError(
            f"k-means: {bad.numel()} rows are not finite or zero (the first is row {int(bad[0])})"
        )
    unit = x.float() / norms[:, None]
    mean = unit.mean(0)
    return unit.sub_(mean), mean


def _sums(rows: Tensor, labels: Tensor, sums: Tensor, before: Tensor | None) -> Tensor:
    """Sum of the rows of each cluster, [k, D]; sums: those of the labels `before`, changed in place."""
    if rows.is_cuda:  # index_add_ is atomic there, and so not reproducible
        return _one_hot_sums(rows, labels, len(sums))
    if before is None:
        return sums.index_add_(0, labels, rows)
    moved = torch.nonzero(labels != before)[:, 0]
    part = rows[moved]
    return sums.index_add_(0, labels[moved], part).index_add_(0, before[moved], part, alpha=-1)


def _one_hot_sums(rows: Tensor, labels: Tensor, k: int) -> Tensor:
    """Sum of the rows of each cluster, [k, D], by matrix products."""
    sums = rows.new_zeros(k, rows.shape[1])
    for block in _blocks(rows.shape[0], sums):
        sums += F.one_hot(labels[block], k).to(rows.dtype).T @ rows[block]
    return sums


def _means(sums: Tensor, mean: Tensor, rows: Tensor, labels: Tensor, distances: Tensor) -> tuple[Tensor, int]:
    """Unit means of each cluster, less `mean`; an empty cluster gets a row that fits its own centroid worst."""
    sizes = torch.bincount(labels, minlength=len(sums))
    whole = sums / sizes.clamp(min=1)[:, None] + mean
    empty = torch.nonzero((sizes == 0) | (whole.norm(dim=1) < 1e-6))[:, 0]
    means = F.normalize(whole, dim=1) - mean
    if empty.numel():
        means[empty] = rows[distances.topk(empty.numel()).indices]
    return means, int(empty.numel())


def _fill(
    rows: Tensor, squares: Tensor, centroids: Tensor, labels: Tensor, distances: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same clusters with those that are empty moved to the rows that fit worst, and all rows assigned anew;
    a cluster stays empty when every row already lies on a centroid."""
    for _ in range(_FILLS):
        empty = torch.nonzero(torch.bincount(labels, minlength=len(centroids)) == 0)[:, 0]
        if not empty.numel() or float(distances.max()) <= _SAME * float(squares.mean()):
            break
        centroids = centroids.index_copy(0, empty, rows[distances.topk(empty.numel()).indices])
        labels, distances = assign(rows, squares, centroids)
    return centroids, labels, distances


def _blocks(rows: int, centroids: Tensor) -> Iterator[slice]:
    size = max(1, _SCORES[centroids.device.type] // len(centroids))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))
