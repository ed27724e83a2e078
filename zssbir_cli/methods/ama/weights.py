"""Filling student, teacher and heads from a DINO checkpoint or a plain backbone; what stays random is
logged."""

import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from zssbir_cli.errors import CheckpointError
from zssbir_cli.methods.ama.head import DinoHead, head_state, load_head
from zssbir_cli.models.encoder import Encoder
from zssbir_cli.models.weights import load_weights, read_content, read_state

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
