"""What timm says of a backbone by name, without importing timm again: that takes longer than importing PyTorch."""

from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from zssbir_cli import files


@dataclass(frozen=True)
class Backbone:
    """A model of timm: its normalisation, and the weights that timm has of it."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int
    """Side of the input, pixels."""
    has_weights: bool
    hub: str = ""
    """Repository of the weights on the hub; else they are at `url`."""
    hub_file: str = ""
    url: str = ""


@cache
def find_backbone(name: str) -> Backbone | None:
    """timm's record of a model, with or without a tag; None when it has no such model, or no such tag of it.

    Kept in the cache folder for each version of timm. Where that cannot be read or written, timm is asked.
    """
    kept = _kept()
    if name not in kept and (found := _ask(name)):
        kept[name] = found
        with suppress(OSError):
            files.write_json(_file(), {key: asdict(value) for key, value in kept.items()})
    return kept.get(name)


def _file() -> Path:
    return files.cache_folder() / f"timm-{version('timm')}.json"


def _kept() -> dict[str, Backbone]:
    try:
        found = files.parsed(_file().read_bytes())
        return {name: _read(record) for name, record in found.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return {}


def _read(record: dict[str, Any]) -> Backbone:
    """A record as it was written. Errors: KeyError, TypeError."""
    known = {f.name: record[f.name] for f in fields(Backbone)}
    return Backbone(**{**known, "mean": tuple(known["mean"]), "std": tuple(known["std"])})


def _ask(name: str) -> Backbone | None:
    import timm

    if not timm.is_model(name):
        return None
    has_weights = timm.is_model_pretrained(name)
    if "." in name and not has_weights:
        return None
    config = timm.get_pretrained_cfg(name)
    if config is None:
        return Backbone((0.5,) * 3, (0.5,) * 3, 224, has_weights)
    mean: Any = tuple(config.mean)
    std: Any = tuple(config.std)
    return Backbone(
        mean, std, int(config.input_size[-1]), has_weights,
        config.hf_hub_id or "", str(config.hf_hub_filename or ""), str(config.url or ""),
    )  # fmt: skip
