"""The text side of a tower: open_clip's, in the space of the tower's images."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import reason
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.hub import NotDownloaded, cached_file, endpoint, unreachable
from zssbir_cli.models.pretrained import clip_file, clip_place
from zssbir_cli.models.towers import TOWERS


def text_side(backbone: str) -> tuple[str, str] | None:
    """open_clip's model and tag with the text side of a timm backbone; None when it has none."""
    return next((tower.text for tower in TOWERS.values() if tower.backbone == backbone), None)


def load_text_side(backbone: str, file: Path | None = None, advice: str = "") -> TextEncoder:
    """The text encoder of a backbone, frozen, on the CPU.

    Args:
        file: a checkpoint of the whole open_clip model; default: downloaded once.
        advice: what to do with such a file, for the message when there is no network.

    Raises UsageError (no text side, or a package is missing), CheckpointError (no weights).
    """
    import open_clip

    found = text_side(backbone)
    if found is None:
        with_text = ", ".join(name for name, tower in TOWERS.items() if tower.text)
        raise UsageError(f"{backbone} has no text side; {with_text} have one")
    model, tag = found
    try:
        path = file or clip_file(model, tag)
        tokenize = _tokenizer(model)
    except NotDownloaded as error:
        raise CheckpointError(
            f"the text side of {backbone} could not be downloaded: {error}; fetch {clip_place(model, tag)} on another "
            f"machine{advice and ' and '}{advice}"
        ) from error
    try:
        clip = open_clip.create_model(model, pretrained=str(path)).eval()
    except Exception as error:
        raise CheckpointError(f"{path}: not the weights of {model} ({reason(error)})") from error

    def encode(texts: Sequence[str]) -> Tensor:
        with torch.no_grad():
            out: Tensor = clip.encode_text(tokenize(list(texts)))
        return out

    return encode


def _tokenizer(model: str):  # type: ignore[no-untyped-def]
    """open_clip's tokenizer. Raises NotDownloaded, UsageError."""
    import open_clip

    repo = open_clip.get_model_config(model)["text_cfg"].get("hf_tokenizer_name")
    if repo and cached_file(repo, ["tokenizer_config.json"]) is None and (why := unreachable(endpoint())):
        raise NotDownloaded(why)
    try:
        return open_clip.get_tokenizer(model)
    except ImportError as error:
        raise UsageError(
            f"the texts of {model} need the text extra ({reason(error)}): python -m pip install 'zssbir[text]'"
        ) from None
    except (OSError, ValueError) as error:
        raise NotDownloaded(reason(error)) from error
