"""The small CLIP in the package: image and text towers for drawn pictures, so that everything that needs a
vision-language model runs without a network.

It knows the words it was trained with and nothing else (docs/puxim.md says which pictures those were). It
serves the VxL sampler only and is never used for retrieval.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from safetensors import safe_open
from torch import Tensor, nn

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.names import suggestion

WEIGHTS = Path(__file__).with_name("offline_clip.safetensors")
CONTEXT = 16
SIZE = 64
BLOCKS = 2
"""Last blocks with the second path of CLIP Surgery; the best number for this small tower."""


class WordTokenizer:
    """Whole words -> ids. 0 pads, then the words, then start and end (open_clip pools at the largest id)."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: i + 1 for i, word in enumerate(self.words)}

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.words) + 3

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Texts -> ids [len(texts), CONTEXT]. Raises UsageError for a word the model does not know."""
        return torch.tensor([self._encode(text) for text in texts], dtype=torch.long)

    def _encode(self, text: str) -> list[int]:
        words = split_words(text)
        unknown = [w for w in words if w not in self._ids]
        if unknown:
            things = [w for w in self.words if len(w) > 3]
            raise UsageError(
                f"the CLIP in the package (`offline`) has not learnt the word {unknown[0]!r}{suggestion(unknown[0], things)}; it "
                f"knows only things that the demo draws: {', '.join(things[:8])}, ...; photographs of anything else need an "
                "open_clip model, downloaded once or from a file (mask-viz: --vxl-weights FILE, recipe: method.vxl)"
            )
        inner = [self._ids[w] for w in words][: CONTEXT - 2]
        ids = [self.size - 2, *inner, self.size - 1]
        return ids + [0] * (CONTEXT - len(ids))


def split_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return "".join(c if c.isalnum() else " " for c in text.lower()).split()


class _Residual(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.body(x) + self.shortcut(x)).relu()
        return out


def build_offline_clip(vocabulary: int) -> CLIP:
    """Random weights. Image tower: 8-pixel patches from a small residual network in place of one large
    convolution, which learns from far fewer pictures, then 2 blocks of width 96; text tower: 2 blocks of
    width 64."""
    vision = CLIPVisionCfg(layers=2, width=96, head_width=32, patch_size=8, image_size=SIZE)
    text = CLIPTextCfg(context_length=CONTEXT, vocab_size=vocabulary, width=64, heads=2, layers=2)
    clip = CLIP(64, vision, text, quick_gelu=True)
    clip.visual.conv1 = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        _Residual(32, 64, 2),
        _Residual(64, 128, 2),
        _Residual(128, 128, 1),
        nn.Conv2d(128, 96, 1),
    )
    return clip


def load_offline_clip(path: Path = WEIGHTS) -> tuple[CLIP, WordTokenizer]:
    """The trained model in float32, and its tokenizer. Raises CheckpointError when the file is damaged."""
    try:
        with safe_open(path, "pt") as file:
            words = json.loads(file.metadata()["words"])
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        tokenizer = WordTokenizer(words)
        model = build_offline_clip(tokenizer.size)
        model.load_state_dict(state)
    except Exception as error:
        line = " ".join(str(error).split())[:160]
        raise CheckpointError(
            f"{path}: not the package's offline CLIP ({line}); install zssbir again"
        ) from error
    return model, tokenizer
