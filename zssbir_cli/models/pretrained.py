"""Which pretrained weights there are by name, and the file of them: timm's backbones and open_clip's models."""

from pathlib import Path

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.models.hub import NotDownloaded, cached_file, hub_file, url_file
from zssbir_cli.models.known import unknown_backbone, unknown_weights
from zssbir_cli.models.timm_records import Backbone, find_backbone

TIMM_FILES = ("model.safetensors", "pytorch_model.bin")
CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def check_backbone(name: str, what: str = "model.backbone") -> None:
    """Raise UsageError when timm has no such model, or no such weights of it; `what` is named in the message."""
    if find_backbone(name):
        return
    import timm

    if not timm.is_model(name):
        raise unknown_backbone(name, timm.list_models(), what)
    names = timm.list_pretrained(f"{name.partition('.')[0]}.*")
    raise unknown_weights(name, [known.partition(".")[2] for known in names], what)


def weights_config(name: str) -> Backbone | None:
    """timm's record of a backbone's weights (input size, mean, std, where they are); None when it has none."""
    found = find_backbone(name)
    return found if found and found.has_weights else None


def is_cached(name: str) -> bool:
    """Whether a backbone's pretrained weights are in the hub's cache on this machine."""
    config = weights_config(name)
    if config is None or not config.hub:
        return False
    return cached_file(config.hub, _names(config.hub_file, TIMM_FILES)) is not None


def timm_file(name: str, tower: str = "") -> Path:
    """The file with a backbone's pretrained weights: cached, or downloaded. `tower`: its name where it is no recipe's.

    Raises UsageError when there are none, CheckpointError that says how to have them without a network.
    """
    config = weights_config(name)
    if config is None:
        raise UsageError(
            f"model.backbone {name!r}: timm has no pretrained weights of it; give a file of weights"
        )
    names = _names(config.hub_file, TIMM_FILES)
    try:
        return hub_file(config.hub, names) if config.hub else url_file(config.url)
    except NotDownloaded as error:
        where = f"{names[0]} of {config.hub}" if config.hub else config.url
        how = (
            f"give it as --model {tower}=FILE"
            if tower
            else "set model.weights to it, or to none for a random start"
        )
        raise CheckpointError(
            f"the weights of {name} could not be downloaded: {error}; fetch {where} on another machine and {how}"
        ) from error


def clip_file(model: str, tag: str) -> Path:
    """The file with the weights `tag` of an open_clip model: cached, or downloaded. Raises NotDownloaded."""
    repo, names, url = _clip_source(model, tag)
    return hub_file(repo, names) if repo else url_file(url)


def clip_is_cached(model: str, tag: str) -> bool:
    """Whether `clip_file` would find its file in the hub's cache."""
    repo, names, _ = _clip_source(model, tag)
    return bool(repo) and cached_file(repo, names) is not None


def clip_place(model: str, tag: str) -> str:
    """Where `clip_file` has its file from, in words."""
    repo, names, url = _clip_source(model, tag)
    return f"{names[0]} of {repo}" if repo else url


def _clip_source(model: str, tag: str) -> tuple[str, tuple[str, ...], str]:
    """The hub's repository ("" = none) with file names to try, and the address outside of the hub."""
    from open_clip.pretrained import get_pretrained_cfg

    config = get_pretrained_cfg(model, tag)
    repo, _, name = config.get("hf_hub", "").rpartition("/")
    return repo, _names(name, CLIP_FILES), str(config.get("url", ""))


def _names(file: str, usual: tuple[str, ...]) -> tuple[str, ...]:
    """File names to try: a given one after its safetensors twin."""
    if not file:
        return usual
    twin = str(Path(file).with_suffix(".safetensors"))
    return tuple(dict.fromkeys((twin, file)))
