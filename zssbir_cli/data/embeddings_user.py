"""Embeddings that another program made: .npz, .h5 or .csv, so that the evaluator is useful on its own.

- .npz / .h5: arrays `query` [Q, D], `gallery` [G, D], `query_labels` [Q], `gallery_labels` [G] (numbers or names),
  optional `query_sources`, `gallery_sources`; an .h5 file of `zssbir embed` is read too.
- .csv: one row per image: `set` (query / gallery, or sketch / photo), `label` (a number or a name), optional
  `source`, then one column per dimension.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.data.embeddings import Rows, read_embeddings
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality

ARRAYS = ("query", "gallery", "query_labels", "gallery_labels")
SETS = {"query": 0, "sketch": 0, "gallery": 1, "photo": 1}


@dataclass(frozen=True)
class Pair:
    """Queries and gallery of an evaluation: rows [Q, D] and [G, D], labels int64 into `classes` (-1: none)."""

    query: Rows
    gallery: Rows
    query_labels: npt.NDArray[np.int64]
    gallery_labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    query_sources: tuple[str, ...] = ()
    gallery_sources: tuple[str, ...] = ()


def read_user_embeddings(path: Path) -> Pair:
    """Read queries and gallery from a .npz, .h5 or .csv file (formats: see the module).

    Errors: DataError naming the file and what is missing or wrong; UsageError for another suffix.
    """
    readers = {".npz": _read_npz, ".h5": _read_h5, ".hdf5": _read_h5, ".csv": _read_csv}
    if path.suffix.lower() not in readers:
        raise UsageError(f"--embeddings {path}: expected a .npz, .h5 or .csv file")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        return readers[path.suffix.lower()](path)
    except DataError:
        raise
    except Exception as error:  # zipfile, h5py and numpy raise almost any type on damaged files
        raise DataError(
            f"{path}: damaged or not {path.suffix} ({' '.join(str(error).split())[:160]})"
        ) from None


def _read_npz(path: Path) -> Pair:
    with np.load(path, allow_pickle=False) as file:
        return _from_arrays(path, {name: file[name] for name in file.files})


def _read_h5(path: Path) -> Pair:
    with h5py.File(path, "r") as file:
        if "embedding" not in file:
            arrays = {k: np.asarray(v[()]) for k, v in file.items() if isinstance(v, h5py.Dataset)}
            return _from_arrays(path, arrays)
    own = read_embeddings(path)
    sketch, photo = own.rows_of(Modality.SKETCH), own.rows_of(Modality.PHOTO)
    if not len(sketch) or not len(photo):
        raise DataError(f"{path}: holds {len(sketch)} sketches and {len(photo)} photos; both are needed")
    label, sources = own.label.astype(np.int64), own.sources
    return Pair(
        own.embedding[sketch], own.embedding[photo], label[sketch], label[photo], own.info.classes,
        tuple(sources[i] for i in sketch), tuple(sources[i] for i in photo),
    )  # fmt: skip


def _from_arrays(path: Path, arrays: dict[str, npt.NDArray[np.generic]]) -> Pair:
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{path}: {', '.join(missing)} missing (found {found}); needed are {', '.join(ARRAYS)}"
        )
    rows = []
    for name in ("query", "gallery"):
        if arrays[name].dtype.kind not in "fiu" or arrays[name].ndim != 2:
            raise DataError(
                f"{path}: {name} must be numbers [N, D], not {arrays[name].dtype} {arrays[name].shape}"
            )
        rows.append(arrays[name].astype(np.float32, copy=False))
    q, g, classes = _numbered(path, arrays["query_labels"], arrays["gallery_labels"])
    texts = [tuple(_texts(arrays[n])) if n in arrays else () for n in ("query_sources", "gallery_sources")]
    return Pair(rows[0], rows[1], q, g, classes, *texts)


def _texts(values: npt.NDArray[np.generic]) -> list[str]:
    return [v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values.tolist()]


def _numbered(
    path: Path, query: npt.NDArray[np.generic], gallery: npt.NDArray[np.generic]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Labels as numbers 0 ... C - 1 with their names; integer labels below 0 stay -1 (no label)."""
    if query.ndim != 1 or gallery.ndim != 1:
        raise DataError(f"{path}: labels must be one-dimensional")
    integers = query.dtype.kind in "iu" and gallery.dtype.kind in "iu"
    if not integers and "f" in (query.dtype.kind, gallery.dtype.kind):
        raise DataError(f"{path}: labels must be integers or names, not {query.dtype} / {gallery.dtype}")
    both = query.tolist() + gallery.tolist() if integers else _texts(query) + _texts(gallery)
    names = sorted({x for x in both if isinstance(x, str) or x >= 0})
    number = {name: i for i, name in enumerate(names)}
    ids = np.array([number.get(x, -1) for x in both], np.int64)
    return ids[: len(query)], ids[len(query) :], tuple(str(name) for name in names)


def _read_csv(path: Path) -> Pair:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file)
        header = [name.strip().lower() for name in next(rows, [])]
        if "set" not in header or "label" not in header:
            raise DataError(
                f"{path}: the first line must name the columns `set`, `label` and one per dimension"
            )
        text = [header.index(n) for n in ("set", "label", "source") if n in header]
        numbers = [i for i in range(len(header)) if i not in text]
        parts: tuple[list[list[float]], list[list[float]]] = ([], [])
        labels: tuple[list[str], list[str]] = ([], [])
        sources: tuple[list[str], list[str]] = ([], [])
        for line, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(f"{path}:{line}: {len(row)} columns instead of {len(header)}")
            kind = SETS.get(row[text[0]].strip().lower())
            if kind is None:
                raise DataError(
                    f"{path}:{line}: set is {row[text[0]]!r}; use query / gallery (or sketch / photo)"
                )
            try:
                parts[kind].append([float(row[i]) for i in numbers])
            except ValueError as error:
                raise DataError(f"{path}:{line}: {error}") from None
            labels[kind].append(row[text[1]].strip())
            sources[kind].append(row[text[2]] if len(text) > 2 else "")
    if not parts[0] or not parts[1] or not numbers:
        raise DataError(
            f"{path}: {len(parts[0])} queries, {len(parts[1])} photos of {len(numbers)} dimensions"
        )
    q, g, classes = _numbered(path, np.array(labels[0]), np.array(labels[1]))
    named = [tuple(s) if any(s) else () for s in sources]
    return Pair(np.array(parts[0], np.float32), np.array(parts[1], np.float32), q, g, classes, *named)
