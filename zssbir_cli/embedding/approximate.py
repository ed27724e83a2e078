"""An approximate index for galleries of many millions, by faiss (extra `faiss`); its recall is always measured."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from zssbir_cli.data.embeddings import Embeddings, Rows
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval.search import Neighbours, search

TRAIN_ROWS_PER_LIST = 64


def approximate_search(stored: Embeddings, rows: Rows, queries: Tensor, k: int) -> tuple[Neighbours, float]:
    """Nearest photos by an inverted-file index of faiss, and its recall@k against exact search of the same queries.

    The index is kept beside the embeddings file and reused while that file stays the same.
    Errors: UsageError when faiss is not installed; DataError when the index cannot be written.
    """
    try:
        import faiss
    except ImportError:
        raise UsageError("--approximate needs faiss: install it with `pip install 'zssbir[faiss]'`") from None
    assert stored.path is not None
    index = _open_index(faiss, stored, rows)
    unit = (queries / queries.norm(dim=1, keepdim=True)).float().numpy()
    k = min(k, len(rows))
    scores, found = index.search(unit, k)
    exact = search(queries, rows, k)
    recall = float(
        np.mean([len(set(a) & set(b)) / k for a, b in zip(found.tolist(), exact.rows.tolist(), strict=True)])
    )
    return Neighbours(np.where(found < 0, 0, found).astype(np.int64), scores.astype(np.float32)), recall


def _open_index(faiss: Any, stored: Embeddings, rows: Rows) -> Any:
    assert stored.path is not None
    status = stored.path.stat()
    tag = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns} {len(rows)}".encode()).hexdigest()[:12]
    path = stored.path.with_name(f"{stored.path.stem}.{tag}.faiss")
    if path.exists():
        return faiss.read_index(str(path))
    index = build_index(faiss, rows)
    partial = Path(f"{path}.partial")
    try:
        faiss.write_index(index, str(partial))
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        partial.unlink(missing_ok=True)
        raise DataError(f"{path}: cannot write the index ({error})") from error
    return index


def build_index(faiss: Any, rows: Rows) -> Any:
    """An IVF index with 8-bit codes over rows [N, D] (inner product); probes a sixteenth of its lists."""
    lists = max(1, min(4096, round(4 * len(rows) ** 0.5), len(rows) // 40))
    width = rows.shape[1]
    quantizer = faiss.IndexFlatIP(width)
    index = faiss.IndexIVFScalarQuantizer(
        quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    step = max(1, len(rows) // (lists * TRAIN_ROWS_PER_LIST))
    index.train(np.ascontiguousarray(rows[::step], np.float32))
    for a in range(0, len(rows), 65536):
        index.add(np.ascontiguousarray(rows[a : a + 65536], np.float32))
    index.nprobe = max(1, lists // 16)
    return index
