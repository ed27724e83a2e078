"""The text side of a tower: open_clip's, in the space of the tower's images."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import reason
from zssbir_cli.models.backbone import backbone_of_clip, create_backbone
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.hub import NotDownloaded, cached_file, hub_file
from zssbir_cli.models.known import TOWERS
from zssbir_cli.models.pretrained import clip_file, clip_is_cached, clip_place
from zssbir_cli.models.weights import read_state
from zssbir_cli.recipe.schema import ModelConfig

TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json")
"""Files of a tokenizer in the hub, for models that do not take CLIP's own."""

STORED = (torch.float32, torch.float16, torch.bfloat16)
"""In which precisions the same weights may have been stored."""


def text_side(backbone: str) -> tuple[str, str] | None:
    """open_clip's model and tag with the text side of a timm backbone; None when it has none."""
    return next((tower.text for tower in TOWERS.values() if tower.backbone == backbone), None)


def check_text_side(backbone: str) -> tuple[str, str]:
    """open_clip's model and tag, as `text_side`. Raises UsageError when there is none, or a package is missing."""
    found = text_side(backbone)
    if found is None:
        with_text = ", ".join(name for name, tower in TOWERS.items() if tower.text)
        raise UsageError(f"text: {backbone} has no text side; {with_text} have one")
    import open_clip

    if _tokenizer_repo(open_clip.get_model_config(found[0])) and find_spec("transformers") is None:
        raise UsageError(f"text: {found[0]} needs the text extra: python -m pip install '.[text]'")
    return found


def holds_texts(file: Path) -> bool:
    """Whether a weight file is a whole CLIP, with its text side. Errors: CheckpointError."""
    return any(name.startswith(("transformer.", "text.")) for name in read_state(file))


def text_is_here(backbone: str, file: Path | None = None) -> bool:
    """Whether `load_text_side` would need no download and no package."""
    try:
        model, tag = check_text_side(backbone)
    except UsageError:
        return False
    import open_clip

    repo = _tokenizer_repo(open_clip.get_model_config(model))
    words = not repo or all(cached_file(repo, [name]) for name in TOKENIZER_FILES)
    return words and (file is not None or clip_is_cached(model, tag))


def load_text_side(
    backbone: str, file: Path | None = None, advice: str = "", images: tuple[ModelConfig, int] | None = None
) -> TextEncoder:
    """The text encoder of a backbone, frozen, on the CPU.

    Args:
        file: a checkpoint of the whole open_clip model; default: downloaded once.
        advice: what to do with such a file, for the message when there is no network.
        images: the model that embeds the images and the side of its input; it must be the image side of that checkpoint.

    Raises UsageError (see `check_text_side`; another image side), CheckpointError (no weights).
    """
    import open_clip

    model, tag = check_text_side(backbone)
    try:
        path = file or clip_file(model, tag)
    except NotDownloaded as error:
        raise CheckpointError(
            f"the text side of {backbone} could not be downloaded: {error}; fetch {clip_place(model, tag)} on another "
            f"machine{advice and ' and '}{advice}"
        ) from error
    tokenize = _tokenizer(model)
    try:
        clip = open_clip.create_model(model, pretrained=str(path)).eval()
    except Exception as error:
        raise CheckpointError(f"{path}: not the weights of {model} ({reason(error)})") from error
    if images is not None:
        _check_same_image_side(*images, clip.visual)

    def encode(texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            out: Tensor = clip.encode_text(tokenize(list(texts)))
        return out

    return encode


def _check_same_image_side(images: ModelConfig, size: int, visual: nn.Module) -> None:
    """Words mean nothing beside an image side that was trained further without them. Raises UsageError."""
    side = {f"visual.{name}": value for name, value in visual.state_dict().items()}
    theirs = backbone_of_clip(images, size, side, images.backbone).state_dict()
    ours = create_backbone(images, size, load=True).state_dict()
    if not all(any(torch.equal(v.to(d), theirs[k].to(d)) for d in STORED) for k, v in ours.items()):
        raise UsageError(
            f"text: {images.weights} holds an image side alone, and not the one that the text side of {images.backbone} was "
            "trained with, so words cannot be compared with these photos; give the whole model as one file, or use a "
            "frozen model that has a text side, e.g. --model clip"
        )


def _tokenizer(model: str) -> Callable[[list[str]], Tensor]:
    """open_clip's tokenizer of a model: texts -> token numbers; its files come from the hub's cache, or are downloaded.

    Raises CheckpointError.
    """
    import open_clip

    config = open_clip.get_model_config(model)
    repo = _tokenizer_repo(config)
    if not repo:
        plain: Callable[[list[str]], Tensor] = open_clip.get_tokenizer(model)
        return plain
    from open_clip.tokenizer import HFTokenizer

    try:
        files = [hub_file(repo, [name]) for name in TOKENIZER_FILES]
        text = config["text_cfg"]
        made: Callable[[list[str]], Tensor] = HFTokenizer(
            str(files[0].parent), context_length=text["context_length"], **text.get("tokenizer_kwargs", {})
        )
    except (NotDownloaded, OSError, ValueError) as error:
        raise CheckpointError(
            f"the tokenizer of {model} could not be had: {reason(error)}; it is in {repo} ({', '.join(TOKENIZER_FILES)}): "
            "download it once with a network, or copy the hub's cache from a machine that has it"
        ) from error
    return made


def _tokenizer_repo(config: Any) -> str:
    """The hub's repository of a model's tokenizer; "" for CLIP's own, which open_clip brings along."""
    return str(config["text_cfg"].get("hf_tokenizer_name") or "")
