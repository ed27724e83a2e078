"""Exact search in a large memory-mapped gallery, against bare torch and faiss's flat index.

    python tests/bench/bench_search.py [--rows 1000000] [--dim 768] [--dtype float32] [--folder /tmp]

One query against `matvec + topk` of torch on the same rows in the same run; 64 queries at once in milliseconds
each, against faiss's flat index (if installed). Medians; ratios are what to trust. Needs 4 GB of disk and 7 GB of
memory at the default size (half with float16; faiss copies the rows).
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from zssbir_cli.compute.precision import Precision
from zssbir_cli.retrieval.search import search


def median(repeat: int, *functions: Callable[[], object]) -> list[float]:
    """Interleaved medians in milliseconds, so that a noisy machine treats all alike."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeat):
        for function, out in zip(functions, times, strict=True):
            start = time.perf_counter()
            function()
            out.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(t) for t in times]


def make(path: Path, rows: int, dim: int, dtype: str) -> np.memmap:
    """A file of unit rows with 1,000 loose clusters, and a memory map of it."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, dim), dtype=np.float32)
    if not path.exists() or path.stat().st_size != rows * dim * np.dtype(dtype).itemsize:
        out = np.memmap(path, dtype, "w+", 0, (rows, dim))
        for a in range(0, rows, 50_000):
            n = min(50_000, rows - a)
            block = centres[rng.integers(0, 1000, n)] + rng.standard_normal((n, dim), dtype=np.float32)
            out[a : a + n] = block / np.linalg.norm(block, axis=1, keepdims=True)
        out.flush()
    return np.memmap(path, dtype, "r", 0, (rows, dim))


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--no-faiss", action="store_true")
    args = parser.parse_args()
    gallery = make(
        args.folder / f"search-{args.rows}-{args.dim}-{args.dtype}.bin", args.rows, args.dim, args.dtype
    )
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((64, args.dim)) * 0.5 / args.dim**0.5
    queries = torch.from_numpy((gallery[:: args.rows // 64][:64] + noise).astype(np.float32))
    unit = torch.nn.functional.normalize(queries)
    in_memory = torch.from_numpy(np.array(gallery))
    bare = in_memory.float() if args.dtype == "float32" else in_memory

    products = Precision.choose("auto", torch.device("cpu")).dtype

    def plain() -> torch.Tensor:
        return torch.topk(bare.float() @ unit[0], 20).indices

    def ours_one() -> np.ndarray:
        return search(queries[:1], gallery, 20).rows

    def ours_many() -> np.ndarray:
        return search(queries, gallery, 20, products=products).rows

    ours_one()
    assert ours_one()[0].tolist() == plain().tolist(), "the two searches disagree"
    print(
        f"{args.rows:,} x {args.dim} {args.dtype}, {torch.get_num_threads()} threads; milliseconds per query"
    )
    reference, one = median(args.repeat, plain, ours_one)
    print(f"torch matvec + topk (in memory) {reference:8.1f}")
    print(f"search, 1 query                 {one:8.1f}   {one / reference:.2f} x")
    functions: list[Callable[[], object]] = [ours_many]
    if not args.no_faiss:
        import faiss

        faiss.omp_set_num_threads(torch.get_num_threads())
        flat = faiss.IndexFlatIP(args.dim)
        for a in range(0, args.rows, 100_000):
            flat.add(np.asarray(gallery[a : a + 100_000], np.float32))
        functions.append(lambda: flat.search(unit.numpy(), 20))
        same = flat.search(unit.numpy(), 20)[1] == ours_many()
        print(f"results equal to faiss flat: {same.mean():.4f} of places (the rest: rounding of near ties)")
    many = [t / 64 for t in median(max(1, args.repeat // 2), *functions)]
    print(
        f"search, 64 queries              {many[0]:8.2f}   (scan in {str(products).removeprefix('torch.')})"
    )
    if len(many) > 1:
        print(f"faiss flat, 64 queries          {many[1]:8.2f}   {many[1] / many[0]:.1f} x ours")


if __name__ == "__main__":
    main()
