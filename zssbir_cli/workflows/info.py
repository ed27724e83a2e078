"""`zssbir info`: what is in a prepared set, as figures and as a contact sheet."""

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli.data.manifest import Manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.summary import ClassCounts, count_classes, summarise
from zssbir_cli.types import ROLE_OF_PART, Modality, Part, Role

OWN_SPLIT = re.compile(r"\d+-unseen(-seed\d+)?")
"""How `preparation.plan` calls the split of a user's own pictures."""
SHEET_PARTS = {Role.SEEN: Part.TRAIN, Role.VAL: Part.VAL, Role.UNSEEN: Part.TEST}
COLOURS = {Role.SEEN: (58, 98, 168), Role.VAL: (150, 102, 10), Role.UNSEEN: (172, 56, 56)}


def describe(root: Path) -> dict[str, Any]:
    """Everything `info` tells about a prepared set, as plain values (the JSON of `--json`).

    Errors: DataError: not a prepared set, or damaged.
    """
    prepared = PreparedSet.open(root)
    m = prepared.manifest
    classes = count_classes(prepared)
    published, differing = _against_published(m, classes)
    parts = [
        asdict(p) | {"role": str(ROLE_OF_PART[p.part]), "megabytes": round(p.megabytes, 3)}
        for p in summarise(m)
    ]
    return {
        "root": str(root),
        "name": m.name,
        "split": m.split,
        "identity": m.identity,
        "tool_version": m.tool_version,
        "parts": parts,
        "classes": [{"id": i, **asdict(c)} for i, c in enumerate(classes)],
        "options": dict(m.options),
        "sources": [s.model_dump() for s in m.sources],
        "published": published,
        "differing_classes": differing,
        "skipped": m.skipped,
        "warnings": list(m.warnings),
        "leaks": [leak.model_dump() for leak in m.leaks],
    }


def _against_published(m: Manifest, classes: list[ClassCounts]) -> tuple[list[dict[str, Any]], list[str]]:
    """The counts of a benchmark's split beside the published ones, and the classes that differ."""
    if OWN_SPLIT.fullmatch(m.split):  # saves reading the tables of the benchmarks
        return [], []
    from zssbir_cli.benchmarks.compare import compare_counts, differing_classes

    return [asdict(r) for r in compare_counts(m)], differing_classes(m, classes)


def contact_sheet(root: Path, path: Path, *, per_class: int = 4, max_classes: int = 40) -> Path:
    """Draw a PNG with a row per class: some sketches, then some photos, grouped by role. At most
    `max_classes` classes, drawn evenly from the roles.

    Errors: DataError: not a prepared set, damaged, or the picture cannot be written.
    """
    from zssbir_cli.inputs.datasets import load_image  # loads torch, which `describe` does without
    from zssbir_cli.viz.sheet import Row, Tile, save_sheet

    prepared = PreparedSet.open(root)
    total = len(prepared.manifest.classes)
    rng = np.random.default_rng(0)
    rows: list[Row] = []
    for role, part in SHEET_PARTS.items():
        classes = prepared.manifest.classes_of(role)
        share = max(1, round(max_classes * len(classes) / total)) if total > max_classes else len(classes)
        sets = [prepared.images(part, modality) for modality in (Modality.SKETCH, Modality.PHOTO)]
        for info in classes[:share]:
            groups = []
            for images in sets:
                picks = rng.permutation(np.flatnonzero(images.labels == info.id))[:per_class]
                groups.append([Tile(load_image(images, int(i)).permute(1, 2, 0).numpy()) for i in picks])
            name = info.name.replace("_", " ")
            rows.append(Row(groups, name, str(role), f"class {info.id}", COLOURS[role]))
    title = f"{prepared.manifest.name}: sketches and photos of {len(rows)} of {total} classes"
    subtitle = f"split {prepared.manifest.split}, identity {prepared.identity}"
    return save_sheet(
        path, rows, title=title, subtitle=subtitle, heads=("sketches", "photos"), side=96, per_line=per_class
    )
