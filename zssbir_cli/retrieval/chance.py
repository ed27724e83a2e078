"""What every measure is worth when the gallery is in random order."""

from dataclasses import replace

import numpy as np

from zssbir_cli.arrays import Floats
from zssbir_cli.retrieval.metrics import Metrics
from zssbir_cli.retrieval.precision import VALUES_PER_CUT, values_of_groups, values_of_ranks

DRAWS = 2000
"""Random orders in all at most, for what has no closed form."""
LEAST_DRAWS = 20
"""Of each number of relevant photos."""
MOST_PLACES = 4_000_000
"""Places of relevant photos that are drawn at a time. The more there are in an order, the less orders differ: fewer draws
are then as sure (a standard error below 0.01 %)."""


def chance_of(metrics: Metrics) -> Metrics:
    """The same evaluation of a ranking in random order: each query has its expected values.

    plain, hits, trec, P@k, recall@k and R-precision are exact: a gallery of equal scores is one group of
    `precision.values_of_groups` (for AP without a cut: Bestgen, Computational Linguistics 2015). voc, a maximum over later
    places, has no closed form: how far it lies above plain is the mean over `DRAWS` random orders, always the same.
    """
    gallery, cuts = metrics.gallery, (None, *metrics.k)
    rng = np.random.default_rng(0)
    values = np.full((len(metrics.query_labels), VALUES_PER_CUT * len(cuts) + 2), np.nan)
    curve = np.full_like(metrics.curve, np.nan)
    counts = np.unique(metrics.relevant[metrics.counted])
    draws = max(LEAST_DRAWS, DRAWS // len(counts))
    for relevant in counts.tolist():
        mine = metrics.relevant == relevant
        values[mine] = _expected(gallery, relevant, cuts, draws, rng)
        curve[mine] = relevant / gallery
    return replace(metrics, notes=(), curve=curve, _values=values)


def _expected(
    gallery: int, relevant: int, cuts: tuple[int | None, ...], draws: int, rng: np.random.Generator
) -> Floats:
    group = np.zeros(1, np.int64), np.zeros(1, np.int64), np.array([gallery]), np.array([relevant])
    values = values_of_groups(*group, cuts)
    draws = min(draws, max(1, MOST_PLACES // relevant))
    orders = [rng.choice(gallery, relevant, replace=False, shuffle=False) for _ in range(draws)]
    drawn = values_of_ranks(np.sort(np.stack(orders), axis=1) + 1, cuts).mean(axis=0)
    columns = VALUES_PER_CUT * np.arange(len(cuts))  # those of voc
    values[columns] = values[columns + 1] + (drawn[columns] - drawn[columns + 1])  # plain is known exactly
    return values
