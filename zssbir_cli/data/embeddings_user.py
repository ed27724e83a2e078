"""Embeddings that another program made: .npz, .h5 or .csv, so that the evaluator is useful on its own.

- .npz / .h5: arrays `query` [Q, D], `gallery` [G, D], `query_labels` [Q], `gallery_labels` [G] (numbers or names),
  optional `query_sources`, `gallery_sources`; an .h5 file of `zssbir embed` is read too.
- .csv: one row per image: `set` (query / gallery, or sketch / photo), `label` (a number or a name), optional
  `source`, then one column per dimension.

A negative number or an empty name is no label.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from zssbir_cli.data.embeddings import EmbeddingInfo, Rows, read_embeddings
from zssbir_cli.data.hdf5 import try_foreign
from zssbir_cli.data.seal import check_seal
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import decoded, reason
from zssbir_cli.names import counted, listed, same_class, side_by_side
from zssbir_cli.types import ROWS_FILES, Modality

ARRAYS = ("query", "gallery", "query_labels", "gallery_labels")
OPTIONAL = ("query_sources", "gallery_sources")
Array = npt.NDArray[Any]
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
    note: str = ""
    """What the user should know of how the file was read."""


def read_user_embeddings(path: Path) -> Pair:
    """Read queries and gallery from a .npz, .h5 or .csv file (formats: see the module).

    Errors: DataError naming the file and what is missing or wrong; UsageError for another suffix.
    """
    readers = dict(zip(ROWS_FILES, (_read_npz, _read_h5, _read_h5, _read_csv), strict=True))
    if path.suffix.lower() not in readers:
        raise UsageError(
            f"--embeddings {path}: expected a .npz, .h5 or .csv file; from NumPy arrays: np.savez('FILE.npz', "
            f"{', '.join(f'{name}=...' for name in ARRAYS)})"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with np.errstate(over="ignore"):  # rows beyond float32 are refused by name
            return readers[path.suffix.lower()](path)
    except DataError:
        raise
    except Exception as error:  # zipfile, h5py and numpy raise almost any type on damaged files
        raise DataError(f"{path}: damaged or not {path.suffix} ({reason(error)})") from None


def _read_npz(path: Path) -> Pair:
    with np.load(path, allow_pickle=False) as file:
        wanted = [name for name in file.files if name in ARRAYS + OPTIONAL]
        arrays = {name: _plain(path, name, file) for name in wanted}
        return _from_arrays(path, arrays, file.files)


def _plain(path: Path, name: str, file: Mapping[str, Array]) -> Array:
    """One array of an .npz file, unless it holds Python objects: those are pickled, and could run code."""
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        kind = "np.float32" if name in ("query", "gallery") else "str"
    raise DataError(
        f"{path}: {name} is an array of Python objects, which is not read; save it as np.array({name}, dtype={kind})"
    )


def _read_h5(path: Path) -> Pair:
    if not check_seal(path):
        try_foreign(path, ARRAYS + OPTIONAL)
    with h5py.File(path, "r", locking=False) as file:
        if "embedding" not in file:
            wanted = [name for name in ARRAYS + OPTIONAL if isinstance(file.get(name), h5py.Dataset)]
            return _from_arrays(path, {name: np.asarray(file[name][()]) for name in wanted}, list(file))
    own = read_embeddings(path)
    sketch, photo = own.rows_of(Modality.SKETCH), own.rows_of(Modality.PHOTO)
    if not len(sketch) or not len(photo):
        raise DataError(f"{path}: holds {len(sketch)} sketches and {len(photo)} photos; both are needed")
    label, sources = own.label.astype(np.int64), own.sources
    return Pair(
        own.embedding[sketch], own.embedding[photo], label[sketch], label[photo], own.info.classes,
        tuple(sources[i] for i in sketch), tuple(sources[i] for i in photo), _told(own.info),
    )  # fmt: skip


def _told(info: EmbeddingInfo) -> str:
    """What to say of a file of `zssbir embed`: whose it is, and what an evaluation of the run itself would look after."""
    if not info.part:
        return ""
    what = f"the {info.part} part of {info.data_name}, embedded with {info.model or info.run}"
    if not info.run:
        return what
    return (
        f"{what}: classes and images that the run was trained on are not left out here, as `zssbir eval --run {info.run} "
        f"--data {info.data_root}` does"
    )


def _from_arrays(path: Path, arrays: dict[str, Array], found: Sequence[str]) -> Pair:
    missing = [name for name in ARRAYS if name not in arrays]
    if missing:
        raise DataError(
            f"{path}: needs the arrays {', '.join(ARRAYS)}; found are only "
            f"{', '.join(sorted(found)) or 'none at all'}"
        )
    query, gallery = (_rows(path, name, arrays[name]) for name in ("query", "gallery"))
    if query.shape[1] != gallery.shape[1]:
        raise DataError(
            f"{path}: query has {query.shape[1]} dimensions and gallery {gallery.shape[1]}; both must come from one model"
        )
    for name, count in (
        (n, len(gallery if n.startswith("gallery") else query)) for n in (*ARRAYS[2:], *OPTIONAL)
    ):
        if name in arrays and arrays[name].shape != (count,):
            shape = list(arrays[name].shape)
            raise DataError(
                f"{path}: {name} must be one-dimensional, one for each of {count} rows, not {shape}"
            )
    q, g, classes = _numbered(path, arrays["query_labels"], arrays["gallery_labels"])
    texts = [tuple(_texts(arrays[n])) if n in arrays else () for n in OPTIONAL]
    return Pair(query, gallery, q, g, classes, texts[0], texts[1])


def _rows(path: Path, name: str, array: Array) -> Rows:
    """Rows [N, D] as float32, each with a direction."""
    if array.dtype.kind not in "fiu" or array.ndim != 2 or not array.size:
        raise DataError(f"{path}: {name} must be numbers [N, D], not {array.dtype} {array.shape}")
    rows = np.ascontiguousarray(array, np.float32)
    most = np.abs(rows).max(1)
    bad = np.flatnonzero(~(np.isfinite(most) & (most > 0)))
    if len(bad):
        raise DataError(
            f"{path}: {len(bad)} of {len(rows)} rows of {name} are zero, not finite or beyond float32 (the first: row {int(bad[0])}); "
            "leave these images out"
        )
    return rows


def _texts(values: Array) -> list[str]:
    return [v.decode("utf-8", "surrogateescape") if isinstance(v, bytes) else str(v) for v in values.tolist()]


def _numbered(
    path: Path, query: Array, gallery: Array
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], tuple[str, ...]]:
    """Labels as numbers 0 ... C - 1 with their names; -1: no label."""
    for name, labels in (("query_labels", query), ("gallery_labels", gallery)):
        if labels.dtype.kind not in "iubUSO":
            raise DataError(
                f"{path}: labels must be integers or names: {name} is {labels.dtype}; save it with dtype=int or dtype=str"
            )
    integers = query.dtype.kind in "iu" and gallery.dtype.kind in "iu"
    sides = (query.tolist(), gallery.tolist()) if integers else (_texts(query), _texts(gallery))
    if not integers:
        _same_spelling(path, *(sorted(set(side)) for side in sides))
    names = sorted({x for x in sides[0] + sides[1] if (x >= 0 if integers else not _NO_LABEL.fullmatch(x))})
    number = {name: i for i, name in enumerate(names)}
    q, g = (np.array([number.get(x, -1) for x in side], np.int64) for side in sides)
    return q, g, tuple(str(name) for name in names)


_NUMBER = re.compile(r"\s*\+?0*(\d+)(\.0*)?\s*")
_NO_LABEL = re.compile(r"\s*(-\d+(\.0*)?)?\s*")


def _same_spelling(path: Path, query: list[str], gallery: list[str]) -> None:
    """A class must be spelt alike everywhere: another case, Unicode form or way to write a number would make it two."""
    names = {n for n in query + gallery if not _NO_LABEL.fullmatch(n)}
    numbers: dict[str, list[str]] = {}
    for name in names:
        if found := _NUMBER.fullmatch(name):
            numbers.setdefault(found[1], []).append(name)
    apart = [side_by_side(g) for g in (*same_class(names), *(g for g in numbers.values() if len(g) > 1))]
    if apart:
        more = f"; and {len(apart) - 5} more" if len(apart) > 5 else ""
        raise DataError(
            f"{path}: classes spelt in several ways: {'; '.join(apart[:5])}{more}. Write each in one way, in queries and "
            "gallery"
        )


def _csv_text(path: Path) -> tuple[str, str]:
    """The text of a .csv file, and what to say of its encoding: UTF-8, UTF-16 where it begins with a byte order mark
    (Excel's `Unicode text`), else Windows' Western code page (Excel's plain `CSV`)."""
    raw = path.read_bytes()
    try:
        return decoded(raw), ""
    except UnicodeDecodeError as error:
        if error.encoding != "utf-8":
            raise
        note = f"{path} is not UTF-8: read as Windows-1252; save it as `CSV UTF-8` if names look wrong"
        return raw.decode("cp1252", "surrogateescape"), note


def _check_dimensions(path: Path, names: Sequence[str]) -> None:
    """Refuse columns that are none of the dimensions, such as a number of each row: as one, they would decide the
    ranking. Dimensions have names in common but for a number at their end, or are all named each in its way."""
    stems = Counter(_stem(name) for name in names)
    alike = [name for name in names if stems[_stem(name)] > 1 and name]
    odd = [name or "(without a name)" for name in names if not name or (alike and name not in alike)]
    if odd:
        others = f" {alike[0]} ... {alike[-1]}" if alike else ""
        raise DataError(
            f"{path}: {counted(len(odd), 'column')} beside the dimensions{others}: {listed(odd)}; write the file without (pandas: "
            "index=False), or name all dimensions alike"
        )


def _stem(name: str) -> str:
    return re.sub(r"\d+$", "#", name)


def _read_csv(path: Path) -> Pair:
    text_of_file, note = _csv_text(path)
    with io.StringIO(text_of_file, newline="") as file:
        rows = csv.reader(file, strict=True)
        header = [name.strip().lower() for name in next(rows, [])]
        if "set" not in header or "label" not in header:
            raise DataError(
                f"{path}: the first line must name the columns `set`, `label` and one per dimension, separated by commas"
            )
        text = [header.index(n) for n in ("set", "label", "source") if n in header]
        numbers = [i for i in range(len(header)) if i not in text]
        _check_dimensions(path, [header[i] for i in numbers])
        sides: tuple[list[tuple[list[float], str, str]], ...] = ([], [])
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
                values = [float(row[i]) for i in numbers]
            except ValueError as error:
                raise DataError(f"{path}:{line}: {error}") from None
            sides[kind].append((values, row[text[1]].strip(), row[text[2]] if len(text) > 2 else ""))
    if not all(sides) or not numbers:
        raise DataError(
            f"{path}: {len(sides[0])} queries, {len(sides[1])} photos of {len(numbers)} dimensions"
        )
    arrays: dict[str, Array] = {}
    for name, side in zip(("query", "gallery"), sides, strict=True):
        of_side, labels, sources = zip(*side, strict=True)
        arrays |= {name: np.array(of_side, np.float32), f"{name}_labels": np.array(labels, str)}
        if any(sources):
            arrays[f"{name}_sources"] = np.array(sources, str)
    return replace(_from_arrays(path, arrays, ARRAYS), note=note)
