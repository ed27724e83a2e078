"""Spherical k-means of unit vectors, in blocks, on any device (Hornik et al. 2012).

Maximises sum_i x_i . c(i) over unit centroids. A pass is a blocked matrix product (float32, bfloat16 or int8)
with an argmax, and float32 sums per cluster, of which only rows that changed their cluster are moved. Memory beyond
the input: its unit rows unless it has such, the copy that is multiplied, and one block of scores. The same seed,
device and thread count give the same result.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zssbir_cli.errors import DataError

_SCORES = {"cpu": 1 << 20, "cuda": 1 << 23}  # scores per block: in a CPU's cache; enough work for a GPU


@dataclass(frozen=True)
class KMeansResult:
    """centroids: unit float32 [K, D]; labels: int64 [N], the nearest centroid of each row; similarity: sum of
    the rows' cosines to their centroids; sizes: int64 [K]; iterations: passes over all rows; repaired: how
    often an empty cluster was given a new centroid."""

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


@dataclass(frozen=True)
class Rows:
    """Unit vectors in the format in which they are multiplied: `values` [N, D] times `scale` ([N, 1]; 1 unless int8)."""

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, unit: Tensor, products: torch.dtype) -> "Rows":
        """Float32 [N, D] -> the same in float32, bfloat16 or int8 (each row by its own largest entry)."""
        if products != torch.int8:
            return cls(unit.to(products), unit.new_ones(1, 1))
        values, scale = torch.empty_like(unit, dtype=torch.int8), unit.new_empty(len(unit), 1)
        for block in _blocks(len(unit), unit.T):
            part = unit[block]
            scale[block] = part.abs().amax(1, keepdim=True) / 127
            values[block] = _cast(part, scale[block], torch.int8)
        return cls(values, scale)


def kmeans(
    x: Tensor,
    k: int,
    *,
    generator: torch.Generator,
    iterations: int = 20,
    tolerance: float = 3e-3,
    initial: Tensor | None = None,
    products: torch.dtype = torch.float32,
) -> KMeansResult:
    """Cluster the rows of `x` [N, D] (normalised here unless they are) into `k` groups by cosine.

    generator: a CPU generator, the only source of randomness. iterations: passes over all rows at most;
    it ends earlier once a pass improves the objective by less than the share `tolerance`. initial: centroids
    [k, D] to start from (a warm start) instead of seeding. products: what rows and centroids are compared in,
    float32, bfloat16 or (on a CPU) int8, whichever the device multiplies fastest; cosines that differ by less than
    about 1e-3 may then be taken for each other. Sums and the similarity are float32 always.
    Raises DataError when there are fewer rows than clusters or a row is not finite or has no direction.
    """
    unit = _unit_rows(x, k)
    rows, sums = Rows.of(unit, products), unit.new_zeros(k, unit.shape[1])
    if initial is None:
        centroids = unit[seeds(rows, k, generator, unit)]
    else:
        centroids = F.normalize(initial.to(unit), dim=1)
    labels: Tensor | None = None
    previous, repaired, passes = float("inf"), 0, 0
    while True:
        before, (labels, cosines) = labels, assign(rows, centroids)
        sums = _sums(unit, labels, sums, before)
        passes += 1
        loss = unit.shape[0] - float((sums * centroids).sum(dtype=torch.float64))
        if passes >= iterations or previous - loss <= tolerance * max(loss, 1e-12):
            break
        previous = loss
        centroids, empty = _means(sums, unit, labels, cosines)
        repaired += empty
    sizes = torch.bincount(labels, minlength=k)
    return KMeansResult(centroids, labels, unit.shape[0] - loss, sizes, passes, repaired)


def assign(rows: Rows, centroids: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest centroid (unit float32 [K, D]) of each row: labels int64 [N] and the cosines, float32 [N]."""
    values, step = rows.values, centroids.new_ones(())
    if values.dtype == torch.int8:
        step = centroids.abs().amax() / 127  # one for all centroids, so that their scores compare as integers
    multiply = torch._int_mm if values.dtype == torch.int8 else torch.mm
    matrix = _cast(centroids, step, values.dtype).T.contiguous()
    labels = torch.empty(values.shape[0], dtype=torch.int64, device=values.device)
    best = torch.empty(values.shape[0], dtype=torch.float32, device=values.device)
    for block in _blocks(values.shape[0], centroids):
        value, labels[block] = multiply(values[block], matrix).max(dim=1)
        best[block] = value.float()
    return labels, best * (rows.scale[:, 0] * step)


def seeds(rows: Rows, k: int, generator: torch.Generator, unit: Tensor) -> Tensor:
    """Numbers [k] of rows to start from, chosen in the manner of k-means++, several per round for large k.

    Each round draws its share with probability proportional to the squared distance to the centroids so
    far (the sampling of k-means||, Bahmani et al. 2012), from at most 40 rows per cluster. unit: the rows in float32.
    """
    count, rounds = min(len(unit), 40 * k), k if k <= 32 else 16
    drawn = torch.randperm(len(unit), generator=generator)[:count].to(unit.device)
    pool = Rows(rows.values[drawn], rows.scale.expand(len(unit), 1)[drawn])
    chosen = torch.zeros(0, dtype=torch.int64)
    distance = torch.ones(count)
    for round_ in range(1, rounds + 1):
        share = k * round_ // rounds - chosen.numel()
        weights = distance.clamp(min=1e-9).index_fill(0, chosen, 0.0)
        new = torch.multinomial(weights, share, generator=generator)
        chosen = torch.cat([chosen, new])
        nearest = assign(pool, unit[drawn[new.to(drawn.device)]])[1]
        distance = torch.minimum(distance, (2 - 2 * nearest).cpu())
    return drawn[chosen.to(drawn.device)]


def _cast(x: Tensor, step: Tensor, products: torch.dtype) -> Tensor:
    return (x / step).round_().to(products) if products == torch.int8 else x.to(products)


def _unit_rows(x: Tensor, k: int) -> Tensor:
    if x.ndim != 2 or k < 1 or x.shape[0] < k:
        raise DataError(f"k-means: {k} clusters need at least {k} rows of features, got {tuple(x.shape)}")
    norms = x.float().norm(dim=1)
    bad = torch.nonzero(~torch.isfinite(norms) | (norms == 0))[:, 0]
    if bad.numel():
        raise DataError(
            f"k-means: {bad.numel()} rows are not finite or zero (the first is row {int(bad[0])})"
        )
    unit: Tensor = x.float()
    return unit if bool(((norms - 1).abs() < 1e-6).all()) else unit / norms[:, None]


def _sums(unit: Tensor, labels: Tensor, sums: Tensor, before: Tensor | None) -> Tensor:
    """Sum of the rows of each cluster, [k, D]; sums: those of the labels `before`, changed in place."""
    if unit.is_cuda:  # index_add_ is atomic there, and so not reproducible
        return _one_hot_sums(unit, labels, len(sums))
    if before is None:
        return sums.index_add_(0, labels, unit)
    moved = torch.nonzero(labels != before)[:, 0]
    part = unit[moved]
    return sums.index_add_(0, labels[moved], part).index_add_(0, before[moved], part, alpha=-1)


def _one_hot_sums(unit: Tensor, labels: Tensor, k: int) -> Tensor:
    """Sum of the rows of each cluster, [k, D], by matrix products."""
    sums = unit.new_zeros(k, unit.shape[1])
    for block in _blocks(unit.shape[0], sums):
        sums += F.one_hot(labels[block], k).to(unit.dtype).T @ unit[block]
    return sums


def _means(sums: Tensor, unit: Tensor, labels: Tensor, cosines: Tensor) -> tuple[Tensor, int]:
    """Normalised sums of each cluster; an empty cluster becomes the row that fits its own centroid worst."""
    sizes = torch.bincount(labels, minlength=len(sums))  # moved sums do not return to exactly 0
    empty = torch.nonzero((sizes == 0) | (sums.norm(dim=1) < 1e-6))[:, 0]
    means = sums.clone()
    if empty.numel():
        means[empty] = unit[cosines.topk(empty.numel(), largest=False).indices]
    return F.normalize(means, dim=1), int(empty.numel())


def _blocks(rows: int, centroids: Tensor) -> Iterator[slice]:
    size = max(1, _SCORES[centroids.device.type] // len(centroids))
    return (slice(i, min(i + size, rows)) for i in range(0, rows, size))
