"""The paired comparison of two saved results."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli.engine.runs import is_outdated
from zssbir_cli.errors import DataError
from zssbir_cli.evaluation.bootstrap import Difference, paired_difference
from zssbir_cli.evaluation.saved import queries_file
from zssbir_cli.files import parsed, reason

DECIDING = ("identity", "protocol", "gallery", "extra")
"""Facts in which two results must agree."""
TOLD = ("seed", "subset", "which", "precision", "ties")
"""Facts that may differ, which is said."""


@dataclass(frozen=True)
class Compared:
    """Two results on the same queries: their names, means and paired differences, by measure."""

    a: str
    b: str
    queries: int
    rows: tuple[tuple[str, float, float, Difference], ...]
    notes: tuple[str, ...]


def compare_results(a: Path, b: Path) -> Compared:
    """Compare two saved results, paired by query. Errors: DataError when they are not of the same queries."""
    left, right = _load(a), _load(b)
    same = len(left["labels"]) == len(right["labels"]) and bool((left["labels"] == right["labels"]).all())
    if not same or left["sources"].tolist() != right["sources"].tolist():
        raise DataError(
            f"{a} and {b} do not have the same queries: evaluate both on the same data set and split"
        )
    facts = [_facts(x) for x in (left, right)]
    named = [f["query_classes"] for f in facts if "query_classes" in f]
    if len(named) == 2 and named[0] != named[1]:
        raise DataError(f"{a} and {b} are of other classes: evaluate both on the same data set and split")
    differ = {
        key: f"{key} differs: {facts[0].get(key)} and {facts[1].get(key)}"
        for key in (*DECIDING, *TOLD)
        if facts[0].get(key) != facts[1].get(key)
    }
    if any(key in differ for key in DECIDING):
        raise DataError(f"{a} and {b} cannot be compared: {'; '.join(differ.values())}")
    notes = list(differ.values())
    photos = [f["photos"] for f in facts if "photos" in f]
    if len(photos) == 2 and photos[0] != photos[1]:
        notes.append("the photos of the galleries are not the same (their classes, names or content)")
    notes += [
        f"{file}: training has replaced the weights of this result since; evaluate again"
        for file, about in zip((a, b), facts, strict=True)
        if file.parent.name == "eval" and is_outdated(file.parent.parent, about)
    ]
    rows = []
    names = right["names"].tolist()
    for i, name in enumerate(left["names"].tolist()):
        if name in names:
            x, y = left["values"][i], right["values"][names.index(name)]
            kept = np.isfinite(x) & np.isfinite(y)
            x, y = x[kept], y[kept]
            rows.append(
                (name, float(x.mean()), float(y.mean()), paired_difference(x, y, left["labels"][kept]))
            )
    labels = [
        f"{f.get('model') or f.get('recipe', '')} {f.get('checkpoint', '')[:8]} {f.get('embeddings', '')}".strip()
        for f in facts
    ]
    return Compared(labels[0], labels[1], len(left["labels"]), tuple(rows), tuple(notes))


def _facts(stored: dict[str, np.ndarray]) -> dict[str, Any]:
    """What a result is about; older ones wrote numbers and booleans as texts."""
    facts: dict[str, Any] = parsed(str(stored["facts"]))
    seed, subset = facts.get("seed"), facts.get("subset")
    return facts | {"seed": int(seed or 0), "subset": subset in (True, "yes")}


def _load(path: Path) -> dict[str, np.ndarray]:
    file = queries_file(path)
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in ("values", "names", "labels", "sources", "facts")}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; `zssbir eval` writes it beside the result") from None
    except Exception as error:
        raise DataError(f"{file}: damaged ({reason(error)}); evaluate again") from None


def compared_json(compared: Compared) -> dict[str, Any]:
    """A comparison as plain values; shares are 0-1."""
    rows = [{"measure": name, "a": a, "b": b, **asdict(d)} for name, a, b, d in compared.rows]
    return vars(compared) | {"rows": rows}
