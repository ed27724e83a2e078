"""Loading weight files into modules. Nothing is ever silently random."""

import argparse
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file
from torch import Tensor, nn

from zssbir_cli.errors import CheckpointError
from zssbir_cli.files import parsed, reason

PREFIXES = ("module.", "backbone.", "encoder.", "model.", "student.", "teacher.")
CONTAINERS = (
    "state_dict", "model", "model_state_dict", "teacher", "student", "net", "model_ema", "module", "ema",
)  # fmt: skip
HEADS = ("head.", "fc.", "classifier.", "head_dist.", "fc_norm.")
DERIVED = ("num_batches_tracked", "relative_position_index", "attn_mask")
"""Buffers that some versions of a model store and others compute."""
OWN = "zssbir"
"""Key of the metadata of the .safetensors files of runs: JSON, with the `classes` that the weights learnt from."""
log = logging.getLogger("zssbir")


def read_state(path: Path, container: str | None = None) -> dict[str, Tensor]:
    """Read a state dict from `.safetensors`, or from a `.pth` / `.pt` file without running pickled code.

    `container` picks one entry of a checkpoint that holds several (e.g. `teacher` of a DINO checkpoint);
    by default the usual entries are tried in turn. Raises `CheckpointError`.
    """
    content = read_content(path)
    state = _unpack(content, container)
    if not state:
        keys = _some(sorted(map(str, content)), 8) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{path}: holds no tensors, but {keys or 'nothing'}; expected a state dict")
    return state


def read_content(path: Path) -> object:
    """What a weight file holds, as it is; a `.pth` / `.pt` file may also hold the settings that argparse made
    (DINO's checkpoints do), and nothing else that runs code. Raises `CheckpointError`."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such weight file; give an existing file, `pretrained` or `none`")
    try:
        if path.suffix == ".safetensors":
            return read_safetensors(path)
        with torch.serialization.safe_globals([argparse.Namespace]):
            content: object = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except Exception as error:
        raise CheckpointError(f"{path}: not a readable weight file ({_why(path, error)})") from error


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file, on the CPU. Raises OSError, SafetensorError."""
    try:
        str(path).encode()
    except UnicodeEncodeError:  # the library opens no path that is not UTF-8
        return load(path.read_bytes())
    return load_file(path)


def learnt_before(path: Path) -> tuple[str, ...] | None:
    """The classes that a weight file was trained on or selected by, where it is of a run; None for any other file.

    Raises `CheckpointError` when it is of a run that an older version made, and neither it nor a meta.json beside it
    names them.
    """
    try:
        with safe_open(path, "pt") as file:
            own = (file.metadata() or {}).get(OWN)
    except (OSError, SafetensorError):
        return None  # another kind of file; reading it later says what is wrong
    if own is None:
        return None
    try:
        about = parsed(own)
        if "classes" not in about:
            roles = parsed((path.parent / "meta.json").read_bytes())["data"]["classes"]
            about["classes"] = [*roles["seen"], *roles["val"]]
        return tuple(map(str, about["classes"]))
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(
            f"{path}: weights of a run that an older zssbir trained; on which classes is not known, so that nothing could "
            "be called unseen; take those of a run that knows them"
        ) from None


def _why(path: Path, error: Exception) -> str:
    """Why a weight file cannot be read, in words of what it is."""
    with suppress(OSError):
        with path.open("rb") as file:
            head = file.read(200).lstrip().lower()
        if head.startswith(b"version https://git-lfs"):
            return "it is a Git LFS pointer: fetch the file itself with `git lfs pull`"
        if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
            return "it is an HTML page, as a failed download leaves it: download it again"
        if not head:
            return "it is empty"
    with suppress(Exception):
        if types := torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return (
                f"beside tensors it holds {_some(sorted(types))}, and only tensors and plain values are read: "
                "save its state dict alone, best as .safetensors"
            )
    return f"damaged or cut short: {reason(error)}"


def _unpack(content: object, container: str | None) -> dict[str, Tensor]:
    if isinstance(content, Mapping):
        for name in (container,) if container else CONTAINERS:
            inner = content.get(name)
            if isinstance(inner, Mapping):
                return _unpack(inner, None)
        return {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    return {}


def strip_prefixes(state: Mapping[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Rename keys that match `wanted` names once known wrappers (`module.`, `backbone.`, ...) are removed."""

    def rename(key: str) -> str:
        stripped = key
        while stripped not in wanted:
            prefix = next((p for p in PREFIXES if stripped.startswith(p)), None)
            if prefix is None:
                return key
            stripped = stripped.removeprefix(prefix)
        return stripped

    return {rename(k): v for k, v in state.items()}


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Fill `module` from `state`. Classifier heads in the file may be left over; other modules that this one does
    not have (a decoder, a projector) are named in the log.

    Position embeddings of another input size are resampled. Raises `CheckpointError` that names what did
    not match when any parameter of `module` stays unfilled or has another shape, or when the file holds more
    of a part of it: then it is of a deeper network.
    """
    own = module.state_dict()
    named = strip_prefixes(state, set(own))
    fitted = {k: _fit_positions(k, v, own[k]) for k, v in named.items() if k in own}
    wrong = _other_shapes(fitted, own)
    missing = [k for k in own if k not in fitted and not k.endswith("num_batches_tracked")]
    unused = [k for k in named if k not in own and not k.startswith(HEADS) and not k.endswith(DERIVED)]
    parts = {k.partition(".")[0] for k in own if "." in k}
    deeper = [k for k in unused if k.partition(".")[0] in parts]
    if wrong or missing:
        problem = f"{len(missing)} of {len(own)} tensors are missing ({_some(missing)})" if missing else ""
        problem += f"{'; ' if missing and wrong else ''}{f'other shapes: {_some(wrong)}' if wrong else ''}"
        left = f"; the file's own names begin {_some(unused)}" if unused else ""
        raise CheckpointError(f"{source}: does not fit the model: {problem}{left}; check model.backbone")
    broken = [k for k, v in fitted.items() if v.is_floating_point() and not bool(torch.isfinite(v).all())]
    if broken:
        raise CheckpointError(f"{source}: holds NaN or infinite weights ({_some(broken)}); take another file")
    if deeper:
        raise CheckpointError(
            f"{source}: {len(deeper)} of its {len(named)} tensors have no place in the model ({_some(deeper)}): it is of "
            "a larger network; check model.backbone"
        )
    if unused:
        log.warning("%s: not used, the model has no such parts: %s", source, _some(unused))
    module.load_state_dict(fitted, strict=False)


def misfit(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], needed: Collection[str] | None = None
) -> str:
    """Why `state` is not the state dict of a module whose own is `own`, naming the first tensors; "" if it fits.

    needed: the names that must be there; default: all of them.
    """
    problems = {
        "missing tensors": sorted(set(own if needed is None else needed) - state.keys()),
        "unknown tensors": sorted(state.keys() - own.keys()),
        "other shapes": _other_shapes(state, own),
    }
    return "; ".join(f"{what}: {_some(names)}" for what, names in problems.items() if names)


def _other_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    pairs = ((name, state[name].shape, value.shape) for name, value in own.items() if name in state)
    return [f"{name} {tuple(found)} for {tuple(wanted)}" for name, found, wanted in pairs if found != wanted]


def _fit_positions(name: str, value: Tensor, target: Tensor) -> Tensor:
    if not name.endswith("pos_embed") or value.ndim != 3 or value.shape == target.shape:
        return value
    if value.shape[2] != target.shape[2]:
        return value
    from timm.layers.pos_embed import resample_abs_pos_embed

    side = int(target.shape[1] ** 0.5)
    prefix = target.shape[1] - side * side
    old = value.shape[1] - prefix
    if old <= 0 or int(old**0.5) ** 2 != old:
        return value
    resampled: Tensor = resample_abs_pos_embed(value, [side, side], num_prefix_tokens=prefix)
    return resampled


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
