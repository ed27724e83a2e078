"""One pass over many images: decode in workers, embed in batches, share the work among ranks."""

from collections.abc import Callable
from contextlib import closing
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.engine.loader import image_stream
from zssbir_cli.progress import Progress, silent


def embed_all(
    embed: Callable[[Tensor], Tensor],
    images: Dataset[Tensor],
    *,
    batch_size: int,
    workers: int,
    precision: Precision,
    progress: Progress = silent,
) -> Tensor:
    """Apply `embed` (images [B, C, H, W] on the device -> [B, D]) to every item of a map-style data set of
    tensors.

    Returns float32 [N, D] on the CPU, in data-set order. Under several ranks each embeds a contiguous share,
    and all of them return the whole: complete, without duplicates, the same bits everywhere. `progress` is
    told the number of images done after each batch. Raises the data set's DataError.
    """
    total = len(images)  # type: ignore[arg-type]
    world, rank = distributed.world_size(), distributed.rank()
    bounds = [total * r // world for r in range(world + 1)]
    device = precision.device
    share = range(bounds[rank], bounds[rank + 1])
    parts: list[Tensor] = []
    progress("embedding", 0, total)
    stream = image_stream(images, share, batch_size=batch_size, workers=workers, pin=device.type == "cuda")
    with closing(stream), torch.inference_mode():
        for number, batch in enumerate(stream):
            with precision.autocast():
                parts.append(embed(batch.to(device, non_blocking=True)).float())
            progress("embedding", min(total, (number + 1) * batch_size * world), total)
        local = torch.cat(parts) if parts else torch.empty(0, 0, device=device)
        return _all_rows(local, bounds).cpu()


def _all_rows(local: Tensor, bounds: list[int]) -> Tensor:
    """Concatenate the ranks' rows, `bounds[r + 1] - bounds[r]` of rank r."""
    if distributed.world_size() == 1:
        return local
    counts = [b - a for a, b in pairwise(bounds)]
    width = int(distributed.all_max_(torch.tensor([local.shape[1]], device=local.device)).item())
    padded = local.new_zeros(max(counts), width)
    if len(local):
        padded[: len(local)] = local
    parts = distributed.gather(padded).split(max(counts))  # type: ignore[no-untyped-call]
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
