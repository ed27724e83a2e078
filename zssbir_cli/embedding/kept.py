"""Rows of a gallery that is renewed: those of the older file as they lie there, new ones in between."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.data.embeddings import Embeddings, Rows, read_embeddings
from zssbir_cli.data.hdf5 import Summed, row_sums
from zssbir_cli.errors import DataError

BLOCK = 4096
"""Rows gathered at a time."""
TOGETHER = 256
"""So many rows that lie one behind the other in the older file are written from where they lie."""


def of_renamed_folder(path: Path, names: Sequence[str]) -> Embeddings | None:
    """The embeddings of a folder that is not there any more, beside `path`, the file of a folder with the photos `names`.

    They are those of the same folder before it was renamed or moved when they know at least half of the names; of several,
    those that know most. None when there are none.
    """
    wanted = set(names)
    best, most = None, (len(wanted) + 1) // 2
    for file in sorted(path.parent.glob(path.name.partition("-folder-")[0] + "-folder-*.h5")):
        try:
            old = read_embeddings(file, check_rows=False)
        except DataError:
            continue
        known = len(wanted.intersection(old.sources))
        if known >= most and not Path(old.info.data_root).is_dir():
            best, most = old, known
    return best


def rows_in_order(
    old: Embeddings | None, source: Ints, fresh: Callable[[int], Rows], dtype: type[np.floating]
) -> Iterator[Rows | Summed]:
    """Blocks of the rows of a new file, for `write_embeddings`.

    Args:
        old: the older file; its rows keep the checksums that they have there, unless they are stored as another `dtype`.
        source: int64 [N], for each row of the new file its row in `old`, or -1.
        fresh: the row [D] of a place in `source` that has none in `old`.
    """
    keeps = old is not None and old.embedding.dtype == dtype
    for a, b, together in _spans(source):
        if old is not None and keeps and together:
            rows = slice(int(source[a]), int(source[a]) + b - a)
            yield Summed(old.embedding[rows], old.checksum[rows])
            continue
        for start in range(a, b, BLOCK):
            part = source[start : min(start + BLOCK, b)]
            kept = part >= 0
            new = [fresh(start + int(i)) for i in np.flatnonzero(~kept)]
            block = np.empty((len(part), old.embedding.shape[1] if old is not None else len(new[0])), dtype)
            if new:
                block[~kept] = new
            if old is not None:
                block[kept] = old.embedding[part[kept]]
            if old is not None and keeps:
                sums = row_sums(block)
                sums[kept] = old.checksum[part[kept]]
                yield Summed(block, sums)
            else:
                yield block


def _spans(source: Ints) -> Iterator[tuple[int, int, bool]]:
    """First and last place (exclusive) of each stretch of `source`, and whether its rows lie together in the older file."""
    apart = (np.diff(source) != 1) | (source[:-1] < 0)
    edges = [0, *(np.flatnonzero(apart) + 1).tolist(), len(source)]
    done = 0
    for a, b in pairwise(edges):
        if b - a >= TOGETHER and source[a] >= 0:
            if done < a:
                yield done, a, False
            yield a, b, True
            done = b
    if done < len(source):
        yield done, len(source), False
