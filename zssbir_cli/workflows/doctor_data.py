"""What `zssbir doctor` looks at in files: a prepared set, and a run."""

from collections.abc import Iterator
from pathlib import Path

import torch

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.summary import summarise
from zssbir_cli.embedding.load import load_run
from zssbir_cli.embedding.own import data_of_run
from zssbir_cli.engine.records import read_record
from zssbir_cli.engine.runs import find_run
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.names import counted
from zssbir_cli.types import AnyPath, Modality, Part, Role
from zssbir_cli.workflows.doctor import OK, PROBLEM, WARNING, Finding


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
        yield Finding(
            "model selection", "no validation classes: the last checkpoint is taken as the best", WARNING,
            "prepare with --val-classes N",
        )  # fmt: skip
    if manifest.leaks:
        yield Finding(
            "leaks", f"{counted(len(manifest.leaks), 'image')} or more are in training and test", WARNING,
            "every result says so; prepare without --allow-leak to refuse them",
        )  # fmt: skip
    for warning in manifest.warnings[:3]:
        yield Finding("prepare warned", warning, WARNING)


def trained_run(name: AnyPath, runs: Path) -> Iterator[Finding]:
    """A run: its checkpoint whole and fitting its recipe, finished or not, its data set to be found."""
    chosen = find_run(name, runs)
    recipe, method, info = load_run(chosen.path, torch.device("cpu"), chosen.which)
    count = sum(p.numel() for p in method.parameters()) / 1e6
    yield Finding(
        "run", f"{chosen.path} ({recipe.name}, method {recipe.method.name}), {info.which} of step {info.step}, "
        f"{count:.1f} M parameters, intact",
    )  # fmt: skip
    if info.note:
        yield Finding("checkpoint", info.note, WARNING)
    finished = bool((read_record(chosen.path) or {}).get("finished"))
    mend = "" if finished else f"zssbir train --resume {chosen.path}"
    yield Finding("training", "finished" if finished else "was stopped", OK if finished else WARNING, mend)
    try:
        data = data_of_run(chosen.path, info, recipe)
    except DataError as error:
        yield Finding(
            "its data set", str(error), WARNING, "search and embed do not need it; eval --data FOLDER"
        )
        return
    state = OK if data.own else PROBLEM
    yield Finding("its data set", data.note or f"{data.prepared.root} is the set it learnt from", state,
                  "" if data.own else "name the right one with --data", DataError)  # fmt: skip
