"""Class names and prompts: what a vision-language model is asked about a photo."""

import re
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

CLASS_WORDS = {
    "aloe_vera": "aloe vera plant",
    "axe": "axe tool",
    "bat": "bat animal",
    "crab": "crab animal",
    "crocodilian": "crocodile",
    "fan": "electric fan",
    "jack-o-lantern": "jack-o'-lantern pumpkin",
    "jack_o_lantern": "jack-o'-lantern pumpkin",
    "mouse": "mouse animal",
    "pickup_truck": "pickup truck",
    "ray": "manta ray",
    "saw": "handsaw",
    "seal": "seal animal",
    "t-shirt": "t-shirt",
    "tank": "army tank",
    "tablelamp": "table lamp",
    "teddy_bear": "teddy bear",
}
"""Words for data-set names that the rule of `clean_class_name` leaves ambiguous or odd."""

SCENE_PROMPTS = (
    "there is a {} in the scene.",
    "there is the {} in the scene.",
    "this is a {} in the scene.",
    "this is the {} in the scene.",
    "this is one {} in the scene.",
)

TextEncoder = Callable[[Sequence[str]], Tensor]
"""Texts -> embeddings [len(texts), C], not necessarily of unit length."""


def clean_class_name(name: str, overrides: Mapping[str, str] | None = None) -> str:
    """Words a text tower understands: `car_(sedan)` -> `sedan car`, `hot-air_balloon` -> `hot air balloon`.

    `overrides` wins over `CLASS_WORDS`, which wins over the rule: a bracket moves to the front, underscores
    become blanks, and so do hyphens in a name that also has underscores.
    """
    table = {**CLASS_WORDS, **(overrides or {})}
    if name in table:
        return table[name]
    words = name.replace("-", " ") if "_" in name else name
    words = words.replace("_", " ").strip()
    match = re.fullmatch(r"(.+?)\s*\((.+)\)", words)
    if match:
        words = f"{match[2]} {match[1]}"
    return " ".join(words.split()) or name


def prompts(template: str) -> tuple[str, ...]:
    """The templates behind `template`: itself, or 85 for `ensemble` (OpenAI's 80 and 5 about scenes)."""
    if template != "ensemble":
        return (template,)
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(t("{}") for t in OPENAI_IMAGENET_TEMPLATES) + SCENE_PROMPTS


@torch.no_grad()
def encode_words(encode: TextEncoder, words: Sequence[str], template: str) -> Tensor:
    """One unit-length embedding per entry of `words`, [len(words), C] float32: the mean over the prompts of
    `template` of unit-length embeddings. The empty word gives the embedding of the empty prompt."""
    rows = []
    for word in words:
        texts = [p.replace("{}", word) for p in prompts(template)]
        rows.append(F.normalize(encode(texts).float(), dim=-1).mean(0))
    return F.normalize(torch.stack(rows), dim=-1)
