"""Which weights of a backbone are trained (`model.tune`)."""

from typing import Any

from timm.models import group_parameters
from torch import nn

from zssbir_cli.errors import UsageError


def select_trained(backbone: nn.Module, tune: str) -> None:
    """Freeze every parameter of a timm model but those that `tune` names: `all`, `norms`, `none` or `last:N`.

    Raises UsageError when there are no norm layers with weights, or fewer than N blocks.
    """
    if tune == "all":
        return
    chosen = _norms(backbone) if tune == "norms" else set[str]()
    if tune.startswith("last:"):
        chosen = _last(backbone, int(tune.removeprefix("last:")))
    if tune == "norms" and not chosen:
        raise UsageError(
            "model.tune: norms, but this backbone has no norm layers with weights; use last:N or all"
        )
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in chosen)


def _norms(backbone: nn.Module) -> set[str]:
    """Names of the parameters that norm layers of any kind hold themselves."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in backbone.named_modules()
        if "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(recurse=False)
    }


def _last(backbone: nn.Module, count: int) -> set[str]:
    """Names of the parameters of the last `count` of timm's coarse layer groups (stages of a CNN, blocks of a
    transformer); the first group is the stem, and a final norm or 1 x 1 convolution belongs to the last."""
    group_matcher: Any = getattr(backbone, "group_matcher", None)
    if group_matcher is None:
        raise UsageError(
            "model.tune: last:N, but timm knows no blocks of this backbone; use all, norms or none"
        )
    groups: dict[int, list[str]] = group_parameters(backbone, group_matcher(coarse=True))
    shapes = {name: parameter.ndim for name, parameter in backbone.named_parameters()}
    blocks = [groups[key] for key in sorted(groups)[1:]]
    while len(blocks) > 1 and all(shapes[name] == 1 for name in blocks[-1]):
        blocks[-2:] = [blocks[-2] + blocks[-1]]
    if count > len(blocks):
        raise UsageError(f"model.tune: last:{count}, but this backbone has {len(blocks)} blocks; use all")
    return {name for block in blocks[-count:] for name in block}
