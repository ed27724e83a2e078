"""A ranking in TREC's format, evaluated against judgements: the same measures, conventions and intervals."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.engine.provenance import Provenance
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.inputs import Inputs, Side
from zssbir_cli.evaluation.measure import (
    CURVE_LEVELS,
    DEFAULT_K,
    Evaluation,
    cut_notes,
    evaluation_of,
    useful_cuts,
)
from zssbir_cli.evaluation.trec_files import Documents, QueryLines, read_qrels, read_run
from zssbir_cli.names import counted, listed
from zssbir_cli.retrieval.metrics import Metrics
from zssbir_cli.retrieval.precision import values_of_groups

TIES = ("expected", "trec")


def evaluate_trec(qrels: Path, run: Path, ties: str = "expected", k: Sequence[int] = DEFAULT_K) -> Evaluation:
    """Evaluate a run file against qrels (formats: `trec_files`).

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
    found = evaluation_of(inputs, metrics, cut_notes(k, kept, len(documents), most))
    return replace(found, asked=tuple(k))


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
