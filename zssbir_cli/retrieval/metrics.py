"""Retrieval metrics in the four conventions of the field, exact, in one pass.

    >>> m = evaluate(sketches, photos, sketch_labels, photo_labels, k=(100, 200))
    >>> m.get("mAP@all"), m.get("mAP@200", "hits"), m.get("P@100")

Average precision (AP) of one query with R relevant photos; precision at the i-th hit is i / rank_i:

| convention | AP@all | AP@k is divided by |
|---|---|---|
| `voc` | precision replaced by the largest precision at this rank or later | min(k, R) |
| `plain` | mean of the precisions at the hits | min(k, R) |
| `hits` | as `plain` | hits found in the first k (0 when there is none) |
| `trec` | as `plain` | R, also where k < R |

Example: ranking 1, 0, 1 with R = 4: AP@3 is 0.833 (hits), 0.556 (plain, voc) and 0.417 (trec).
The other measures are the same in every convention: `P@k` = hits in the first k / k; `P@min(k,R)` = hits in
the first min(k, R) / min(k, R) (the P@k that ZSE-SBIR publishes); `recall@k` = hits in the first k / R;
`R-precision` = hits in the first R / R.

The mean runs over queries that have at least one relevant photo; the others are counted and named. Equal
scores are taken in random order and every value is the expectation (rule and source:
`precision.values_of_groups`), so no value depends on the order of the gallery. Scores are cosines of float32
rows; sums are float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.arrays import Floats, Ints
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import listed
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.precision import VALUES_PER_CUT
from zssbir_cli.retrieval.ranking import Labels, Rows, rank_values, sort_gallery

CONVENTIONS = ("voc", "plain", "hits", "trec")


@dataclass(frozen=True)
class Metrics:
    """All values of one evaluation, per query; means on demand.

    query_labels: int64 [Q]; relevant: int64 [Q], number of relevant photos R; gallery: number of photos G;
    notes: what the reader must know (queries without a relevant photo, k larger than the gallery, ...);
    recall_levels: float64 [L]; curve: float64 [Q, L], interpolated precision at those recalls.
    """

    k: tuple[int, ...]
    gallery: int
    query_labels: Ints
    relevant: Ints
    notes: tuple[str, ...]
    recall_levels: Floats
    curve: Floats
    _values: Floats = field(repr=False)

    @property
    def queries(self) -> int:
        """Number of queries, those without a relevant photo included."""
        return len(self.query_labels)

    @cached_property
    def counted(self) -> npt.NDArray[np.bool_]:
        """bool [Q]: queries that enter the means (at least one relevant photo)."""
        return self.relevant > 0

    @cached_property
    def columns(self) -> dict[tuple[str, str], Floats]:
        """Every measure by name and convention ("" where it plays no role): float64 [Q], 0-1, NaN where nothing is
        relevant. In order: mAP@all, mAP@k, P@k, P@min(k,R), recall@k, R-precision."""
        total = self._values[:, -1]
        r_precision = self._values[:, -2] / total
        mean_ap, first, first_r, recall = (dict[tuple[str, str], Floats]() for _ in range(4))
        for i, k in enumerate((None, *self.k)):
            voc, plain, by_hits, hits = self._values[:, VALUES_PER_CUT * i : VALUES_PER_CUT * (i + 1)].T
            trec = plain if k is None else plain * np.minimum(k / total, 1)
            of_map = zip(CONVENTIONS, (voc, plain, by_hits, trec), strict=True)
            mean_ap |= {(f"mAP@{k or 'all'}", c): value for c, value in of_map}
            if k is not None:
                first[f"P@{k}", ""] = hits / k
                first_r[f"P@min({k},R)", ""] = np.where(total < k, r_precision, hits / k)
                recall[f"recall@{k}", ""] = hits / total
        return mean_ap | first | first_r | recall | {("R-precision", ""): r_precision}

    def per_query(self, name: str, convention: str = "voc") -> Floats:
        """Value of each query: float64 [Q], 0-1, NaN where nothing is relevant. `convention` matters for mAP only.

        Errors: UsageError: unknown measure or convention.
        """
        if convention not in (*CONVENTIONS, ""):
            raise UsageError(f"unknown convention {convention!r}: one of {', '.join(CONVENTIONS)}")
        found = self.columns.get((name, convention), self.columns.get((name, "")))
        if found is None:
            names = dict.fromkeys(name for name, _ in self.columns)
            raise UsageError(f"unknown measure {name!r}: one of {', '.join(names)}")
        return found

    def get(self, name: str, convention: str = "voc") -> float:
        """Mean over the counted queries, 0-1. `convention` matters for mAP only."""
        return float(self.per_query(name, convention)[self.counted].mean())

    def per_class(self, name: str, convention: str = "voc") -> dict[int, float]:
        """Mean over the counted queries of each class; NaN for a class without any."""
        values = self.per_query(name, convention)
        result: dict[int, float] = {}
        for c in np.unique(self.query_labels):
            of_class = values[(self.query_labels == c) & self.counted]
            result[int(c)] = float(of_class.mean()) if of_class.size else float("nan")
        return result

    def mean_curve(self) -> Floats:
        """Interpolated precision at `recall_levels`, mean over the counted queries: float64 [L]."""
        result: Floats = self.curve[self.counted].mean(axis=0)
        return result

    def select(self, queries: npt.NDArray[np.bool_]) -> "Metrics":
        """The same evaluation for some of its queries: bool [Q]. DataError when none is counted."""
        if not (queries & self.counted).any():
            raise DataError("no query of this selection has a relevant photo in the gallery")
        return replace(
            self, query_labels=self.query_labels[queries], relevant=self.relevant[queries],
            curve=self.curve[queries], _values=self._values[queries],
        )  # fmt: skip


def evaluate(
    query: Rows,
    gallery: Rows,
    query_labels: Labels,
    gallery_labels: Labels,
    *,
    k: Sequence[int] = (100, 200),
    classes: Sequence[str] = (),
    curve_levels: int = 0,
    device: str | torch.device = "cpu",
    block: int | None = None,
    threads: int | None = None,
    progress: Progress = silent,
) -> Metrics:
    """Rank the gallery by cosine for every query and return all measures in all conventions.

    Args:
        query: [Q, D], gallery: [G, D]: any float type, numpy (memory-mapped too) or torch, of any length.
        query_labels: [Q], gallery_labels: [G]: integers. -1 in the gallery: relevant to no query.
        k: cuts of mAP@k, P@k and recall@k.
        classes: names of the labels, for the notes.
        curve_levels: recall levels of the precision-recall curve (0: none).
        device: where products and sorting run.
        block: query rows ranked at a time, memory only: the result is the same for every block.
        threads: CPU threads (default: torch's).
        progress: told the number of queries ranked, after each block.
    Errors:
        DataError: shapes that do not fit, NaN or zero rows (named), a query without a label, none counted.
        UsageError: k < 1.
    """
    labels_q, labels_g = _labels(query_labels), _labels(gallery_labels)
    cuts = tuple(dict.fromkeys(int(x) for x in k))
    _check(query, gallery, labels_q, labels_g, cuts)
    sorted_gallery = sort_gallery(gallery, labels_g, torch.device(device))
    values = rank_values(
        query, labels_q, sorted_gallery, [None, *cuts],
        levels=curve_levels, block=block, threads=threads, progress=progress,
    )  # fmt: skip
    body = values[:, : values.shape[1] - curve_levels]
    relevant = np.nan_to_num(body[:, -1]).astype(np.int64)
    if not relevant.any():
        sides = (
            f"{what} are of {_some(labels, classes)}"
            for what, labels in (("queries", labels_q), ("photos", labels_g))
        )
        raise DataError(
            f"no query has a relevant photo in the gallery: {', '.join(sides)}: do the labels belong together?"
        )
    return Metrics(
        k=cuts, gallery=len(labels_g), query_labels=labels_q, relevant=relevant, notes=_notes(labels_q, labels_g, relevant, cuts, classes),
        recall_levels=np.linspace(0, 1, curve_levels), curve=values[:, values.shape[1] - curve_levels :], _values=body,
    )  # fmt: skip


def _labels(labels: Labels) -> Ints:
    array = labels.cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DataError(f"labels must be integers, not {array.dtype}")
    return array.astype(np.int64)


def _check(query: Rows, gallery: Rows, labels_q: Ints, labels_g: Ints, k: Sequence[int]) -> None:
    if any(x < 1 for x in k):
        raise UsageError(f"k must be 1 or more, not {min(k)}")
    for rows, labels, what in ((query, labels_q, "query"), (gallery, labels_g, "gallery")):
        if rows.ndim != 2 or labels.ndim != 1 or rows.shape[0] != labels.shape[0]:
            shapes = f"{tuple(rows.shape)} with labels {tuple(labels.shape)}"
            raise DataError(f"{what} embeddings must be [N, D] with labels [N], not {shapes}")
        if not rows.shape[0]:
            raise DataError(f"the {what} set is empty")
    if query.shape[1] != gallery.shape[1]:
        raise DataError(
            f"query embeddings have {query.shape[1]} dimensions and gallery embeddings {gallery.shape[1]}: "
            "they come from different models"
        )
    if (labels_q < 0).any():
        bad = np.flatnonzero(labels_q < 0)
        raise DataError(
            f"{bad.size} queries have no label (first: row {int(bad[0])}); an evaluation needs labels"
        )


def _some(labels: Ints, names: Sequence[str]) -> str:
    """The first classes of labels, by name."""
    found = np.unique(labels[labels >= 0]).tolist()
    return listed([names[c] if c < len(names) else str(c) for c in found], 3) if found else "no class"


def _notes(
    labels_q: Ints, labels_g: Ints, relevant: Ints, k: Sequence[int], names: Sequence[str]
) -> tuple[str, ...]:
    notes = []
    total = len(labels_g)
    for cut in k:
        if cut > total:
            notes.append(f"k = {cut} is larger than the gallery of {total}: P@{cut} still divides by {cut}")
    if (without := relevant == 0).any():
        classes = np.unique(labels_q[without]).tolist()
        some = ", ".join(names[c] if c < len(names) else str(c) for c in classes[:10])
        more = ", ..." if len(classes) > 10 else ""
        notes.append(
            f"{int(without.sum())} queries have no relevant photo and are left out (classes {some}{more})"
        )
    if (relevant == total).all():
        notes.append("every photo of the gallery is relevant to every query: any ranking scores the same")
    if idle := np.setdiff1d(labels_g[labels_g >= 0], labels_q).size:
        notes.append(
            f"{idle} {'class' if idle == 1 else 'classes'} of the gallery {'has' if idle == 1 else 'have'} no query"
        )
    return tuple(notes)
