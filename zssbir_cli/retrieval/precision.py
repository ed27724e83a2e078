"""Values of a query from the ranks of its relevant photos, and from tied groups where scores are equal.

All functions are pure numpy in float64. `ranks` are 1-based places in the ranking, ascending.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats, Ints

VALUES_PER_CUT = 4
"""Columns per cut: AP `voc`, AP `plain`, AP `hits`, hits among the first k."""


def values_of_ranks(ranks: npt.NDArray[np.integer], cuts: Sequence[int | None], levels: int = 0) -> Floats:
    """Values of queries without ties between relevant and irrelevant photos.

    Precision at the i-th hit is i / rank_i. Average precision at a cut k (None = the whole gallery) is

    - plain: sum of the precisions of the hits in the first k, divided by min(k, R);
    - voc: the same with precision at rank i replaced by the largest precision at i or later (within k);
    - hits: as plain, divided by the number of hits in the first k (0 when there is none).

    Args:
        ranks: int [B, R], ascending per row, R >= 1.
        cuts: list of k, None for all.
        levels: number of recall levels of the precision-recall curve, 0 for none.
    Returns:
        float64 [B, 4 * len(cuts) + 2 + levels]: per cut AP voc, AP plain, AP hits, hits; then hits in the
        first R; then R; then interpolated precision at recall 0 ... 1.
    Example: ranks 1, 3, 9, 12 (R = 4), k = 3: hits (1 + 2/3) / 2 = 0.833, plain (1 + 2/3) / 3 = 0.556.
    """
    rows, relevant = ranks.shape
    out = np.empty((rows, VALUES_PER_CUT * len(cuts) + 2 + levels))
    precision = np.arange(1, relevant + 1, dtype=np.float64) / ranks
    envelope = _later_maximum(precision) if None in cuts or levels else None
    for c, k in enumerate(cuts):
        column = VALUES_PER_CUT * c
        if k is None:
            assert envelope is not None
            out[:, column] = envelope.mean(axis=1)
            out[:, column + 1] = out[:, column + 2] = precision.mean(axis=1)
            out[:, column + 3] = relevant
            continue
        near = min(k, relevant)
        inside = ranks[:, :near] <= k
        part = np.where(inside, precision[:, :near], 0.0)
        hits = inside.sum(axis=1)
        total = part.sum(axis=1)
        out[:, column] = np.where(inside, _later_maximum(part), 0.0).sum(axis=1) / near
        out[:, column + 1] = total / near
        out[:, column + 2] = total / np.maximum(hits, 1)
        out[:, column + 3] = hits
    out[:, -2 - levels] = (ranks <= relevant).sum(axis=1)
    out[:, -1 - levels] = relevant
    if levels and envelope is not None:
        out[:, -levels:] = envelope[:, recall_places(relevant, levels)]
    return out


def values_of_groups(
    above: Ints,
    above_hits: Ints,
    size: Ints,
    hits: Ints,
    cuts: Sequence[int | None],
    levels: int = 0,
    missed: int = 0,
) -> Floats:
    """Values of one query whose relevant photos share scores with irrelevant ones.

    Every group of equal scores is taken in random order. plain, hits, P@k, R-precision and recall@k are
    exact expectations. A hit falls on place i of a group of n photos, r of them relevant, below t0 photos
    with p0 hits, with probability r / n, and then has expected precision

        (p0 + (i - 1)(r - 1)/(n - 1) + 1) / (t0 + i)      (McSherry and Najork, ECIR 2008).

    voc: the same weights, with that expected precision interpolated (largest at this place or later); the
    expectation of the maximum has no closed form, and this rule is at least `plain`, at most 1, and equal
    to the textbook value where nothing is tied. No value depends on the order of the gallery.

    Args:
        above, above_hits, size, hits: int64 [M]: t0, p0, n, r of each group that holds a hit, best first.
        cuts, levels: as in `values_of_ranks`.
        missed: relevant photos that the ranking does not hold: they are never found.
    Returns:
        float64 [4 * len(cuts) + 2 + levels], the same columns as `values_of_ranks`.
    """
    relevant = int(hits.sum()) + missed
    first = np.repeat(np.cumsum(size) - size, size)
    place_in = np.arange(first.size) - first + 1
    n, r, t0, p0 = (np.repeat(x, size).astype(np.float64) for x in (size, hits, above, above_hits))
    place = t0 + place_in
    weight = r / n
    precision = (p0 + (place_in - 1) * (r - 1) / np.maximum(n - 1, 1) + 1) / place
    out: list[float] = []
    for k in cuts:
        inside = place.size if k is None else int(np.searchsorted(place, k, side="right"))
        near = max(1, relevant if k is None else min(k, relevant))
        w, p = weight[:inside], precision[:inside]
        plain = float(w @ p)
        voc = float(w @ _later_maximum(p[None])[0]) if inside else 0.0
        ratio = plain / near
        if k is not None:
            ratio = _expected_ratio(above, above_hits, size, hits, contribution=w * p, k=k)
        out += [voc / near, plain / near, ratio, float(w.sum())]
    out += [float(weight[place <= relevant].sum()), float(relevant)]
    if levels:
        envelope = np.append(_later_maximum(precision[None])[0], 0.0)
        wanted = recall_places(relevant, levels) + 1
        reached = np.minimum(np.searchsorted(np.cumsum(weight) + 1e-9, wanted), max(0, precision.size - 1))
        out += np.where(wanted > relevant - missed, 0.0, envelope[reached]).tolist()
    return np.array(out)


def recall_places(relevant: int, levels: int) -> Ints:
    """Index (from 0) of the hit at which recall reaches each of `levels` values from 0 to 1."""
    reached = np.ceil(np.linspace(0, 1, levels) * relevant - 1e-9).astype(np.int64)
    return np.maximum(reached - 1, 0)


def _later_maximum(precision: Floats) -> Floats:
    """Running maximum from the last column back: float64 [B, R] -> [B, R]."""
    result: Floats = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    return result


def _expected_ratio(
    above: Ints, above_hits: Ints, size: Ints, hits: Ints, contribution: Floats, k: int
) -> float:
    """E[(sum of precisions in the first k) / (hits in the first k)]; only the group across k is random."""
    cut = np.flatnonzero((above < k) & (above + size > k))
    if not cut.size:
        found = int(hits[above < k].sum())
        return float(contribution.sum()) / found if found else 0.0
    g = int(cut[0])
    t0, p0, n, r = (int(x[g]) for x in (above, above_hits, size, hits))
    m = k - t0
    before = float(contribution[: contribution.size - m].sum())
    h = np.arange(max(0, m - (n - r)), min(m, r) + 1)
    place = np.arange(1, m + 1)
    within = (h[:, None] / m) * ((p0 + 1 + (place - 1) * (h[:, None] - 1) / max(m - 1, 1)) / (t0 + place))
    total = np.where(p0 + h > 0, (before + within.sum(axis=1)) / np.maximum(p0 + h, 1), 0.0)
    return float(_hypergeometric(n, r, m, h) @ total)


def _hypergeometric(n: int, r: int, m: int, h: Ints) -> Floats:
    """P(h relevant among m drawn from n that hold r), for each h of its support."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1, dtype=np.float64)))])
    log_p = (
        logs[r] - logs[h] - logs[r - h] + logs[n - r] - logs[m - h] - logs[n - r - m + h]
        + logs[m] + logs[n - m] - logs[n]
    )  # fmt: skip
    p = np.exp(log_p)
    result: Floats = p / p.sum()
    return result
