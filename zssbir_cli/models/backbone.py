"""A timm backbone as the recipe says, with its weights; an option or a size that it does not take is told by its key."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zssbir_cli.compute.memory import out_of_memory
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import reason
from zssbir_cli.models.pretrained import timm_file
from zssbir_cli.models.weights import load_weights, read_state
from zssbir_cli.recipe.schema import ModelConfig


def create_backbone(config: ModelConfig, size: int, load: bool) -> nn.Module:
    """The backbone for inputs of `size` pixels; `load=False` leaves its weights random.

    Raises UsageError (options that it does not take), CheckpointError (weights that cannot be had or do not fit).
    """
    if not load or config.weights == "none":
        return _create(config, size)
    if config.weights == "pretrained":
        file = timm_file(config.backbone)
        overlay: dict[str, Any] = {"file": str(file), "custom_load": False}
        backbone = _create_with(config, size, overlay, f"{file}: these weights do not fit {config.backbone}")
        if config.options:
            _check_complete(backbone, config, size, overlay)
        return backbone
    state = read_state(Path(config.weights).expanduser())
    image_side = {k: v for k, v in state.items() if k.startswith("visual.")}
    if not image_side:
        backbone = _create(config, size)
        load_weights(backbone, state, config.weights)
        return backbone
    return backbone_of_clip(config, size, image_side, config.weights)


def backbone_of_clip(
    config: ModelConfig, size: int, image_side: Mapping[str, Tensor], whose: str
) -> nn.Module:
    """The backbone with the weights of a CLIP's image side (names as in open_clip, with `visual.`); `whose` is named in
    messages. timm knows how they become this backbone, and is strict about it. Raises UsageError, CheckpointError."""
    classes = _options(config)["num_classes"]
    overlay = {"state_dict": dict(image_side), "custom_load": False, "num_classes": classes}
    misfit = f"{whose}: the image side of this CLIP does not fit {config.backbone}"
    backbone = _create_with(config, size, overlay, misfit)
    record: Any = backbone.pretrained_cfg
    record["state_dict"] = None
    return backbone


def unfit(
    config: ModelConfig, size: str, error: Exception, works: Callable[[ModelConfig], bool]
) -> UsageError:
    """What to say when a backbone cannot be made, or takes no input: the key at fault, its value, what the library says.

    Args:
        size: the input's side as it is written in a recipe, `data.size = 224`.
        works: whether another configuration does; so the options at fault are found.
    """
    without = {
        f"model.options.{k} = {v!r}": {"options": {n: w for n, w in config.options.items() if n != k}}
        for k, v in config.options.items()
    } | {f"model.{k} = {v}": {k: 0.0} for k in ("drop_rate", "drop_path") if (v := getattr(config, k))}
    blamed = [text for text, change in without.items() if works(config.model_copy(update=change))]
    if not blamed:
        plain = config.model_copy(update={"options": {}, "drop_rate": 0.0, "drop_path": 0.0})
        blamed = list(without) if without and works(plain) else [size]
    said = reason(error) if str(error) and not isinstance(error, KeyError) else f"{error!r}"
    return UsageError(f"{', '.join(blamed)}: {config.backbone} does not take this ({said})")


def _create(config: ModelConfig, size: int) -> nn.Module:
    try:
        return _timm_model(config, size)
    except Exception as error:
        if out_of_memory(error):
            raise
        raise unfit(config, f"data.size = {size}", error, lambda other: _can_create(other, size)) from error


def _create_with(config: ModelConfig, size: int, overlay: dict[str, Any], misfit: str) -> nn.Module:
    """`_create` with weights that timm loads itself; `misfit` begins the message when they do not fit."""
    try:
        return _timm_model(config, size, pretrained_cfg_overlay=overlay)
    except Exception as error:
        if out_of_memory(error):
            raise
        _create(config, size)  # raises when it is not the weights
        options = f" with model.options {config.options}" if config.options else ""
        raise CheckpointError(f"{misfit}{options} ({reason(error)})") from error


def _check_complete(backbone: nn.Module, config: ModelConfig, size: int, overlay: dict[str, Any]) -> None:
    """timm leaves random, with a warning only, what an option has added to the network of its weights: such tensors differ
    from one start to the next. Raises CheckpointError."""
    with torch.random.fork_rng():
        torch.manual_seed(torch.initial_seed() + 1)
        again = _timm_model(config, size, pretrained_cfg_overlay=overlay).state_dict()
    if left := [k for k, v in backbone.state_dict().items() if not torch.equal(v, again[k])]:
        raise CheckpointError(
            f"model.options {config.options}: the pretrained weights of {config.backbone} lack {left[0]} and "
            f"{len(left) - 1} more, which would stay random; leave out the option, or set model.weights to a file"
        )


def _can_create(config: ModelConfig, size: int) -> bool:
    try:
        _timm_model(config, size)
    except Exception:
        return False
    return True


def _options(config: ModelConfig) -> dict[str, Any]:
    """The arguments of `timm.create_model`."""
    rates = {"drop_rate": config.drop_rate, "drop_path_rate": config.drop_path}
    return {"num_classes": 0, **config.options, **{k: v for k, v in rates.items() if v}}


def _timm_model(config: ModelConfig, size: int, **weights: Any) -> nn.Module:
    """Pass `img_size` to models that have a fixed input size; others (CNNs) do not know the argument."""
    import timm  # it takes longer than PyTorch: only where a network is built

    options = {**_options(config), **weights, "pretrained": bool(weights)}
    try:
        model: nn.Module = timm.create_model(config.backbone, img_size=size, **options)
    except TypeError as error:
        if "img_size" not in str(error):
            raise
        model = timm.create_model(config.backbone, **options)
    return model
