"""How sure a mean is: bootstrap intervals over queries and over classes, and a paired test of two systems."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from zssbir_cli.arrays import Floats, Ints

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval at `LEVEL` of a mean."""

    low: float
    high: float


def resampled_means(values: Floats, groups: Ints | None, seed: int = 0) -> Floats:
    """Bootstrap means of columns of per-query values.

    Args:
        values: float64 [Q, M], no NaN. groups: int64 [Q] class of each query to resample whole classes (with all
            their queries), or None to resample queries.
    Returns:
        float64 [`RESAMPLES`, M].
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        sums, sizes = values, np.ones(len(values))
    else:
        _, number = np.unique(groups, return_inverse=True)
        sizes = np.bincount(number).astype(np.float64)
        sums = np.stack([np.bincount(number, column) for column in values.T], axis=1)
    out = np.empty((RESAMPLES, values.shape[1]))
    for b in range(RESAMPLES):
        counts = np.bincount(rng.integers(0, len(sums), len(sums)), minlength=len(sums)).astype(np.float64)
        out[b] = counts @ sums / (counts @ sizes)
    return out


def intervals(values: Floats, groups: Ints | None, seed: int = 0) -> list[Interval]:
    """Interval of the mean of each column: the percentiles of `resampled_means`, widened about the mean by
    sqrt(n / (n - 1)) t / z for n resampled units. Without that the interval over 12 classes covers
    less than it says (tests/test_bootstrap.py simulates it); with thousands of queries it changes nothing. It ends where
    a mean of values from 0 to 1 does (of differences: from -1 to 1), and is all of that for one unit, which says nothing
    of others."""
    units = len(values) if groups is None else len(np.unique(groups))
    least, most = (0 if values.min(initial=0) >= 0 else -1), 1
    if units < 2:
        return [Interval(float(least), float(most))] * values.shape[1]
    means, mean = resampled_means(values, groups, seed), values.mean(axis=0)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    wide = _widening(units)
    ends = (np.clip(mean + (end - mean) * wide, least, most) for end in (low, high))
    return [Interval(float(a), float(b)) for a, b in zip(*ends, strict=True)]


def _widening(units: int) -> float:
    """sqrt(n / (n - 1)) t / z at `LEVEL`; Student's t by its expansion in 1 / (n - 1) (Abramowitz and Stegun
    26.7.5), right to 0.1 % from n = 6 on."""
    z, v = NormalDist().inv_cdf((1 + LEVEL) / 2), units - 1
    t = z + (z**3 + z) / (4 * v) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
    t += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    return math.sqrt(units / v) * t / z


@dataclass(frozen=True)
class Difference:
    """Paired difference of two systems on the same queries: mean of B - A, its intervals when queries or classes
    are resampled, the share of queries on which B is better and worse, and a two-sided p."""

    mean: float
    over_queries: Interval
    over_classes: Interval
    better: float
    worse: float
    p: float


def paired_difference(a: Floats, b: Floats, groups: Ints, resamples: int = 10_000) -> Difference:
    """Compare per-query values a and b, float64 [Q], of the same queries in the same order.

    p: a sign-flip randomisation test (Smucker, Allan and Carterette, CIKM 2007): how often random swaps of A and B
    on each query give a difference at least as large; (count + 1) / (resamples + 1).
    """
    difference = b - a
    mean = float(difference.mean())
    rng = np.random.default_rng(0)
    changed = difference[difference != 0]
    extreme, done = 0, 0
    while done < resamples:
        n = max(1, min(resamples - done, 20_000_000 // max(1, changed.size)))
        signs = rng.integers(0, 2, (n, changed.size), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ changed) >= abs(changed.sum()) * (1 - 1e-12)).sum())
        done += n
    column = difference[:, None]
    return Difference(
        mean,
        intervals(column, None)[0],
        intervals(column, groups)[0],
        float((difference > 0).mean()),
        float((difference < 0).mean()),
        (extreme + 1) / (resamples + 1),
    )
