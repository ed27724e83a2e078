"""A ranking in TREC's format, evaluated against judgements, and any evaluation written in that format.

A line of judgements (qrels) is `query iteration document relevance`, a line of a ranking (run) `query Q0 document rank
score tag`, with any white space between. Blank lines are skipped. As for trec_eval, the rank and the order of the lines say
nothing.
"""

import math
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import numpy as np

from zssbir_cli.arrays import Floats, Ints
from zssbir_cli.engine.provenance import Provenance
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.measure import (
    CURVE_LEVELS,
    DEFAULT_K,
    Evaluation,
    Inputs,
    Side,
    evaluation_of,
    useful_cuts,
)
from zssbir_cli.files import reason, replacing, writing
from zssbir_cli.names import counted, listed
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.metrics import Metrics
from zssbir_cli.retrieval.precision import values_of_groups
from zssbir_cli.retrieval.ranking import score_rows

QRELS = ("query", "iteration", "document", "relevance")
RUN = ("query", "Q0", "document", "rank", "score", "tag")
TAG = "zssbir"
KEPT = "".join(map(chr, range(33, 127))).replace("%", "")
"""Characters that stand for themselves in a name; others are written as in a URL (%20)."""


@dataclass(frozen=True)
class QueryLines:
    """What a file says of one query: documents int64 [N], each once, by their number in `Documents`, and a value of
    each, float64 [N] (relevance or score)."""

    documents: Ints
    values: Floats


Documents = dict[str, int]
"""Names of documents and their numbers, shared by the files that are evaluated together."""


def read_qrels(path: Path, documents: Documents) -> dict[str, QueryLines]:
    """Judgements by query, in the order of the file. Errors: DataError naming file and line."""
    return _read(path, QRELS, _whole, documents)


def read_run(path: Path, documents: Documents) -> dict[str, QueryLines]:
    """Scores by query. Errors: DataError naming file and line."""
    return _read(path, RUN, _finite, documents)


def _read(
    path: Path, columns: Sequence[str], number: Callable[[str], float], documents: Documents
) -> dict[str, QueryLines]:
    """Lines of a file, the number being the column `relevance` or `score`; grows `documents`."""
    found: dict[str, tuple[array[int], array[float], array[int]]] = {}
    place = 4 if columns is RUN else 3
    try:
        with path.open("rb") as file:
            for count, raw in enumerate(file, 1):
                parts = _fields(raw.removeprefix(b"\xef\xbb\xbf") if count == 1 else raw, columns)
                if not parts:
                    continue
                value = number(parts[place])
                listed = found.setdefault(parts[0], (array("q"), array("d"), array("q")))
                listed[0].append(documents.setdefault(parts[2], len(documents)))
                listed[1].append(value)
                listed[2].append(count)
    except ValueError as error:
        raise DataError(f"{path}:{count}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    if not found:
        raise DataError(f"{path}: empty; expected `{' '.join(columns)}` on each")
    return {query: _listed(path, query, listed, documents) for query, listed in found.items()}


def _fields(raw: bytes, columns: Sequence[str]) -> list[str]:
    """The columns of a line, [] for a blank one. Raises ValueError."""
    parts = raw.split()
    if parts and len(parts) != len(columns):
        raise ValueError(f"expected {len(columns)} columns (`{' '.join(columns)}`), found {len(parts)}")
    try:
        return [part.decode() for part in parts]
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def _whole(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"the relevance {text!r} is not a whole number") from None


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"the score {text!r} is not a finite number")
    return value


def _listed(path: Path, query: str, columns: Sequence[Any], documents: Documents) -> QueryLines:
    """Arrays of a query's lines. Errors: DataError for a document that stands twice."""
    number, value, line = (np.array(c) for c in columns)
    order = np.argsort(number, kind="stable")
    again = order[1:][number[order][1:] == number[order][:-1]]
    if again.size:
        first = again[np.argmin(line[again])]
        name = list(documents)[number[first]]
        raise DataError(f"{path}:{line[first]}: document {name} appears twice for query {query}")
    return QueryLines(number, value)


def write_trec(
    inputs: Inputs, stem: Path, depth: int | None, device: str = "cpu", progress: Progress = silent
) -> tuple[Path, Path]:
    """Write `<stem>.qrels.txt` and `<stem>.run.txt` of an evaluation; returns both.

    The scores are the ones that `retrieval.metrics.evaluate` ranks by, in nine digits, which give the same float32
    back. The run holds the first `depth` photos of each query (None: all), equal scores by name as trec_eval orders
    them. Queries without a relevant photo are in neither file: they enter no mean. Errors: DataError: disk.
    """
    paths = tuple(stem.with_name(f"{stem.name}.{kind}.txt") for kind in ("qrels", "run"))
    with (
        writing(paths[1]),
        replacing(paths[0]) as judged,
        replacing(paths[1]) as ranked,
        judged.open("w", encoding="utf-8") as qrels,
        ranked.open("w", encoding="utf-8") as run,
    ):
        _write(inputs, qrels, run, depth, device, progress)
    return paths[0], paths[1]


def _write(
    inputs: Inputs, qrels: IO[str], run: IO[str], depth: int | None, device: str, progress: Progress
) -> None:
    query, gallery = inputs.query, inputs.gallery
    queries, photos = names_of(query, "q"), names_of(gallery, "d")
    by_name = np.argsort(np.argsort(np.array(photos, dtype=object)))
    relevant = {int(c): np.flatnonzero(gallery.labels == c) for c in np.unique(query.labels)}
    done = 0
    for index, scores in score_rows(query.rows, query.labels, gallery.rows, gallery.labels, device):
        for i, row in zip(index.tolist(), scores, strict=True):
            if not (hits := relevant[int(query.labels[i])]).size:
                continue
            qrels.writelines(f"{queries[i]} 0 {photos[j]} 1\n" for j in hits)
            order = np.lexsort((-by_name, -row))[:depth]
            run.writelines(
                f"{queries[i]} Q0 {photos[j]} {rank} {row[j]:.9g} {TAG}\n" for rank, j in enumerate(order, 1)
            )
        done += len(index)
        progress("exporting", done, len(query.labels))


def names_of(side: Side, letter: str) -> list[str]:
    """A name without white space for each image, all different: its own name, or a letter and its number."""
    if not all(side.sources) or len(set(side.sources)) < len(side.labels):
        return [f"{letter}{i}" for i in range(len(side.labels))]
    return [quote(name, safe=KEPT, errors="surrogateescape") for name in side.sources]


TIES = ("expected", "trec")


def evaluate_trec(qrels: Path, run: Path, ties: str = "expected", k: Sequence[int] = DEFAULT_K) -> Evaluation:
    """Evaluate a run file against qrels (formats: above).

    Relevant are documents with a relevance above 0. One that the run does not list is never found. Every judged
    query with a relevant document counts, as with `trec_eval -c`: with 0 if the run does not list it. Equal scores
    are taken in random order (`expected`), or by document name, the last one first, after rounding scores to float32,
    as trec_eval does (`trec`). Queries with the same relevant documents are one class.

    Errors: DataError naming file and line; UsageError: unknown `ties`.
    """
    if ties not in TIES:
        raise UsageError(f"--ties {ties}: one of {', '.join(TIES)}")
    documents: Documents = {}
    judged, ranked = read_qrels(qrels, documents), read_run(run, documents)
    same: dict[frozenset[int], tuple[frozenset[int], str]] = {}  # each set is kept once, with its first query
    relevant: dict[str, frozenset[int]] = {}
    for query, seen in judged.items():
        wanted = frozenset(seen.documents[seen.values > 0].tolist())
        relevant[query] = same.setdefault(wanted, (wanted, query))[0]
    if not any(relevant.values()):
        raise DataError(f"{qrels}: no document has a relevance above 0")
    most = max(map(len, relevant.values()))
    kept = useful_cuts(k, len(documents), most)
    metrics = _metrics(relevant, ranked, list(documents), ties, kept)
    about = Provenance("trec", "a TREC run against judgements", ranking=str(run), qrels=str(qrels), ties=ties)
    queries = Side(np.empty((len(judged), 0)), metrics.query_labels, tuple(judged))
    gallery = Side(np.empty((len(documents), 0)), np.full(len(documents), -1), tuple(documents))
    inputs = Inputs(queries, gallery, tuple(first for _, first in same.values()), about)
    return evaluation_of(inputs, metrics, k)


def _metrics(
    relevant: Mapping[str, frozenset[int]],
    ranked: Mapping[str, QueryLines],
    documents: Sequence[str],
    ties: str,
    k: tuple[int, ...],
) -> Metrics:
    """Values of every judged query. relevant: query -> numbers of its relevant documents."""
    by_name = np.argsort(np.argsort(np.array(documents, dtype=object)))
    values = []
    for query, wanted in relevant.items():
        groups = _groups(ranked.get(query), wanted, by_name if ties == "trec" else None)
        missed = len(wanted) - int(groups[3].sum())
        values.append(values_of_groups(*groups, [None, *k], CURVE_LEVELS, missed=missed))
    found = np.stack(values)
    totals = np.array([len(wanted) for wanted in relevant.values()])
    found[totals == 0] = np.nan
    label = {docs: i for i, docs in enumerate(dict.fromkeys(relevant.values()))}
    labels = np.array([label[docs] for docs in relevant.values()])
    return Metrics(
        k=k, gallery=len(documents), query_labels=labels, relevant=totals, notes=_notes(relevant, ranked, len(label)),
        recall_levels=np.linspace(0, 1, CURVE_LEVELS), curve=found[:, -CURVE_LEVELS:], _values=found[:, :-CURVE_LEVELS],
    )  # fmt: skip


def _groups(
    ranking: QueryLines | None, wanted: frozenset[int], by_name: Ints | None
) -> tuple[Ints, Ints, Ints, Ints]:
    """(documents above, hits above, size, hits) of each group of equal scores that holds a hit, best first. With
    `by_name` (places of all documents in the order of their names) each document is a group of its own."""
    if ranking is None:
        empty = np.empty(0, np.int64)
        return empty, empty, empty, empty
    scores = ranking.values
    hit = np.isin(ranking.documents, np.fromiter(wanted, np.int64, len(wanted)))
    if by_name is not None:
        with np.errstate(over="ignore"):
            rounded = scores.astype(np.float32)
        scores = np.empty(len(rounded))
        scores[np.lexsort((-by_name[ranking.documents], -rounded))] = -np.arange(len(rounded))
    _, group, size = np.unique(-scores, return_inverse=True, return_counts=True)
    hits = np.bincount(group, hit).astype(np.int64)
    held = hits > 0
    return tuple(x[held] for x in (np.cumsum(size) - size, np.cumsum(hits) - hits, size, hits))  # type: ignore[return-value]


def _notes(
    relevant: Mapping[str, frozenset[int]], ranked: Mapping[str, QueryLines], classes: int
) -> tuple[str, ...]:
    notes = []
    if without := [q for q, docs in relevant.items() if not docs]:
        notes.append(
            f"{counted(len(without), 'query')} without a relevant document left out: {listed(without)}"
        )
    if silent := [q for q, docs in relevant.items() if docs and q not in ranked]:
        notes.append(
            f"{counted(len(silent), 'query')} not in the run and counted as 0 (as by trec_eval -c): {listed(silent)}"
        )
    if unjudged := [q for q in ranked if q not in relevant]:
        notes.append(
            f"{counted(len(unjudged), 'query')} of the run without judgements left out: {listed(unjudged)}"
        )
    if classes < len(relevant):
        notes.append("queries with the same relevant documents count as one class")
    return tuple(notes)
