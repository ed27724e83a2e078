"""Intervals of means: their coverage, by simulation."""

import numpy as np
import pytest

from zssbir_cli.evaluation.bootstrap import intervals, paired_difference, resampled_means

QUERIES, TRIALS = 5, 1000


@pytest.mark.parametrize("classes", [8, 12, 30])
def test_the_interval_over_classes_covers_what_it_says(classes: int) -> None:
    """1,000 draws of classes whose means spread by 0.15 about 0.5, evaluated as the columns of one table."""
    rng = np.random.default_rng(classes)
    means = 0.5 + 0.15 * rng.standard_normal((classes, TRIALS))
    values = np.repeat(means, QUERIES, axis=0) + 0.1 * rng.standard_normal((classes * QUERIES, TRIALS))
    labels = np.repeat(np.arange(classes), QUERIES)
    found = intervals(values, labels)
    covered = np.mean([i.low <= 0.5 <= i.high for i in found])
    assert 0.925 <= covered <= 0.975
    low, high = np.quantile(resampled_means(values, labels), [0.025, 0.975], axis=0)
    bare = np.mean((low <= 0.5) & (high >= 0.5))
    assert bare < covered


def test_intervals_end_where_means_do() -> None:
    values = np.array([[1.0], [1.0], [0.4], [0.6]])
    wide = intervals(values, np.array([0, 0, 1, 1]))[0]
    assert (wide.low, wide.high) == (0, 1)
    gains = intervals(values - 0.8, np.array([0, 0, 1, 1]))[0]
    assert -1 <= gains.low < 0 < gains.high <= 1


def test_one_class_says_nothing_of_others() -> None:
    """A confidence interval without width would claim certainty."""
    values, one = np.array([[0.4, 0.1], [0.6, 0.3]]), np.zeros(2, np.int64)
    assert [(i.low, i.high) for i in intervals(values, one)] == [(0, 1), (0, 1)]
    gain = paired_difference(values[:, 1], values[:, 0], one, resamples=10)
    assert gain.over_classes.high == 1
    assert gain.over_classes.low <= 0 < gain.over_queries.high < 1


def test_many_queries_are_not_widened() -> None:
    values = np.random.default_rng(0).random((5000, 1))
    found = intervals(values, None)[0]
    low, high = np.quantile(resampled_means(values, None), [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5))
