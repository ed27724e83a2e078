"""One pass over many images: decode in workers, embed in batches, share the work among ranks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import Dataset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision
from zssbir_cli.engine.loader import Stream
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
    share = range(bounds[rank], bounds[rank + 1])
    batches = [share[i : i + batch_size] for i in range(0, len(share), batch_size)]
    parts: list[Tensor] = []
    progress("embedding", 0, total)
    for rows in embed_batches(embed, images, batches, workers=workers, precision=precision):
        parts.append(rows)
        progress("embedding", min(total, len(parts) * batch_size * world), total)
    local = torch.cat(parts) if parts else torch.empty(0, 0, device=precision.device)
    return _all_rows(local, bounds).cpu()


def embed_batches(
    embed: Callable[[Tensor], Tensor],
    images: Dataset[Tensor],
    batches: Sequence[Sequence[int]],
    *,
    workers: int,
    precision: Precision,
) -> Iterator[Tensor]:
    """Apply `embed` to batches of item numbers, one after the other; float32 [len(batch), D] on the device.

    Every rank embeds the batches that it is given. Raises the data set's DataError.
    """
    pin = precision.device.type == "cuda"
    stream = Stream(images, [list(b) for b in batches], workers=min(workers, len(batches)), pin=pin)
    with closing(stream):
        for batch in stream:
            with torch.inference_mode(), precision.autocast():
                rows = embed(batch.to(precision.device, non_blocking=True)).float()
            yield rows


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
