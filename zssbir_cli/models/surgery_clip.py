"""A frozen CLIP with surgery: photos and texts in, one score per patch out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import reason
from zssbir_cli.models.clip_text import clean_class_name, encode_words
from zssbir_cli.models.hub import NotDownloaded
from zssbir_cli.models.known import OFFLINE, unknown_clip
from zssbir_cli.models.pretrained import clip_file, clip_place
from zssbir_cli.models.surgery import SurgeryTower, feature_surgery, single_text_similarity


class SurgeryClip(nn.Module):
    """CLIP Surgery's image tower with CLIP's own input size and normalisation, and the text tower.

    All parameters are frozen and the module stays in eval mode. Build one with `load_surgery_clip`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        clip: nn.Module,
        tokenize: Callable[[Sequence[str]], Tensor],
        *,
        name: str,
        blocks: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.name, self.size, self._tokenize = name, size, tokenize
        self.clip = clip.eval().requires_grad_(False)
        self.tower = SurgeryTower(clip.visual, blocks)  # type: ignore[arg-type]
        self.register_buffer("mean", torch.tensor(list(mean)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(list(std)).view(1, 3, 1, 1), persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "SurgeryClip":
        """Stays in eval mode."""
        return super().train(False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        side = self.size // self.tower.patch
        return side, side

    @torch.no_grad()
    def tokens(self, images: Tensor) -> Tensor:
        """Photos, uint8 [B, 3, H, W] of any size -> unit-length tokens [B, 1 + N, C], class token first."""
        x = images.float() / 255
        if x.shape[-2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        x = (x.clamp(0, 1) - self.mean) / self.std
        return F.normalize(self.tower(x).float(), dim=-1)  # over channels, not over tokens as published

    @torch.no_grad()
    def texts(self, words: Sequence[str], prompt: str) -> Tensor:
        """Words -> unit-length embeddings [len(words), C] float32, each in the prompt (or prompts)."""

        def encode(texts: Sequence[str]) -> Tensor:
            out: Tensor = self.clip.encode_text(self._tokenize(texts).to(self.mean.device))  # type: ignore[operator]
            return out

        return encode_words(encode, words, prompt)


class ClassScorer:
    """Patch scores of photos for their own class names.

    Args:
        clip: the model. names: class names by label, as in the data set.
        prompt, against, overrides: see `VxlConfig` (`prompt`, `against`, `class_names`).
        contrast: labels of the classes that `against: classes` contrasts with.
    """

    def __init__(
        self,
        clip: SurgeryClip,
        names: Sequence[str],
        *,
        prompt: str,
        against: str,
        overrides: dict[str, str] | None = None,
        contrast: Sequence[int] = (),
    ) -> None:
        self.clip, self.against = clip, against
        self.labels = sorted(contrast) if contrast else list(range(len(names)))
        self._row = {label: row for row, label in enumerate(self.labels)}
        words = [clean_class_name(names[label], overrides) for label in self.labels]
        self._text = clip.texts(words, prompt)
        # The published sampler passes the two texts ['a', class name], both in the prompt.
        self._other = clip.texts(["a" if against == "article" else ""], prompt)[0]

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Photos uint8 [B, 3, H, W], labels [B] -> scores float32 [B, h, w], higher = more like the class."""
        tokens = self.clip.tokens(images)
        rows = torch.tensor([self._row[int(label)] for label in labels], device=tokens.device)
        scores = similarity(tokens, self._text, rows, self._other, self.against)
        return scores[:, 1:].reshape(len(scores), *self.clip.grid)


def similarity(tokens: Tensor, text: Tensor, rows: Tensor, other: Tensor, against: str) -> Tensor:
    """Score of each token for its image's text, [B, I].

    tokens [B, I, C]; text [N, C]; rows [B], which text belongs to each image; other [C], the text for
    `article` and `empty`; against: `article`, `empty` or `classes` (all of `text`).
    """
    own = text[rows]
    if against == "empty":
        return single_text_similarity(tokens, own[:, None], other)[..., 0]
    if against == "article":
        return feature_surgery(tokens, torch.stack([other.expand_as(own), own], 1))[..., 1]
    index = rows.view(-1, 1, 1).expand(-1, tokens.shape[1], 1)
    return feature_surgery(tokens, text).gather(2, index)[..., 0]


def load_surgery_clip(
    model: str, weights: str, *, size: int | None = None, blocks: int = 6, device: torch.device | None = None
) -> SurgeryClip:
    """Load a CLIP and operate on it.

    Args:
        model: `offline`, or an open_clip model name. weights: an open_clip tag or a file (not for `offline`).
        size: side of the input in pixels (a multiple of the patch); default: the model's own.
        blocks: last blocks with a second path (`offline` has its own number).

    Errors: UsageError: no such model or tag; CheckpointError: no weights (no network, no file).
    """
    if model == OFFLINE:
        from zssbir_cli.models.offline_clip import BLOCKS, SIZE, load_offline_clip

        clip, words = load_offline_clip()
        half = (0.5, 0.5, 0.5)
        built = SurgeryClip(clip, words, name=OFFLINE, blocks=BLOCKS, size=size or SIZE, mean=half, std=half)
    else:
        built = _load_open_clip(model, weights, size, blocks)
    patch = built.tower.patch
    if built.size % patch:
        raise UsageError(f"vxl.size {built.size} is not a multiple of the {patch}-pixel patches of {model}")
    return built.to(device) if device is not None else built


def weights_file(model: str, weights: str) -> Path:
    """The file of weights that `load_surgery_clip` reads for these options; a tag's is downloaded if need be.

    Raises as `load_surgery_clip` does.
    """
    if model == OFFLINE:
        from zssbir_cli.models.offline_clip import WEIGHTS

        return WEIGHTS
    if weights not in _tags(model, weights):
        return Path(weights).expanduser()
    try:
        return clip_file(model, weights)
    except NotDownloaded as error:
        raise CheckpointError(
            f"the weights {weights!r} of {model} could not be loaded ({error}); without a network fetch "
            f"{clip_place(model, weights)} elsewhere and give the file (mask-viz: --vxl-weights FILE, recipe: "
            "method.vxl.weights); the CLIP in the package needs none, but knows the demo's drawn pictures only (--vxl "
            "offline, method.vxl.model)"
        ) from error


def _tags(model: str, weights: str) -> list[str]:
    """The tags of an open_clip model. Raises UsageError when there is no such model, tag or file."""
    import open_clip

    if model not in open_clip.list_models():
        raise unknown_clip(model, open_clip.list_models(), "vxl.model")
    tags: list[str] = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags and not Path(weights).expanduser().is_file():
        known = ", ".join(tags[:6]) or "none"
        raise UsageError(f"vxl.weights {weights!r} is neither a file nor a tag of {model} (tags: {known})")
    return tags


def _load_open_clip(model: str, weights: str, size: int | None, blocks: int) -> SurgeryClip:
    import open_clip

    file = weights_file(model, weights)
    known = open_clip.get_pretrained_cfg(model, weights) or {}
    try:
        clip = open_clip.create_model(model, pretrained=str(file))
    except Exception as error:
        raise CheckpointError(
            f"{file}: not weights of {model} that can be read ({reason(error)[:120]})"
        ) from error
    visual = clip.visual
    native = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    return SurgeryClip(
        clip,
        open_clip.get_tokenizer(model),
        name=f"{model}/{weights}",
        blocks=blocks,
        size=size or int(native),
        mean=known.get("mean") or getattr(visual, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN,
        std=known.get("std") or getattr(visual, "image_std", None) or open_clip.OPENAI_DATASET_STD,
    )
