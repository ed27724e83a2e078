"""Embeddings and rankings brought down to what a figure shows."""

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats

SPARE, ROUNDS = 16, 12
"""Directions that are followed, of which two are kept, and how often."""


def pca(rows: npt.NDArray[np.floating]) -> tuple[Floats, float]:
    """First two principal components of rows [N, D], float64 [N, 2], and their share of the variance, 0-1."""
    x = np.asarray(rows, np.float64)
    x = x - x.mean(axis=0)
    # a few directions, turned towards the widest ones by each product: a tenth of the time of a full decomposition
    basis = np.random.default_rng(0).standard_normal((x.shape[1], min(*x.shape, SPARE)))
    for _ in range(ROUNDS):
        basis = np.linalg.qr(x.T @ (x @ basis))[0]
    u, s, _ = np.linalg.svd(x @ basis, full_matrices=False)
    points = np.zeros((len(x), 2))
    points[:, : len(s)] = (u * s)[:, :2]
    return points, float((s[:2] ** 2).sum() / max((x**2).sum(), 1e-30))


def confusion(rows_of_top: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], classes: int) -> Floats:
    """Share of each class among the first k photos of queries of each class.

    rows_of_top: int [Q, k], labels of the photos found; labels: int [Q] of the queries, both in 0 ... classes - 1.
    Returns float64 [classes, classes]; rows sum to 1 (to 0 for a class without queries).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.repeat(labels, rows_of_top.shape[1]), rows_of_top.ravel()), 1)
    result: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return result
