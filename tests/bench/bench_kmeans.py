"""k-means of 60,000 x 768 unit features against scikit-learn and a tuned faiss, in one run.

    pip install faiss-cpu scikit-learn
    python tests/bench/bench_kmeans.py [--rows 60000] [--k 250 500 1000] [--repeats 3]

The features are a mixture with more modes than clusters (100 groups, 1,500 modes, noise). Everyone gets the
same features, one start and at most 20 passes; scikit-learn its default tolerance; faiss all points, spherical,
and BLAS kernels for this processor (OPENBLAS_CORETYPE=SkylakeX where it has AVX-512: the wheel's choice is a
generic one).
Objectives are computed in one way for all: from the labels, 2 (N - sum_k |sum of the rows of cluster k|).
Times are medians of interleaved repeats; the ratio per pass compares runs of 20 passes, seeding and all.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if "OPENBLAS_CORETYPE" not in os.environ and "avx512f" in Path("/proc/cpuinfo").read_text():
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OPENBLAS_CORETYPE": "SkylakeX"})

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans

from zssbir_cli.retrieval.kmeans import kmeans


def mixture(rows: int, dim: int = 768, groups: int = 100, modes: int = 1500) -> torch.Tensor:
    """Unit float32 features with structure at several scales."""
    g = torch.Generator().manual_seed(0)

    def noise(n: int) -> torch.Tensor:
        return F.normalize(torch.randn(n, dim, generator=g), dim=1)

    coarse = noise(groups)
    fine = F.normalize(coarse[torch.randint(groups, (modes,), generator=g)] + 0.8 * noise(modes), dim=1)
    return F.normalize(fine[torch.randint(modes, (rows,), generator=g)] + 1.2 * noise(rows), dim=1)


def objective(x: torch.Tensor, labels: torch.Tensor, k: int) -> float:
    """Sum of squared distances to the unit mean of the row's cluster."""
    sums = torch.zeros(k, x.shape[1]).index_add_(0, labels, x)
    return 2 * (len(x) - float(sums.norm(dim=1).sum()))


def main() -> None:
    """Time all three, print times, passes, objectives and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=60000)
    parser.add_argument("--k", type=int, nargs="+", default=[250, 500, 1000])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    x = mixture(options.rows)
    array = x.numpy()
    print(f"{options.rows} x 768, {torch.get_num_threads()} threads, medians of {options.repeats}")
    for k in options.k:
        compare(x, array, k, options.repeats)


def compare(x: torch.Tensor, array: np.ndarray, k: int, repeats: int) -> None:
    """One K: three contestants, interleaved."""

    def ours(seed: int) -> tuple[torch.Tensor, int]:
        result = kmeans(x, k, generator=torch.Generator().manual_seed(seed))
        return result.labels, result.iterations

    def ours_in_full(seed: int) -> tuple[torch.Tensor, int]:
        result = kmeans(x, k, generator=torch.Generator().manual_seed(seed), tolerance=-1.0)
        return result.labels, result.iterations

    def sklearn(seed: int) -> tuple[torch.Tensor, int]:
        model = KMeans(k, init="random", n_init=1, max_iter=20, random_state=seed).fit(array)
        return torch.from_numpy(model.labels_).long(), model.n_iter_

    def tuned_faiss(seed: int) -> tuple[torch.Tensor, int]:
        model = faiss.Kmeans(
            768, k, niter=20, nredo=1, spherical=True, seed=seed + 1, max_points_per_centroid=10**9
        )
        model.train(array)
        return torch.from_numpy(model.index.search(array, 1)[1][:, 0]), 21  # 20 passes and the assignment

    contestants: dict[str, Callable[[int], tuple[torch.Tensor, int]]] = {
        "ours": ours, "ours, 20 passes": ours_in_full, "scikit-learn": sklearn, "faiss": tuned_faiss,
    }  # fmt: skip
    times: dict[str, list[float]] = {n: [] for n in contestants}
    passes: dict[str, list[float]] = {n: [] for n in contestants}
    values: dict[str, list[float]] = {n: [] for n in contestants}
    for seed in range(repeats):
        for name, run in contestants.items():
            start = time.perf_counter()
            labels, count = run(seed)
            times[name].append(time.perf_counter() - start)
            passes[name].append(times[name][-1] / count)
            values[name].append(objective(x, labels, k))
    best, each = statistics.median(times["ours"]), statistics.median(passes["ours, 20 passes"])
    reference = min(statistics.median(values[n]) for n in ("scikit-learn", "faiss"))
    for name in contestants:
        total, single, value = (statistics.median(d[name]) for d in (times, passes, values))
        print(
            f"K={k:5d} {name:15s} {total:7.2f} s ({total / best:4.1f}x)  per pass {single * 1000:6.0f} ms "
            f"({single / each:4.1f}x)  objective {value:9.1f} ({100 * (value / reference - 1):+.2f} % of "
            f"the better peer)",
            flush=True,
        )


if __name__ == "__main__":
    main()
