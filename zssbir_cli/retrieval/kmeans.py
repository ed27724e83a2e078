"""Spherical k-means of unit vectors, in blocks, on any device (Hornik et al. 2012).

Maximises sum_i x_i . c(i) over unit centroids. Each iteration is one blocked matrix product, in bfloat16
where that is asked for, an argmax and a sum per cluster in float32: memory beyond the input is
its bfloat16 copy and one block of scores. The same seed, device and thread count give the same result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zssbir_cli.errors import DataError

_SCORES = 1 << 23  # scores per block: 8M, 16-32 MB


@dataclass(frozen=True)
class KMeansResult:
    """centroids: unit float32 [K, D]; labels: int64 [N], the nearest centroid of each row; similarity: sum of
    the rows' cosines to their centroids; sizes: int64 [K]; iterations: passes over all rows; repaired: how
    often
    an empty cluster was given a new centroid."""

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


def kmeans(
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    tolerance: float = 3e-3,
    initial: Tensor | None = None,
    bf16: bool = False,
) -> KMeansResult:
    """Cluster the rows of `x` [N, D] (normalised here) into `k` groups by cosine.

    generator: a CPU generator, the only source of randomness. iterations: passes over all rows at most;
    it ends earlier once a pass improves the objective by less than the share `tolerance`. initial: centroids
    [k, D] to
    start from (a warm start) instead of seeding. bf16: products in bfloat16, for devices that multiply it faster.
    Raises DataError when there are fewer rows than clusters or a row is not finite or has no direction.
    """
    unit = _unit_rows(x, k)
    rows = unit.bfloat16() if bf16 else unit
    centroids = (
        seed_centroids(rows, k, generator) if initial is None else F.normalize(initial.to(unit), dim=1)
    )
    previous, repaired, passes = float("inf"), 0, 0
    while True:
        labels, similarity = assign(rows, centroids)
        passes += 1
        loss = unit.shape[0] - float(similarity.sum(dtype=torch.float64))
        if passes >= iterations or previous - loss <= tolerance * max(loss, 1e-12):
            break
        previous = loss
        centroids, empty = _means(unit, labels, similarity, k)
        repaired += empty
    sizes = torch.bincount(labels, minlength=k)
    return KMeansResult(centroids, labels, unit.shape[0] - loss, sizes, passes, repaired)


def assign(rows: Tensor, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid of each row by dot product: labels int64 [N] and those products, float32 [N]."""
    matrix = centroids.to(rows.dtype).T.contiguous()
    labels = torch.empty(rows.shape[0], dtype=torch.int64, device=rows.device)
    best = torch.empty(rows.shape[0], dtype=torch.float32, device=rows.device)
    for block in _blocks(rows.shape[0], centroids.shape[0]):
        scores = rows[block] @ matrix
        value, labels[block] = scores.max(dim=1)
        best[block] = value.float()
    return labels, best


def seed_centroids(rows: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Unit float32 centroids [k, D] chosen among `rows` in the manner of k-means++, several per round for large k.

    Each round draws its share with probability proportional to the squared distance to the centroids so
    far (the sampling of k-means||, Bahmani et al. 2012), from at most 40 rows per cluster.
    """
    count, rounds = min(rows.shape[0], 40 * k), k if k <= 32 else 16
    pool = rows[torch.randperm(rows.shape[0], generator=generator)[:count].to(rows.device)]
    chosen = torch.zeros(0, dtype=torch.int64)
    distance = torch.ones(count)
    for round_ in range(1, rounds + 1):
        share = k * round_ // rounds - chosen.numel()
        weights = distance.clamp(min=1e-9).index_fill(0, chosen, 0.0)
        new = torch.multinomial(weights, share, generator=generator)
        chosen = torch.cat([chosen, new])
        nearest = assign(pool, pool[new.to(pool.device)])[1]
        distance = torch.minimum(distance, (2 - 2 * nearest).cpu())
    return F.normalize(pool[chosen.to(pool.device)].float(), dim=1)


def _unit_rows(x: Tensor, k: int) -> Tensor:
    if x.ndim != 2 or k < 1 or x.shape[0] < k:
        raise DataError(f"k-means: {k} clusters need at least {k} rows of features, got {tuple(x.shape)}")
    norms = x.float().norm(dim=1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0))[:, 0]
    if bad.numel():
        raise DataError(
            f"k-means: {bad.numel()} rows are not finite or zero (the first is row {int(bad[0])})"
        )
    unit: Tensor = x.float() / norms[:, None]
    return unit


def _means(unit: Tensor, labels: Tensor, similarity: Tensor, k: int) -> tuple[Tensor, int]:
    """Normalised sums of each cluster; an empty cluster becomes the row that fits its own centroid worst."""
    if unit.is_cuda:  # index_add_ is atomic there, and so not reproducible
        sums = _one_hot_sums(unit, labels, k)
    else:
        sums = torch.zeros(k, unit.shape[1]).index_add_(0, labels, unit)
    empty = torch.nonzero(sums.norm(dim=1) < 1e-6)[:, 0]
    if empty.numel():
        sums[empty] = unit[similarity.topk(empty.numel(), largest=False).indices]
    return F.normalize(sums, dim=1), int(empty.numel())


def _one_hot_sums(unit: Tensor, labels: Tensor, k: int) -> Tensor:
    """Sum of the rows of each cluster, [k, D], by matrix products."""
    sums = unit.new_zeros(k, unit.shape[1])
    for block in _blocks(unit.shape[0], k):
        sums += F.one_hot(labels[block], k).to(unit.dtype).T @ unit[block]
    return sums


def _blocks(rows: int, columns: int) -> Iterator[slice]:
    size = max(1, _SCORES // max(1, columns))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))
