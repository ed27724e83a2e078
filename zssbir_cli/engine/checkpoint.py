"""Checkpoints: a folder of `model.safetensors`, `state.pt` and `meta.json`, complete or not there.

`model.safetensors` holds the weights that retrieval uses (the average, with EMA); `state.pt` (tensors and
plain values only, read with `weights_only`) what resuming needs beyond them; `meta.json` the checksums of
both and of itself, format version, recipe and data set. A checkpoint is written beside the old one, synced and renamed; the
old one stays as `<name>.previous`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zssbir_cli import files
from zssbir_cli.engine.meta import EXPORTED, meta_text, read_meta
from zssbir_cli.engine.provenance import Learnt
from zssbir_cli.errors import CheckpointError
from zssbir_cli.methods.base import Method
from zssbir_cli.models.weights import OWN, misfit, read_safetensors

FORMAT_VERSION = 1
MODEL, STATE, META = "model.safetensors", "state.pt", "meta.json"


@dataclass(frozen=True)
class CheckpointInfo:
    """What `meta.json` says: where the run was, and what it was."""

    path: Path
    step: int
    epoch: int
    sha256: str
    """Checksum of `model.safetensors`: the identity of the weights."""
    recipe: Mapping[str, Any]
    learnt: Learnt
    """The data set: identity, classes by role, leaks."""
    metrics: Mapping[str, float]
    precision: str
    exported: str = ""
    """Which checkpoint it was before `zssbir export` packed it as a run's `best`, where it was another one."""
    note: str = ""
    """Set when this is not the checkpoint that was asked for."""

    @property
    def which(self) -> str:
        """`best`, `last`, `epoch-0004`, ..."""
        return self.exported or self.path.name


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name(path.name + ".previous")


def save(
    path: Path,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
    *,
    keep_previous: bool = False,
) -> CheckpointInfo:
    """Write the checkpoint folder `path` so that a crash at any moment leaves a complete one.

    `facts`: step, epoch, recipe, data, metrics, precision, and what else is worth keeping. Raises CheckpointError when it cannot be written
    (disk full, read-only); what was there before is then untouched.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        # one key: safetensors writes several in random order, and equal weights must be equal bytes
        known = Learnt.read(facts.get("data", {})).known
        about = json.dumps({"format": "pt", "step": facts["step"], "classes": known})
        save_file(_storable(weights), partial / MODEL, metadata={OWN: about})
        parts = [MODEL]
        if state is not None:
            torch.save(dict(state), partial / STATE)
            parts.append(STATE)
        for name in parts:
            files.sync(partial / name)
        sums = {name: _hash(partial / name) for name in parts}
        meta = {"format_version": FORMAT_VERSION, "sha256": sums, **facts}
        files.write_text(partial / META, meta_text(meta))
        files.sync_folder(partial)
        _swap_in(partial, path, keep_previous)
    except (OSError, SafetensorError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        before = "; the one before it is intact" if path.exists() else ""
        raise CheckpointError(
            f"{path}: cannot write the checkpoint ({files.reason(error)}){before}"
        ) from error
    return _info(path, meta)


def _storable(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, none sharing memory (tied weights are stored twice), as safetensors asks."""
    seen: set[int] = set()
    result = {}
    for name, tensor in weights.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.data_ptr() in seen or plain.untyped_storage().nbytes() != plain.nbytes:
            plain = plain.clone(memory_format=torch.contiguous_format)
        seen.add(plain.data_ptr())
        result[name] = plain
    return result


def _swap_in(partial: Path, path: Path, keep_previous: bool) -> None:
    """Rename `partial` to `path`; the moment in which `path` is missing leaves `.previous` complete."""
    old = previous(path)
    if path.exists():
        _remove(old)
        path.rename(old)
    partial.rename(path)
    files.sync_folder(path.parent)
    if not keep_previous:
        _remove(old)


def _remove(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def copy(source: Path, target: Path) -> None:
    """Keep the checkpoint `source` as `target` too (hard links where the file system has them)."""
    partial = target.with_name(target.name + ".partial")
    try:
        _remove(partial)
        partial.mkdir(parents=True)
        for file in sorted(source.iterdir(), key=lambda file: file.name == META):  # it last: see `inspect`
            try:
                os.link(file, partial / file.name)
            except OSError:
                shutil.copy2(file, partial / file.name)
        files.sync_folder(partial)
        _remove(target)
        partial.rename(target)
        files.sync_folder(target.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        message = f"{target}: cannot keep a copy of the checkpoint ({files.reason(error)})"
        raise CheckpointError(message) from error


def restore_previous(path: Path) -> bool:
    """Give a checkpoint that a kill between two renames left as `.previous` its name again, if it is whole.

    Returns whether `path` is there now.
    """
    before = previous(path)
    if not path.exists() and _problem(before, True) is None:
        with suppress(OSError):
            before.rename(path)
    return path.exists()


def _info(path: Path, meta: Mapping[str, Any]) -> CheckpointInfo:
    return CheckpointInfo(
        path=path,
        step=int(meta["step"]),
        epoch=int(meta["epoch"]),
        sha256=str(meta["sha256"][MODEL]),
        recipe=dict(meta["recipe"]),
        learnt=Learnt.read(meta["data"]),
        metrics=dict(meta["metrics"]),
        precision=str(meta["precision"]),
        exported=str(meta.get(EXPORTED, "")),
    )


def inspect(path: Path, *, verify: bool = True) -> CheckpointInfo:
    """Read `meta.json` and compare the checksums of all files; without `verify`, of those that changed after it was written.

    Raises CheckpointError that says what is damaged and which intact checkpoint there is to continue from.
    """
    problem = _problem(path, verify)
    if problem is None:
        return _info(path, read_meta(path / META))
    hint = "train again, or give another checkpoint"
    before = previous(path)
    if before.exists() and _problem(before, True) is None:
        step = read_meta(before / META)["step"]
        hint = f"the one before it (step {step}) is intact: continue with --resume {before}"
    raise CheckpointError(f"{path}: {problem}; {hint}")


def _problem(path: Path, verify: bool) -> str | None:
    """What is wrong with the checkpoint folder, None if nothing."""
    if not (path / META).is_file():
        return f"no checkpoint ({META} is missing)"
    try:
        found = files.parsed((path / META).read_bytes())["format_version"]
        if found != FORMAT_VERSION:
            return f"{META}: format version {found} is unknown to this zssbir, which writes {FORMAT_VERSION}"
        meta = read_meta(path / META)
        _info(path, meta)
        sums: dict[str, str] = dict(meta["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        return f"{META} is damaged ({type(error).__name__}: {error})"
    for name, expected in sums.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if (verify or _changed(file) > _changed(path / META)) and _hash(file) != expected:
            return f"{name} is damaged (its sha256 is not the one in {META})"
    return None


def _changed(path: Path) -> int:
    """When a file was last written, or put where it is, in nanoseconds."""
    found = path.stat()
    return max(found.st_mtime_ns, found.st_ctime_ns)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors of `model.safetensors`, on the CPU. Raises CheckpointError."""
    try:
        return read_safetensors(path / MODEL)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path / MODEL}: cannot be read ({files.reason(error)})") from error


def load_state(path: Path) -> dict[str, Any]:
    """What `state.pt` holds; only tensors and plain values are accepted. Raises CheckpointError."""
    try:
        state: dict[str, Any] = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path}: holds weights only and cannot be resumed; give --resume the run's folder"
        ) from error
    except Exception as error:  # torch.load raises many kinds for foreign files
        raise CheckpointError(f"{path / STATE}: cannot be read ({files.reason(error)})") from error
    return state


def load_into(
    module: torch.nn.Module, weights: Mapping[str, Tensor], path: Path, *, needed: set[str]
) -> None:
    """Copy `weights` into `module`; the names in `needed` must be there, no name may be unknown, shapes must
    agree.

    Raises CheckpointError naming the first differing tensors.
    """
    if isinstance(module, Method):
        module.before_load(weights)
    if problem := misfit(module.state_dict(), weights, needed):
        raise CheckpointError(f"{path / MODEL} was made by another recipe or version ({problem})")
    module.load_state_dict(dict(weights), strict=False)
