"""What `zssbir doctor` looks at with PyTorch: cores, memory, devices, network, downloaded weights, a prepared set, a run."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants

from zssbir_cli.compute.precision import Precision
from zssbir_cli.data.manifest import NEAR
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.summary import summarise
from zssbir_cli.embedding.own import data_of
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.engine.circumstances import device_name
from zssbir_cli.engine.runs import find_run, in_training, is_finished, read_record
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.models.hub import endpoint, unreachable
from zssbir_cli.models.known import TOWERS
from zssbir_cli.models.pretrained import is_cached
from zssbir_cli.names import counted
from zssbir_cli.preparation.journal import REPORT_NAME
from zssbir_cli.preparation.reading import available_cores
from zssbir_cli.progress import rough_size
from zssbir_cli.recipe.loader import load_recipe, shipped_recipes
from zssbir_cli.types import AnyPath, Modality, Part, Role
from zssbir_cli.workflows.doctor import OK, PROBLEM, WARNING, Finding

TIMEOUT = 6.0
LITTLE_MEMORY = 2e9


def machine() -> Iterator[Finding]:
    """Cores, threads and memory."""
    cores, threads = available_cores(), torch.get_num_threads()
    found = f"{cores} of {os.cpu_count()} usable, {counted(threads, 'thread')}"
    mend = f"more threads than cores slow each other down: OMP_NUM_THREADS={cores}"
    yield Finding.unless(threads <= cores, "cores", found, mend)
    free = available_memory()
    if free is None:
        yield Finding("memory", "unknown on this system")
        return
    mend = "use a small batch and few workers: --set train.batch_size=16 --set data.workers=0"
    yield Finding.unless(free >= LITTLE_MEMORY, "memory", f"{rough_size(free)} available", mend)


def available_memory() -> int | None:
    """Bytes that this process may still take: what Linux says is available, or a container's limit less its use."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        free = min(free, limit - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # no container, or no limit
    return max(0, free)


def devices() -> Iterator[Finding]:
    """The processor and every GPU, and the number format that `auto` means there."""
    import torchvision  # one that does not fit torch fails here

    cpu = torch.device("cpu")
    yield Finding("processor", f"{device_name(cpu)}; precision {Precision.choose('auto', cpu).name}")
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        gpu = torch.device("cuda", number)
        free, total = torch.cuda.mem_get_info(gpu)
        room = f"{rough_size(free)} of {rough_size(total)} free"
        how = f"precision {Precision.choose('auto', gpu).name}; CUDA {torch.version.cuda}"
        yield Finding(f"GPU {number}", f"{device_name(gpu)}, {room}; {how}")
    if not torch.cuda.is_available():
        driver = Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None
        mend = "there is an NVIDIA driver: install a CUDA build of torch and torchvision"
        yield Finding.unless(not driver, "GPU", "none that PyTorch can use", mend)
    _ = torchvision


def network() -> Finding:
    """Whether pretrained weights can be downloaded; given up after a few seconds."""
    answer = ["no answer in time"]
    thread = threading.Thread(target=lambda: answer.__setitem__(0, unreachable(endpoint())), daemon=True)
    thread.start()
    thread.join(TIMEOUT)  # a look-up of a name cannot be timed out otherwise
    mend = "nothing can be downloaded: give weights as a file (model.weights=FILE), data sets with --from"
    return Finding.unless(not answer[0], "network", answer[0] or f"{endpoint()} answers", mend)


def downloads(look: bool) -> Iterator[Finding]:
    """The network (if `look`), the cache, and which weights of the recipes and the towers by name are there."""
    reached = network() if look else None
    if reached is not None:
        yield reached
    online = reached is None or reached.state == OK
    cache = Path(constants.HF_HUB_CACHE)
    count = len(list(cache.glob("models--*"))) if cache.is_dir() else 0
    yield Finding("downloads", f"{counted(count, 'model') if count else 'nothing yet'} in {cache}")
    needed = {f"--model {name}": tower.backbone for name, tower in TOWERS.items()}
    for recipe in map(load_recipe, shipped_recipes()):
        if recipe.model.weights == "pretrained":
            needed[recipe.name] = recipe.model.backbone
    there = [name for name, backbone in needed.items() if is_cached(backbone)]
    absent = [name for name in needed if name not in there]
    if there:
        yield Finding("weights", f"on this machine, for {', '.join(there)}")
    if absent:
        where = "downloaded on first use" if online else "not on this machine"
        mend = "--model NAME=FILE and model.weights=FILE take a file of weights"
        yield Finding.unless(online, "weights", f"{where}, for {', '.join(absent)}", mend)


def prepared_set(root: Path) -> Iterator[Finding]:
    """A prepared set: files, roles, leaks, one picture of each part. (`prepare --verify` reads all of it.)"""
    prepared = PreparedSet.open(root)
    manifest = prepared.manifest
    yield Finding("data set", f"{manifest.name} ({manifest.split}), identity {manifest.identity}, in {root}")
    for s in summarise(manifest):
        yield Finding(
            f"part {s.part}", f"{counted(s.classes, 'class')}, {s.sketches:,} sketches, {s.photos:,} photos"
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
        if all(leak.kind == NEAR for leak in manifest.leaks):
            mend = (
                f"every result says so; look at them ({REPORT_NAME}), leave the copies out and prepare again"
            )
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
    if in_training(chosen.path):
        yield Finding("training", "going on now")
    else:
        finished = is_finished(chosen.path, read_record(chosen.path))
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
