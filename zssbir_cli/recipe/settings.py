"""Changes of a recipe (`--set`): none undoes another, and each acts. Imports no torch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zssbir_cli.errors import UsageError
from zssbir_cli.methods.ama.config import AmaConfig
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.names import readable
from zssbir_cli.recipe.loader import read_change
from zssbir_cli.recipe.schema import Recipe


def check_agree(changes: Iterable[tuple[str, str]]) -> None:
    """Refuse changes of a recipe of which a later one undoes an earlier one: two values of one key, or a whole section
    after one of its keys. Each is the option as it was given, and what it means as `section.key=value`.

    Errors: UsageError.
    """
    earlier: list[tuple[str, tuple[str, ...], Any]] = []
    for option, override in changes:
        path, value = read_change(override)
        for other, before, said in earlier:
            depth = min(len(path), len(before))
            if path[:depth] == before[:depth]:
                kept = _below(value, before[depth:])
                if kept is _NOTHING or (
                    (told := _below(said, path[depth:])) is not _NOTHING and repr(told) != repr(kept)
                ):
                    raise UsageError(
                        f"{readable(option)}: undoes {readable(other)}, given before it; leave one of them out"
                    )
        earlier.append((option, path, value))


_NOTHING = object()


def _below(value: Any, path: tuple[str, ...]) -> Any:
    """What a value of a section says of a key in it; `_NOTHING` if nothing."""
    for part in path:
        value = value.get(part, _NOTHING) if isinstance(value, dict) else _NOTHING
    return value


def check_act(changes: Iterable[tuple[str, str]], recipe: Recipe) -> None:
    """Refuse a change, given as for `check_agree`, to a key that means nothing in the `recipe` that came of it. A value that
    the key has anyway passes. Errors: UsageError."""
    idle = idle_keys(recipe)
    for option, override in changes:
        for key in _leaves(*read_change(override)):
            if key in idle:
                raise UsageError(f"{readable(option)}: {key} has no effect without {idle[key]}; leave it out")


def idle_keys(recipe: Recipe) -> dict[str, str]:
    """The keys whose values, other than the defaults, mean nothing beside the recipe's other keys, each with what it takes
    for them to mean something."""
    found: dict[str, str] = {}
    for config, keys, needs, met in RULES:
        if isinstance(recipe.method, config) and not met(recipe):
            for key in keys.split():
                *sections, name = key.split(".")
                section: Any = recipe
                for part in sections:
                    section = getattr(section, part)
                default = type(section).model_fields[name].get_default(call_default_factory=True)
                if getattr(section, name) != default:
                    found.setdefault(key, needs)
    return found


def _leaves(path: Sequence[str], value: Any) -> Iterator[str]:
    """The dotted keys that a change sets."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves((*path, str(name)), inner)
    yield ".".join(path)


def _masked(recipe: Any) -> bool:
    method = recipe.method
    return method.masks != "none" and bool(method.reconstruction or method.interaction)


def _clustered(recipe: Any) -> bool:
    return bool(recipe.method.cluster or recipe.method.alignment)


Rule = tuple[type[object], str, str, Callable[[Any], bool]]
RULES: Sequence[Rule] = (
    (object, "model.mean model.std", "model.input: rgb", lambda r: r.model.input == "rgb"),
    (object, "model.lr_scale", "a backbone that is trained (model.tune)", lambda r: r.model.tune != "none"),
    (object, "optim.momentum", "optim.name: sgd", lambda r: r.optim.name == "sgd"),
    (object, "optim.final_lr", "optim.schedule: cosine", lambda r: r.optim.schedule == "cosine"),
    (TripletConfig, "method.margin", "a method.triplet_weight", lambda r: r.method.triplet_weight > 0),
    (
        TripletConfig, "method.scale", "a method.contrast_weight or class_weight",
        lambda r: r.method.contrast_weight or r.method.class_weight,
    ),
    (
        TripletConfig, "method.text_scale method.text_prompt method.text_file", "a method.text_weight",
        lambda r: r.method.text_weight > 0,
    ),
    (
        TripletConfig, "method.text_prompt method.text_file", "weights of the backbone (model.weights)",
        lambda r: r.model.weights != "none",
    ),
    (
        PuximConfig, "method.masks", "a weight of method.reconstruction or method.interaction",
        lambda r: r.method.masks == "none" or _masked(r),
    ),
    (
        PuximConfig, "method.mask_ratio method.rule method.threshold",
        "masks and a weight of method.reconstruction or method.interaction", _masked,
    ),
    (
        PuximConfig,
        " ".join(f"method.vxl.{k}" for k in ("model", "weights", "size", "blocks", "prompt", "against", "class_names")),
        "masks that a CLIP makes (method.masks: cached or online)",
        lambda r: r.method.masks in ("cached", "online"),
    ),
    (
        PuximConfig, "method.vxl.weights method.vxl.blocks", "an open_clip model (method.vxl.model)",
        lambda r: r.method.vxl.model != "offline",
    ),
    (PuximConfig, "method.mask_ratio", "rule: lowest or random", lambda r: r.method.rule != "threshold"),
    (PuximConfig, "method.threshold", "method.rule: threshold", lambda r: r.method.rule == "threshold"),
    (PuximConfig, "method.margin", "a weight of method.triplet", lambda r: r.method.triplet > 0),
    (
        PuximConfig, "method.distance", "a weight of method.triplet, or negatives: batch",
        lambda r: r.method.triplet > 0 or r.method.negatives == "batch",
    ),
    (PuximConfig, "method.scale", "a weight of method.contrast", lambda r: r.method.contrast > 0),
    (PuximConfig, "method.target", "a weight of method.reconstruction", lambda r: r.method.reconstruction > 0),
    (
        PuximConfig, " ".join(f"method.decoder_{k}" for k in ("layers", "heads", "ff", "width", "dropout")),
        "a weight of method.interaction", lambda r: r.method.interaction > 0,
    ),
    (
        AmaConfig, "method.views.local_size method.views.local_scale", "method.views.locals",
        lambda r: r.method.views.locals > 0,
    ),
    (
        AmaConfig, "method.views.drawing_scale", "method.views.drawings", lambda r: r.method.views.drawings > 0,
    ),
    (
        AmaConfig,
        " ".join(f"method.clusters.{k}" for k in ("k", "share", "iterations", "restarts", "every", "warm_start")),
        "a weight of method.cluster or method.alignment", _clustered,
    ),
    (AmaConfig, "method.cluster_start", "a weight of method.cluster or method.alignment", _clustered),
    (
        AmaConfig, "method.cluster_full method.cluster_temperature method.cc_threshold method.cc_relative",
        "a weight of method.cluster", lambda r: r.method.cluster > 0,
    ),
    (AmaConfig, "method.neighbours", "a weight of method.guidance", lambda r: r.method.guidance > 0),
    (
        AmaConfig, "method.alignment_temperature", "a weight of method.alignment", lambda r: r.method.alignment > 0,
    ),
    (
        AmaConfig, "method.pairing_start", "a weight of method.guidance or method.alignment",
        lambda r: r.method.guidance or r.method.alignment,
    ),
    (
        AmaConfig, "method.cluster", "more epochs: it begins at method.cluster_start",
        lambda r: r.method.cluster_start < r.train.epochs,
    ),
    (
        AmaConfig, "method.guidance method.alignment", "more epochs: they begin at method.pairing_start",
        lambda r: r.method.pairing_start < r.train.epochs,
    ),
    (
        AmaConfig, "method.head_weights", "a file in model.weights",
        lambda r: r.model.weights not in ("pretrained", "none"),
    ),
)  # fmt: skip
"""Of recipes with which method, which keys, what it takes for them to mean something, and whether a recipe has that."""
