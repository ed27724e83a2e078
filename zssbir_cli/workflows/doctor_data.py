"""What `zssbir doctor` looks at in files: a prepared set, and a run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.summary import summarise
from zssbir_cli.embedding.own import data_of
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.engine.runs import find_run, read_record
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.names import counted
from zssbir_cli.types import AnyPath, Modality, Part, Role
from zssbir_cli.workflows.doctor import PROBLEM, WARNING, Finding


def prepared_set(root: Path) -> Iterator[Finding]:
    """A prepared set: files, roles, leaks, one picture of each part. (`prepare --verify` reads all of it.)"""
    prepared = PreparedSet.open(root)
    manifest = prepared.manifest
    yield Finding("data set", f"{manifest.name} ({manifest.split}), identity {manifest.identity}, in {root}")
    for s in summarise(manifest):
        yield Finding(
            f"part {s.part}",
            f"{counted(s.classes, 'class')}, {s.sketches:,} sketches, {s.photos:,} photos",
        )
    for part in Part:
        for modality in Modality:
            if len(images := prepared.images(part, modality)):
                load_image(images, 0)  # damaged: DataError
    if not manifest.classes_of(Role.SEEN):
        yield Finding("training", "all classes are unseen: for evaluation only")
    elif not manifest.classes_of(Role.VAL):
        found = "no validation classes: the last checkpoint is taken as the best"
        yield Finding("model selection", found, WARNING, "prepare with --val-classes N")
    if manifest.leaks:
        found = f"{counted(len(manifest.leaks), 'image')} or more are in training and test"
        mend = "every result says so; prepare without --allow-leak to refuse them"
        yield Finding("leaks", found, WARNING, mend)
    for warning in manifest.warnings[:3]:
        yield Finding("prepare warned", warning, WARNING)


def trained_run(name: AnyPath, runs: Path) -> Iterator[Finding]:
    """A run: its checkpoint intact and fitting its recipe, finished or not, its data set found or not."""
    chosen = find_run(name, runs)
    weights = RunWeights(chosen.path, chosen.which)
    recipe, info = weights.recipe, weights.checkpoint
    method: Any = weights.load(torch.device("cpu"))
    size = f"{sum(p.numel() for p in method.parameters()) / 1e6:.1f} M parameters"
    about = f"{chosen.path} ({recipe.name}, method {recipe.method.name})"
    yield Finding("run", f"{about}, {info.which} of step {info.step}, {size}, intact")
    if info.note:
        yield Finding("checkpoint", info.note, WARNING)
    finished = bool((read_record(chosen.path) or {}).get("finished"))
    state, mend = "finished" if finished else "was stopped", f"zssbir train --resume {chosen.path}"
    yield Finding.unless(finished, "training", state, mend)
    try:
        data = data_of(weights)
    except DataError as error:
        mend = "search and embed do not need it; eval --data FOLDER"
        yield Finding("its data set", str(error), WARNING, mend)
        return
    if data.own:
        yield Finding("its data set", f"{data.prepared.root} is the set it was trained on")
    else:
        yield Finding("its data set", data.note, PROBLEM, "name the right one with --data", DataError)
