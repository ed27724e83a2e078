"""Embeddings and rankings brought down to what a figure shows."""

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats


def pca(rows: npt.NDArray[np.floating]) -> tuple[Floats, float]:
    """First two principal components of rows [N, D], float64 [N, 2], and their share of the variance, 0-1."""
    x = np.asarray(rows, np.float64)
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    return u[:, :2] * s[:2], float((s[:2] ** 2).sum() / max((s**2).sum(), 1e-30))


def confusion(rows_of_top: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], classes: int) -> Floats:
    """Share of each class among the first k photos of queries of each class.

    rows_of_top: int [Q, k], labels of the photos found; labels: int [Q] of the queries, both in 0 ... classes - 1.
    Returns float64 [classes, classes]; rows sum to 1 (to 0 for a class without queries).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.repeat(labels, rows_of_top.shape[1]), rows_of_top.ravel()), 1)
    result: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return result
