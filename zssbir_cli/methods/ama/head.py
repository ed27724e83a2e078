"""The DINO projection head (Caron et al. 2021), its two spellings in checkpoints, and filling both networks from a file."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zssbir_cli.errors import CheckpointError
from zssbir_cli.methods.ama.config import HeadConfig
from zssbir_cli.models.encoder import Encoder
from zssbir_cli.models.weights import load_weights, misfit, read_content, read_state


class DinoHead(nn.Module):
    """[N, D] -> [N, K]: linear layers with GELU, unit length, then a weight-normalised linear layer.

    The last layer's rows have direction `weight_v` [K, bottleneck] and length `weight_g` [K, 1]; the lengths
    are 1 and not trained unless `train_norm` is set.
    """

    def __init__(self, dim: int, config: HeadConfig) -> None:
        super().__init__()
        widths = [dim, *[config.hidden] * (config.layers - 1), config.bottleneck]
        layers: list[nn.Module] = []
        for i in range(config.layers):
            linear = nn.Linear(widths[i], widths[i + 1])
            nn.init.trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)
            layers += [linear, nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.weight_v = nn.Parameter(torch.empty(config.out_dim, config.bottleneck))
        nn.init.trunc_normal_(self.weight_v, std=0.02)
        self.weight_g = nn.Parameter(torch.ones(config.out_dim, 1), requires_grad=config.train_norm)

    def forward(self, x: Tensor) -> Tensor:
        """Features [N, D] -> logits [N, K], each a cosine times the row's length."""
        rows = self.weight_v * (self.weight_g / torch.linalg.vector_norm(self.weight_v, dim=1, keepdim=True))
        return F.linear(F.normalize(self.mlp(x).float(), dim=-1), rows)


_NAMES = {
    "last_layer.weight_g": "weight_g",
    "last_layer.weight_v": "weight_v",
    "last_layer.parametrizations.weight.original0": "weight_g",
    "last_layer.parametrizations.weight.original1": "weight_v",
}


def head_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head's tensors in a DINO state dict under `DinoHead`'s names; empty when it holds none.

    Understands `module.` prefixes and both forms of weight normalisation (weight_g / weight_v, and the
    parametrised original0 / original1).
    """
    found = {}
    for key, value in state.items():
        name = key.removeprefix("module.")
        if name.startswith("head.") and not name.startswith(("head.weight", "head.bias")):
            name = name.removeprefix("head.")
            found[_NAMES.get(name, name)] = value
    return found


def load_head(head: DinoHead, state: Mapping[str, Tensor], source: str) -> None:
    """Fill every tensor of `head` from `state` (see `head_state`). Raises CheckpointError otherwise."""
    if problem := misfit(head.state_dict(), state):
        raise CheckpointError(
            f"{source}: its DINO head does not fit method.head ({problem}); adapt method.head, or set "
            f"method.head_weights=none"
        )
    head.load_state_dict(dict(state))


log = logging.getLogger("zssbir")


def load_networks(
    path: Path,
    student: tuple[Encoder, DinoHead],
    teacher: tuple[Encoder, DinoHead],
    centers: Tensor,
    *,
    heads: bool = True,
) -> None:
    """Fill both networks from `path`.

    A DINO full checkpoint (entries `student` and `teacher`) fills each network and its head from its own
    entry, and the centre when it is there; any other weight file fills both encoders alike, and both heads
    when it holds one. Heads that stay random are named in the log. centers: [1 or 2, K], filled in place.
    Raises CheckpointError for a file that does not fit.
    """
    content = read_content(path)
    full = isinstance(content, Mapping) and all(
        isinstance(content.get(n), Mapping) for n in ("student", "teacher")
    )
    filled: list[str] = []
    for name, (encoder, head) in (("student", student), ("teacher", teacher)):
        state = read_state(path, name if full else None)
        source = f"{path} ({name})" if full else str(path)
        load_weights(encoder.backbone, state, source)
        found = head_state(state)
        if heads and found:
            load_head(head, found, source)
            filled.append(name)
    if len(filled) == 1:
        raise CheckpointError(
            f"{path}: only its {filled[0]} has a DINO head; set method.head_weights=none to start both at random"
        )
    if not filled:
        teacher[1].load_state_dict(student[1].state_dict())
        log.warning(
            "%s fills the encoders; the DINO heads start random (%s)",
            path,
            "it holds none" if heads else "as asked",
        )
    elif full and isinstance(content, Mapping):
        _load_center(content, centers, path)


def _load_center(content: Mapping[object, object], centers: Tensor, path: Path) -> None:
    loss = content.get("dino_loss")
    center = loss.get("center") if isinstance(loss, Mapping) else None
    if isinstance(center, Tensor):
        if center.numel() != centers.shape[1]:
            raise CheckpointError(
                f"{path}: its DINO centre has {center.numel()} values, the head {centers.shape[1]}"
            )
        with torch.no_grad():
            centers.copy_(center.reshape(1, -1).expand_as(centers))
