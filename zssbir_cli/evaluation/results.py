"""The result of an evaluation: JSON, per-query values, Markdown, and where they go."""

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli import __version__
from zssbir_cli.errors import DataError
from zssbir_cli.evaluation.measure import DEFAULT_K, Evaluation, comparable, context, groups_of, table_of
from zssbir_cli.evaluation.saved import queries_file
from zssbir_cli.files import parsed, reason, write_bytes, write_json
from zssbir_cli.names import file_part

FORMAT_VERSION = 1
TIE_RULES = {
    "expected": "expectation over random order of equal scores (voc: expected precision, interpolated)",
    "trec": "scores rounded to float32, equal ones by document name, the last one first (as trec_eval)",
}


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """All that an evaluation says, as plain values; shares are 0-1."""
    inputs, metrics = evaluation.inputs, evaluation.metrics
    relevant = metrics.relevant[metrics.counted]
    return {
        "format_version": FORMAT_VERSION,
        "zssbir": __version__,
        **inputs.about.as_json(),
        "queries": metrics.queries,
        "queries_counted": int(metrics.counted.sum()),
        "gallery": metrics.gallery,
        "classes": len(np.unique(metrics.query_labels)),
        "relevant": {"least": int(relevant.min()), "most": int(relevant.max())},
        "tie_rule": TIE_RULES[inputs.about.ties or "expected"],
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
        "baselines": [
            {
                "name": b.name,
                "about": b.about,
                "checkpoint": b.checkpoint,
                "values": [{"name": n, "convention": c, "value": v} for (n, c), v in b.values.items()],
            }
            for b in evaluation.baselines
        ],
        "groups": evaluation.groups,
        "per_class": _per_class(evaluation),
        "curve": {"recall": metrics.recall_levels.tolist(), "precision": metrics.mean_curve().tolist()},
        "published": [vars(p) for p in comparable(evaluation)],
        "notes": list(inputs.notes),
        "warnings": list(inputs.warnings),
    }


def _per_class(evaluation: Evaluation) -> list[dict[str, Any]]:
    inputs, metrics = evaluation.inputs, evaluation.metrics
    names = ["mAP@all", *(f"P@{k}" for k in metrics.k), "R-precision"]
    values = {name: metrics.per_class(name) for name in names}
    rows = []
    for c in np.unique(metrics.query_labels).tolist():
        own = metrics.query_labels == c
        name = inputs.classes[c] if c < len(inputs.classes) else str(c)
        about = {"class": name, "queries": int(own.sum()), "photos": int(metrics.relevant[own][0])}
        rows.append(about | {n: None if math.isnan(v[c]) else v[c] for n, v in values.items()})
    return rows


def write(evaluation: Evaluation, path: Path) -> None:
    """Write `path` (.json) and, beside it, `<stem>.queries.npz` with the per-query values that `--compare` reads.

    Errors: DataError when they cannot be written.
    """
    metrics = evaluation.metrics
    values = np.stack(list(metrics.columns.values()))
    block = io.BytesIO()  # see `Stage`
    np.savez_compressed(
        block,
        values=values,
        names=np.array([f"{m.name} {m.convention}".strip() for m in evaluation.measures]),
        labels=metrics.query_labels,
        sources=np.array(evaluation.inputs.query.sources),
        facts=np.array(json.dumps(evaluation.inputs.about.as_json() | _of_images(evaluation))),
    )
    try:
        write_bytes(queries_file(path), block.getbuffer())
        write_json(path, as_json(evaluation))
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({reason(error)}); choose another folder with --out (finished embeddings are kept)"
        ) from error


def _of_images(evaluation: Evaluation) -> dict[str, Any]:
    """What two results on the same queries and photos have in common: classes of the queries; number and digest of the
    photos, by class and name, those from elsewhere by content where it is known."""
    inputs = evaluation.inputs
    names = inputs.classes

    def of(label: int) -> str:
        return names[label] if 0 <= label < len(names) else str(label)

    gallery = inputs.gallery
    sources = gallery.sources or ("",) * len(gallery.labels)
    lines = [f"{of(c)}\0{source}" for c, source in zip(gallery.labels.tolist(), sources, strict=True)]
    if (extra := inputs.extra) and extra.stored.stamps:
        lines += [row.tobytes().hex() for row in extra.stored.stamps.content[extra.index]]
    digest = hashlib.sha256("\n".join(sorted(lines)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
    classes = [of(c) for c in np.unique(inputs.query.labels).tolist()]
    return {"gallery": evaluation.metrics.gallery, "query_classes": classes, "photos": digest}


def markdown(evaluation: Evaluation) -> str:
    """The result as Markdown tables with what one must know to read them."""
    lines = [f"# {evaluation.inputs.about.headline}", "", *(f"- {line}" for line in context(evaluation))]
    for head, *rows in filter(None, (table_of(evaluation), groups_of(evaluation))):
        lines += ["", *(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))]
    return "\n".join(lines) + "\n"


def target(evaluation: Evaluation, out: Path | None) -> Path | None:
    """Where a result goes: `<out or the run's eval folder>/<name>.json`; nowhere without a run and `out`.

    The name says what makes it another result: protocol, data set if it is not the run's own, checkpoint unless
    best, seed unless 0, cuts unless the usual ones, a subset. A result of something else that has the name
    already (other classes, say) is not overwritten: then eight digits follow.
    """
    about = evaluation.inputs.about
    if not about.run and out is None:
        return None
    folder = out or Path(about.run) / "eval"
    name = "-".join(_name_parts(evaluation)) + "-subset" * bool(about.chosen or about.most_per_class)
    path, key = folder / f"{name}.json", _key(evaluation)
    if _is_of(path, key):
        return path
    return folder / f"{name}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]}.json"


def _name_parts(evaluation: Evaluation) -> list[str]:
    about, cuts = evaluation.inputs.about, evaluation.asked
    kind = f"trec-ties-{about.ties}" if about.ranking else "embeddings"
    parts = [about.protocol, file_part(about.data) if about.cross else ""] if about.of_weights else [kind]
    parts.append(file_part(about.which) if about.run and about.which != "best" else "")
    parts += [
        "extra" if about.extra else "",
        f"seed{about.seed}" if about.seed else "",
        "" if cuts == DEFAULT_K else f"k{'_'.join(map(str, cuts))}",
    ]
    return [part for part in parts if part]


def _key(evaluation: Evaluation) -> dict[str, Any]:
    """What makes a result another one than that of the same name."""
    about = evaluation.inputs.about.as_json()
    names = (
        "model", "embeddings", "ranking", "qrels", "ties", "identity", "protocol", "which", "seed", "chosen", "most_per_class",
        "extra",
    )  # fmt: skip
    return {name: list(v) if isinstance(v := about.get(name), tuple) else v for name in names}


def _is_of(path: Path, key: dict[str, Any]) -> bool:
    """Whether nothing is lost by writing a result of `key` to `path` (older results know fewer keys)."""
    try:
        found = parsed(path.read_bytes())
        return all(found[name] == value for name, value in key.items() if name in found and name != "seed")
    except (OSError, ValueError, TypeError):
        return True
