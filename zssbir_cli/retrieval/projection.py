"""Two-dimensional maps of embeddings: t-SNE for a few hundred points, started from PCA."""

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats


def pca(rows: npt.NDArray[np.floating]) -> Floats:
    """First two principal components of rows [N, D]: float64 [N, 2]."""
    x = np.asarray(rows, np.float64)
    x = x - x.mean(axis=0)
    values, vectors = np.linalg.eigh(x.T @ x)
    result: Floats = x @ vectors[:, np.argsort(-values)[:2]]
    return result


def tsne(rows: npt.NDArray[np.floating], perplexity: float = 30, steps: int = 400) -> Floats:
    """Exact t-SNE (van der Maaten and Hinton 2008) of unit rows [N, D], N up to about 1,000: float64 [N, 2].

    Deterministic: it starts from PCA. Memory and time per step grow with N squared. Fewer than 8 points: PCA.
    """
    count = len(rows)
    start = pca(rows)
    if count < 8:
        return start
    affinity = _affinities(np.asarray(rows, np.float64), min(perplexity, (count - 1) / 3))
    y = start / (start.std() + 1e-12) * 1e-4
    velocity, gain = np.zeros_like(y), np.ones_like(y)
    rate = max(count / 12, 50.0)
    for step in range(steps):
        early = step < steps // 4
        square = (y**2).sum(axis=1)
        weight = 1 / (1 + np.maximum(square[:, None] + square[None] - 2 * y @ y.T, 0))
        np.fill_diagonal(weight, 0)
        force = ((12 if early else 1) * affinity - weight / weight.sum()) * weight
        gradient = 4 * (force.sum(axis=1)[:, None] * y - force @ y)
        gain = np.maximum(np.where(np.sign(gradient) != np.sign(velocity), gain + 0.2, gain * 0.8), 0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gain * gradient
        y = y + velocity
        y -= y.mean(axis=0)
    result: Floats = y
    return result


def _affinities(rows: Floats, perplexity: float) -> Floats:
    """Symmetric neighbour probabilities [N, N] whose rows have the wanted perplexity (bisection on the width)."""
    square = (rows**2).sum(axis=1)
    distance = np.maximum(square[:, None] + square[None] - 2 * rows @ rows.T, 0)
    np.fill_diagonal(distance, np.inf)
    distance -= distance.min(axis=1, keepdims=True)
    low, high = np.full(len(rows), 1e-6), np.full(len(rows), 1e6)
    p = np.zeros_like(distance)
    for _ in range(50):
        beta = np.sqrt(low * high)
        p = np.exp(-distance * beta[:, None])
        p /= p.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
        wide = entropy > np.log(perplexity)
        low, high = np.where(wide, beta, low), np.where(wide, high, beta)
    joint = p + p.T
    result: Floats = joint / joint.sum()
    return result


def confusion(rows_of_top: npt.NDArray[np.integer], labels: npt.NDArray[np.integer], classes: int) -> Floats:
    """Share of each class among the first k photos of queries of each class.

    rows_of_top: int [Q, k], labels of the photos found; labels: int [Q] of the queries, both in 0 ... classes - 1.
    Returns float64 [classes, classes]; rows sum to 1 (to 0 for a class without queries).
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (np.repeat(labels, rows_of_top.shape[1]), rows_of_top.ravel()), 1)
    result: Floats = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return result
