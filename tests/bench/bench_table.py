"""A gallery of generated rows as an embeddings file and as a LanceDB table: size, writing, exact and approximate search.

    python tests/bench/bench_table.py [--photos 1000000] [--width 768] [--index] [--queries 10]

The rows are 1,000 random directions with noise, so that photos have neighbours, as those of real photos have; an index
finds a larger share of them than of rows without any structure.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.data.table import open_table, write_table
from zssbir_cli.retrieval.search import search
from zssbir_cli.types import Modality

INFO = EmbeddingInfo(checkpoint="0" * 64, made="{}", precision="fp32")


def timed(name: str, what: Callable[[], object]) -> None:
    """Print the seconds of a call, and of processor time."""
    wall, used = time.perf_counter(), sum(os.times()[:4])
    what()
    print(
        f"{name:32s} {time.perf_counter() - wall:8.2f} s, {sum(os.times()[:4]) - used:8.2f} s of processor time",
        flush=True,
    )


def size(place: Path) -> float:
    files = [place] if place.is_file() else [p for p in place.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files) / 1e9


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--index", action="store_true")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, options.width), np.float32)

    def near(count: int) -> np.ndarray:
        rows = centres[rng.integers(0, 1000, count)] + rng.standard_normal((count, options.width), np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    with tempfile.TemporaryDirectory() as temporary:
        path, table = Path(temporary) / "g.h5", Path(temporary) / "g.lance"
        blocks = (near(min(8192, options.photos - a)) for a in range(0, options.photos, 8192))
        kind, label = (
            np.full(options.photos, int(Modality.PHOTO), np.uint8),
            np.full(options.photos, -1, np.int32),
        )
        names = [f"{i // 10_000:05d}.tar/{i:010d}.jpg" for i in range(options.photos)]
        timed("writing the file", lambda: write_embeddings(path, blocks, label, kind, names, INFO))
        timed("opening it, rows checked", lambda: read_embeddings(path))
        stored = read_embeddings(path, check_rows=False)
        timed("writing the table", lambda: write_table(str(table), [stored], INFO))
        print(f"file {size(path):.2f} GB, table {size(table):.2f} GB")
        queries = near(options.queries)
        right = search(torch.from_numpy(queries), stored.embedding, 20)
        found = open_table(str(table))
        wall = []
        for i in range(options.queries):
            begin = time.perf_counter()
            search(torch.from_numpy(queries[i : i + 1]), stored.embedding, 20)
            middle = time.perf_counter()
            picked = found.pick(queries[i : i + 1], 20)
            again = search(torch.from_numpy(queries[i : i + 1]), picked.embedding, 20)
            wall.append((middle - begin, time.perf_counter() - middle))
            assert [picked.sources[j] for j in again.rows[0]] == [stored.sources[j] for j in right.rows[i]]
        file, mine = (median(w) for w in zip(*wall, strict=True))
        print(f"exact, one query: file {file:.3f} s, table {mine:.3f} s", flush=True)
        if options.index:
            timed("making the index", lambda: write_table(str(table), [stored], INFO, index=True))
            found, wall, hits = open_table(str(table)), [], 0
            for i in range(options.queries):
                begin = time.perf_counter()
                picked = found.pick(queries[i : i + 1], 20, approximate=True)
                wall.append((time.perf_counter() - begin, 0.0))
                hits += len({stored.sources[j] for j in right.rows[i]}.intersection(picked.sources))
            print(
                f"approximate, one query: {median(w for w, _ in wall):.3f} s, {hits / options.queries / 20:.1%} of the exact 20"
            )


if __name__ == "__main__":
    main()
