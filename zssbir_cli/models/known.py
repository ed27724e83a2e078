"""Names of models and files of weights, checked without importing torch: so that a typo is answered at once."""

import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.names import did_you_mean, nearest
from zssbir_cli.recipe.loader import find_recipe

OFFLINE = "offline"
"""The name of the small CLIP in the package."""
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")
PROJECTED: Mapping[str, int | str] = {"num_classes": 512}
"""Keeps the projection into the space that CLIP shares with its texts."""


@dataclass(frozen=True)
class Tower:
    """A known tower: its backbone with timm's tag, what it is, and the open_clip model and tag of its text side."""

    backbone: str
    about: str
    options: Mapping[str, int | str] = field(default_factory=dict)
    size: int | None = None
    """Side of the input where it is not that of the weights, pixels."""
    text: tuple[str, str] | None = None


TOWERS = {
    "siglip": Tower(
        "vit_base_patch16_siglip_224.webli", "SigLIP B/16", text=("ViT-B-16-SigLIP", "webli")
    ),
    "siglip2": Tower(
        "vit_base_patch16_siglip_224.v2_webli", "SigLIP 2 B/16", text=("ViT-B-16-SigLIP2", "webli")
    ),
    "dfn": Tower(
        "vit_base_patch16_clip_224.dfn2b", "DFN CLIP B/16", {**PROJECTED, "act_layer": "quick_gelu"},
        text=("ViT-B-16-quickgelu", "dfn2b"),
    ),
    "eva02-clip": Tower(
        "eva02_base_patch16_clip_224.merged2b", "EVA-02 CLIP B/16", PROJECTED,
        text=("EVA02-B-16", "merged2b_s8b_b131k"),
    ),
    "clip": Tower(
        "vit_base_patch16_clip_quickgelu_224.openai", "OpenAI CLIP B/16", PROJECTED,
        text=("ViT-B-16-quickgelu", "openai"),
    ),
    "dinov2": Tower("vit_base_patch14_dinov2.lvd142m", "DINOv2 B/14", size=224),
    "dinov3": Tower("vit_base_patch16_dinov3.lvd1689m", "DINOv3 B/16"),
    "mobilenet": Tower("mobilenetv2_100.ra_in1k", "MobileNetV2, ImageNet"),
}  # fmt: skip
"""The order is that in which a tower is looked for on this machine when the user names none."""


def check_model_name(name: str) -> None:
    """Refuse what `find_tower` would refuse of `--model NAME`, as far as can be told without torch.

    Errors: UsageError with the nearest names, CheckpointError (no such file).
    """
    if name in TOWERS:
        return
    backbone, equals, file = name.partition("=")
    if name.endswith((".yaml", ".yml")):
        find_recipe(name)
    elif equals and not Path(name).is_file():
        check_weight_file(file)
        if backbone not in TOWERS:
            check_timm_name(backbone, "--model")
    elif Path(name).suffix.lower() in WEIGHT_FILES:
        check_weight_file(name)
    elif (known := timm_names()) and name.partition(".")[0] not in known:
        raise unknown_model(name, known)
    else:
        check_timm_name(name, "--model")


def check_weight_file(file: str) -> None:
    """Errors: CheckpointError when there is no such file."""
    if not Path(file).expanduser().is_file():
        raise CheckpointError(f"{file}: no such weight file; give an existing file, `pretrained` or `none`")


def check_timm_name(name: str, what: str = "model.backbone") -> None:
    """Errors: UsageError when timm has no such architecture, or no such weights of it (the tag behind its point). A tag that
    stands anywhere in timm's file of the architecture passes: only timm can tell of which it is."""
    architecture, _, tag = name.partition(".")
    known = timm_names()
    if known and architecture not in known:
        raise unknown_backbone(name, known, what)
    if known and tag:
        text = known[architecture].read_text("utf-8")
        tags = re.findall(rf"""["']{re.escape(architecture)}\.([\w.-]+)["']\s*:""", text)
        if tags and not _says(text, tag):
            raise unknown_weights(name, [t for t in tags if t != "untrained"], what)


def check_clip_name(
    name: str, weights: str = "", what: str = "vxl.model", of_weights: str = "vxl.weights"
) -> None:
    """Errors: UsageError when open_clip has no such model, or `weights` are no file and no tag that it has of any; `offline`
    is the model of the package."""
    if name == OFFLINE:
        return
    if (known := clip_names()) and name not in known:
        raise unknown_clip(name, known, what)
    text = "".join(file.read_text("utf-8") for file in _files("open_clip", "pretrained.py"))
    tags = sorted(set(re.findall(r"^\s*\"?([\w-]+)\"?\s*[=:]\s*_\w*cfg\(", text, re.M)))
    if weights and tags and not _says(text, weights) and not Path(weights).expanduser().is_file():
        hint = did_you_mean(nearest(weights, tags, 3))
        raise UsageError(f"{of_weights} {weights!r} is neither a file nor a tag of {name}{hint}")


def _says(text: str, tag: str) -> bool:
    """Whether a tag stands in a source file as a word, also behind the point of a name."""
    return re.search(rf"(?<![\w-]){re.escape(tag)}(?![\w.-])", text) is not None


def unknown_model(name: str, known: Collection[str]) -> UsageError:
    """The error for `--model NAME`, where timm knows the models `known`."""
    return UsageError(
        f"--model {name}: not a tower ({', '.join(TOWERS)}), a timm model, a weight file or a recipe (.yaml)"
        + did_you_mean(nearest(name.partition(".")[0], [*TOWERS, *sorted(known)], 3))
    )


def unknown_backbone(name: str, known: Collection[str], what: str) -> UsageError:
    """The error for a backbone, where timm knows the models `known`; `what` is named in the message."""
    near = nearest(name.partition(".")[0], sorted(known), 3)
    hint = did_you_mean(near) or "; `timm.list_models()` lists them"
    return UsageError(f"{what} {name!r} is not a timm model{hint}")


def unknown_weights(name: str, tags: Collection[str], what: str) -> UsageError:
    """The error for a backbone's tag, where timm knows weights of the architecture by the `tags`."""
    architecture, _, tag = name.partition(".")
    close = did_you_mean(f"{architecture}.{t}" for t in nearest(tag, sorted(tags), 3, 0.5))
    hint = close or f"; there are {', '.join(sorted(tags)) or 'none'}"
    return UsageError(f"{what} {name!r}: timm has no weights {tag!r} of {architecture}{hint}")


def unknown_clip(name: str, known: Collection[str], what: str) -> UsageError:
    """The error for a CLIP, where open_clip knows the models `known`; `what` is named in the message."""
    hint = did_you_mean(nearest(name, sorted(known), 3)) or "; try ViT-B-16-quickgelu or `offline`"
    return UsageError(f"{what} {name!r} is not an open_clip model{hint}")


def timm_names() -> Mapping[str, Path]:
    """The architectures of timm, each with the file that registers it. Empty where only timm itself can tell: when it is
    loaded, as more may be registered with it, and when its files look otherwise than expected."""
    return {} if "timm" in sys.modules else _timm_files()


@cache
def _timm_files() -> Mapping[str, Path]:
    """The names that timm's source files register, in a tenth of the time that importing it takes."""
    registered = re.compile(r"^@register_model\s+def (\w+)\(", re.M)
    old = re.compile(r"^\s+'(\w+)': '[\w.]+',", re.M)
    names: dict[str, Path] = {}
    for file in _files("timm", "models/*.py"):
        text = file.read_text("utf-8")
        names |= dict.fromkeys(registered.findall(text), file)
        names |= dict.fromkeys(old.findall(text.partition("register_model_deprecations(")[2]), file)
    return names


@cache
def clip_names() -> frozenset[str]:
    """The models of open_clip: it has a file of settings for each."""
    return frozenset(file.stem for file in _files("open_clip", "model_configs/*.json"))


def _files(package: str, pattern: str) -> Iterator[Path]:
    """Files of an installed package, which is not imported."""
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        yield from Path(folder).glob(pattern)
