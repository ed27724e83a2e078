"""Exact evaluation at full benchmark scale, against the bare matrix product and other evaluators.

    python tests/bench/bench_eval.py [--set sketchy-25 ...] [--repeat 3] [--sample 100] [--dim 768]

The floor is the fp32 product queries x gallery.T in blocks of 2,048 rows, which computes scores and nothing else.
All contenders run on the same class-structured embeddings in one process, interleaved; medians, ratios to the floor.
The published per-query loops (re-implemented here from their papers' programs) and torchmetrics run on `--sample`
queries and are extrapolated linearly in the number of queries, which favours none: their cost is per query.
`peak` is the growth of the process's resident memory above the inputs while `evaluate` runs.
"""

import argparse
import resource
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from zssbir_cli.retrieval.metrics import evaluate

SETS = {
    "sketchy-25": (15_229, 17_101, 25),
    "sketchy-21": (12_694, 12_553, 21),
    "tuberlin-30": (2_400, 27_989, 30),
    "quickdraw-30": (92_291, 54_151, 30),
}


def make(
    queries: int, gallery: int, classes: int, dim: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings with loose classes (mAP about 0.3 to 0.5) and class sizes that differ by a factor of 3."""
    rng = np.random.default_rng(0)
    share = rng.uniform(1, 3, classes)
    centres = 0.2 * rng.standard_normal((classes, dim), dtype=np.float32)
    lq = rng.integers(0, classes, queries)
    lg = rng.choice(classes, gallery, p=share / share.sum())
    q = centres[lq] + rng.standard_normal((queries, dim), dtype=np.float32)
    g = centres[lg] + rng.standard_normal((gallery, dim), dtype=np.float32)
    return q, g, lq, lg


def floor(q: torch.Tensor, g: torch.Tensor) -> None:
    """The bare product."""
    for a in range(0, len(q), 2048):
        q[a : a + 2048] @ g.T


def ama_loop(scores: np.ndarray, lq: np.ndarray, lg: np.ndarray) -> float:
    """argsort of all scores, then a Python loop with VOC interpolation over each ranking (as published)."""
    values = []
    for row, label in zip(scores, lq, strict=True):
        order = np.argsort(-row)
        relevant = lg[order] == label
        hits = np.cumsum(relevant)
        recall, precision = hits / max(1, hits[-1]), hits / np.arange(1, len(row) + 1)
        mrec, mpre = np.concatenate([[0], recall, [1]]), np.concatenate([[0], precision, [0]])
        for i in range(len(mpre) - 1, 0, -1):
            mpre[i - 1] = max(mpre[i - 1], mpre[i])
        steps = np.where(mrec[1:] != mrec[:-1])[0]
        values.append(float(((mrec[steps + 1] - mrec[steps]) * mpre[steps + 1]).sum()))
    return float(np.mean(values))


def torchmetrics_loop(scores: torch.Tensor, lq: np.ndarray, lg: np.ndarray) -> float:
    """torchmetrics' average precision of one query after another (as published)."""
    from torchmetrics.functional.retrieval import retrieval_average_precision

    labels = torch.from_numpy(lg)
    values = [
        float(retrieval_average_precision(row + 2, labels == int(c))) + float(
            retrieval_average_precision(row + 2, labels == int(c), top_k=200))
        for row, c in zip(scores, lq, strict=True)
    ]  # fmt: skip
    return float(np.mean(values))


def metric_learning(q: np.ndarray, g: np.ndarray, lq: np.ndarray, lg: np.ndarray) -> float:
    """pytorch-metric-learning's MAP with its own exact nearest neighbours."""
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    calculator = AccuracyCalculator(
        include=("mean_average_precision",), k=None, device=torch.device("cpu"),
        knn_func=CustomKNN(CosineSimilarity(), batch_size=256),
    )  # fmt: skip
    arrays = (torch.from_numpy(q), torch.from_numpy(lq), torch.from_numpy(g), torch.from_numpy(lg))
    return float(calculator.get_accuracy(*arrays)["mean_average_precision"])


def timed(function: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


class Peak:
    """Largest resident memory while a block runs, in MB above its start."""

    def __enter__(self) -> "Peak":
        self.start = self.most = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            self.most = max(self.most, _resident())

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def megabytes(self) -> float:
        """Growth in MB."""
        return (self.most - self.start) / 1e6


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Run the comparison and print Markdown tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="*", default=["sketchy-25", "tuberlin-30"], choices=list(SETS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--sample", type=int, default=100, help="queries of the per-query loops; 0: leave them out"
    )
    parser.add_argument("--dim", type=int, default=768)
    args = parser.parse_args()
    for name in args.set:
        bench(name, args.repeat, args.sample, args.dim)


def bench(name: str, repeat: int, sample: int, dim: int) -> None:
    """One data set's table."""
    queries, gallery, classes = SETS[name]
    q, g, lq, lg = make(queries, gallery, classes, dim)
    unit_q = torch.nn.functional.normalize(torch.from_numpy(q))
    unit_g = torch.nn.functional.normalize(torch.from_numpy(g))
    times: dict[str, list[float]] = {"bare product (floor)": [], "evaluate": []}
    peak = 0.0
    for turn in range(repeat):
        times["bare product (floor)"].append(timed(lambda: floor(unit_q, unit_g)))
        with Peak() as watched:
            start = time.perf_counter()
            exact = evaluate(q, g, lq, lg)
            times["evaluate"].append(time.perf_counter() - start)
        peak = watched.megabytes if turn == 0 else peak
    base = statistics.median(times["bare product (floor)"])
    print(
        f"\n{name}: {queries:,} x {gallery:,}, {classes} classes, {dim} dimensions, {torch.get_num_threads()} threads"
    )
    print(
        f"mAP@all {exact.get('mAP@all'):.4f} voc, {exact.get('mAP@all', 'plain'):.4f} plain; peak {peak:.0f} MB"
    )
    print("\n| | seconds | x floor |\n|---|---|---|")
    for label, values in times.items():
        middle = statistics.median(values)
        print(f"| {label} | {middle:.2f} | {middle / base:.2f} |")
    chosen = np.random.default_rng(1).permutation(queries)[:sample]
    scores = unit_q[chosen] @ unit_g.T
    contenders: list[tuple[str, Callable[[], object], float]] = []
    if sample:
        scale = queries / sample
        contenders.append(
            ("argsort + Python VOC loop", lambda: ama_loop(scores.numpy(), lq[chosen], lg), scale)
        )
        contenders.append(
            ("torchmetrics per query", lambda: torchmetrics_loop(scores, lq[chosen], lg), scale)
        )
        if queries < 20_000:
            contenders.append(("pytorch-metric-learning", lambda: metric_learning(q, g, lq, lg), 1.0))
    for label, function, scale in contenders:
        try:
            seconds = timed(function) * scale + (base if scale > 1 else 0)
        except ImportError as error:
            print(f"| {label} | not installed ({error.name}) | |")
            continue
        note = f" (from {sample} queries)" if scale > 1 else ""
        print(f"| {label}{note} | {seconds:,.0f} | {seconds / base:,.0f} |")


if __name__ == "__main__":
    main()
