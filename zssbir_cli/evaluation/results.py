"""The result of an evaluation on disk: JSON, per-query values, Markdown; and the paired comparison of two."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli import __version__
from zssbir_cli.engine.runlog import write_json
from zssbir_cli.errors import DataError
from zssbir_cli.evaluation.bootstrap import Difference, paired_difference
from zssbir_cli.evaluation.measure import Evaluation
from zssbir_cli.evaluation.published import Published, published

FORMAT_VERSION = 1


def comparable(evaluation: Evaluation) -> list[Published]:
    """Published numbers of the same split, protocol, queries and gallery ([] for most data sets)."""
    facts, metrics = evaluation.inputs.facts, evaluation.metrics
    if facts.get("subset", "yes") != "no":
        return []
    return published(facts["split"], facts["protocol"], metrics.queries, metrics.gallery)


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """All that an evaluation says, as plain values; shares are 0-1."""
    inputs, metrics = evaluation.inputs, evaluation.metrics
    relevant = metrics.relevant[metrics.counted]
    return {
        "format_version": FORMAT_VERSION,
        "zssbir": __version__,
        **inputs.facts,
        "queries": metrics.queries,
        "queries_counted": int(metrics.counted.sum()),
        "gallery": metrics.gallery,
        "classes": len(np.unique(metrics.query_labels)),
        "relevant": {"least": int(relevant.min()), "most": int(relevant.max())},
        "tie_rule": "expectation over random order of equal scores (voc: expected precision, interpolated)",
        "measures": [
            {
                "name": m.name,
                "convention": m.convention,
                "value": m.value,
                "ci95_queries": [m.over_queries.low, m.over_queries.high],
                "ci95_classes": [m.over_classes.low, m.over_classes.high],
            }
            for m in evaluation.measures
        ],
        "groups": evaluation.groups,
        "per_class": _per_class(evaluation),
        "curve": {
            "recall": metrics.recall_levels.tolist(),
            "precision": metrics.mean_curve().tolist(),
        },
        "published": [vars(p) for p in comparable(evaluation)],
        "fast_deviation": evaluation.fast_deviation,
        "notes": list(inputs.notes),
        "warnings": list(inputs.warnings),
    }


def _per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    inputs, metrics = evaluation.inputs, evaluation.metrics
    names = ["mAP@all", *(f"P@{k}" for k in metrics.k), "R-precision"]
    values = {name: metrics.per_class(name) for name in names}
    rows = []
    for c in np.unique(metrics.query_labels).tolist():
        value = {name: values[name][c] for name in names}
        rows.append(
            {
                "class": inputs.classes[c] if c < len(inputs.classes) else str(c),
                "queries": int((metrics.query_labels == c).sum()),
                "photos": int((inputs.gallery.labels == c).sum()),
                **{name: None if math.isnan(v) else v for name, v in value.items()},
            }
        )
    return rows


def save(evaluation: Evaluation, path: Path) -> None:
    """Write `path` (.json) and, beside it, `<stem>.queries.npz` with the per-query values that `--compare` reads.

    Errors: DataError when they cannot be written.
    """
    metrics = evaluation.metrics
    values = np.stack([metrics.per_query(m.name, m.convention or "voc") for m in evaluation.measures])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".queries.partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                values=values,
                names=np.array([f"{m.name} {m.convention}".strip() for m in evaluation.measures]),
                labels=metrics.query_labels,
                sources=np.array(evaluation.inputs.query.sources),
                facts=np.array(json.dumps(dict(evaluation.inputs.facts) | {"gallery": metrics.gallery})),
            )
        partial.replace(queries_file(path))
        write_json(path, as_json(evaluation))
    except OSError as error:
        raise DataError(f"{path}: cannot write the result ({error.strerror or error})") from error


def queries_file(path: Path) -> Path:
    """Where the per-query values of the result `path` lie."""
    return path.with_suffix(".queries.npz")


def markdown(evaluation: Evaluation) -> str:
    """The result as a Markdown table with what one must know to read it."""
    lines = [f"# {headline(evaluation)}", "", *(f"- {line}" for line in context(evaluation)), ""]
    lines += ["| measure | convention | % | 95 % over queries | 95 % over classes |", "|---|---|---|---|---|"]
    for m in evaluation.measures:
        q, c = m.over_queries, m.over_classes
        lines.append(
            f"| {m.name} | {m.convention or '-'} | {100 * m.value:.2f} | {100 * q.low:.2f} - {100 * q.high:.2f} "
            f"| {100 * c.low:.2f} - {100 * c.high:.2f} |"
        )
    for p in comparable(evaluation):
        rule = p.convention or "-"
        lines.append(f"| {p.measure}, {p.method} {p.year} (published) | {rule} | {p.value:.1f} | | |")
    if evaluation.groups:
        lines += ["", "| measure | seen | unseen | harmonic mean |", "|---|---|---|---|"]
        for name in evaluation.groups["seen"]:
            cells = " | ".join(
                f"{100 * evaluation.groups[g][name]:.2f}" for g in ("seen", "unseen", "harmonic")
            )
            lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def headline(evaluation: Evaluation) -> str:
    """What was evaluated, in one line."""
    f = evaluation.inputs.facts
    return f"{f['data']} ({f['split']}), {f['protocol']}" if "data" in f else f["embeddings"]


def context(evaluation: Evaluation) -> list[str]:
    """What one must know beside the numbers: protocol, sizes, weights, notes and warnings, one line each."""
    inputs, metrics = evaluation.inputs, evaluation.metrics
    f = inputs.facts
    relevant = metrics.relevant[metrics.counted]
    lines = [
        f"protocol {f['protocol']}: {f['protocol_description']}",
        f"{metrics.queries:,} queries of {len(np.unique(metrics.query_labels))} classes against a gallery of "
        f"{metrics.gallery:,} photos ({int(relevant.min()):,} to {int(relevant.max()):,} relevant)",
    ]
    if "run" in f:
        lines.append(
            f"run {f['run']} ({f['recipe']}, method {f['method']}), epoch {f['epoch']}, step {f['step']}, weights "
            f"{f['checkpoint'][:12]}, embedded in {f['precision']}; data set {f['data']} {f['identity']}"
        )
    if (d := evaluation.fast_deviation) is not None:
        lines.append(
            f"--fast: bf16 products; on {d['queries_sampled']:.0f} queries AP@all moved by {100 * d['mean']:+.4f} points "
            f"on average, by {100 * d['largest']:.4f} at most"
        )
    lines += [f"note: {n}" for n in inputs.notes]
    return lines + [f"WARNING: {w}" for w in inputs.warnings]


@dataclass(frozen=True)
class Compared:
    """Two results on the same queries: their names, means and paired differences, by measure."""

    a: str
    b: str
    queries: int
    rows: tuple[tuple[str, float, float, Difference], ...]
    notes: tuple[str, ...]


def compare(a: Path, b: Path) -> Compared:
    """Compare two saved results, paired by query. Errors: DataError when they are not of the same queries."""
    left, right = _load(a), _load(b)
    same = len(left["labels"]) == len(right["labels"]) and bool((left["labels"] == right["labels"]).all())
    if not same or left["sources"].tolist() != right["sources"].tolist():
        raise DataError(
            f"{a} and {b} are not of the same queries: evaluate both on the same data set and split"
        )
    facts = [json.loads(str(x["facts"])) for x in (left, right)]
    notes = [
        f"{key} differs: {facts[0].get(key)} and {facts[1].get(key)}"
        for key in ("identity", "protocol", "gallery", "seed", "subset")
        if facts[0].get(key) != facts[1].get(key)
    ]
    if any(n.startswith(("identity", "protocol", "gallery")) for n in notes):
        raise DataError(f"{a} and {b} do not compare: {'; '.join(notes)}")
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
        f"{f.get('recipe', '')} {f.get('checkpoint', '')[:8]} {f.get('embeddings', '')}".strip()
        for f in facts
    ]
    return Compared(labels[0], labels[1], len(left["labels"]), tuple(rows), tuple(notes))


def _load(path: Path) -> dict[str, np.ndarray]:
    file = queries_file(path)
    try:
        with np.load(file, allow_pickle=False) as data:
            return {name: data[name] for name in ("values", "names", "labels", "sources", "facts")}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; `zssbir eval` writes it beside the result") from None
    except Exception as error:
        raise DataError(f"{file}: damaged ({' '.join(str(error).split())[:120]}); evaluate again") from None


def compared_json(compared: Compared) -> dict[str, Any]:
    """A comparison as plain values; shares are 0-1."""
    rows = [{"measure": name, "a": a, "b": b, **asdict(d)} for name, a, b, d in compared.rows]
    return {
        "a": compared.a,
        "b": compared.b,
        "queries": compared.queries,
        "notes": compared.notes,
        "rows": rows,
    }


def target(evaluation: Evaluation, out: Path | None) -> Path | None:
    """Where a result goes: `<out or the run's eval folder>/<protocol>[-<data set>][-subset].json`; nowhere for a
    file of embeddings without `out`."""
    facts = evaluation.inputs.facts
    if "run" not in facts:
        return None if out is None else out / "embeddings.json"
    name = facts["protocol"]
    if facts["cross"] == "yes":
        name += f"-{facts['data']}"
    if facts["subset"] == "yes" and facts["cross"] == "no":
        name += "-subset"
    return (out or Path(facts["run"]) / "eval") / f"{name}.json"


def find_result(name: str, split: str) -> Path:
    """The result that the user named: a result file, or a run's folder (its result of `split`)."""
    path = Path(name)
    found = path / "eval" / f"{split}.json" if path.is_dir() else path
    if not found.is_file():
        raise DataError(f"{found}: no such result; run `zssbir eval --split {split} --run {name}` first")
    return found
