"""Clusters of the un-augmented training images, per modality and level: what the batch losses look up."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.errors import DataError
from zssbir_cli.methods.ama.config import ClusterConfig
from zssbir_cli.methods.base import Growing
from zssbir_cli.retrieval.kmeans import KMeansResult, kmeans
from zssbir_cli.types import Modality


def adapted_k(k: Sequence[int], images: int, share: float) -> tuple[int, ...]:
    """Clusters per level for a set of `images`: all scaled down together when the finest exceeds share * images.

    At least 2, and rising from level to level. Raises DataError when there are too few images for that.
    """
    most = int(share * images)
    if k[-1] <= most:
        return tuple(k)
    scaled: list[int] = []
    for level in k:
        scaled.append(max(round(level * most / k[-1]), scaled[-1] + 1 if scaled else 2))
    if scaled[-1] > images:
        raise DataError(
            f"{images} training images are too few for {len(k)} levels of clusters; shorten method.clusters.k"
        )
    return tuple(scaled)


class Clusters(Growing):
    """Prototypes and assignments of one modality, as buffers.

    `labels`: int32 [L, N], cluster of each training image at each level; `prototypes()`: per level unit float32
    [K_l, D]. Empty until the first clustering.
    """

    labels: Tensor

    def __init__(self, levels: int, dim: int) -> None:
        super().__init__()
        self.levels, self.dim = levels, dim
        self.register_buffer("labels", torch.zeros(levels, 0, dtype=torch.int32))
        for level in range(levels):
            self.register_buffer(f"prototypes_{level}", torch.zeros(0, dim))

    @property
    def ready(self) -> bool:
        """Whether there are clusters yet."""
        return self.labels.shape[1] > 0

    def prototypes(self) -> list[Tensor]:
        """Unit centroids of each level, [K_l, D]."""
        return [self.get_buffer(f"prototypes_{level}") for level in range(self.levels)]

    def put(self, level: int, centroids: Tensor, labels: Tensor) -> None:
        """Take in the clusters of a level: unit centroids [K, D], labels [N]."""
        if self.labels.shape[1] != labels.shape[0]:
            self.labels = torch.zeros(self.levels, len(labels), dtype=torch.int32, device=self.labels.device)
        self.labels[level] = labels.to(self.labels)
        setattr(self, f"prototypes_{level}", centroids.to(self.labels.device))


def recluster(
    clusters: Mapping[Modality, Clusters],
    features: Mapping[Modality, Tensor],
    config: ClusterConfig,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Cluster each modality's features [N, D] at every level; the same on every rank.

    The levels and modalities are independent problems: ranks share them out and exchange the results, which are
    those of one process. `say` is told when there are fewer clusters than asked for, or clusters without an image.
    Randomness comes from PyTorch's global generator, which the engine seeds alike on all ranks.
    Returns values to log, per modality and number of clusters: the mean cosine of an image to its prototype
    (`similarity`), clusters that had lost all images and were given new ones (`refilled`), and clusters that have
    none (`empty`; only where fewer different features exist than clusters).
    """
    jobs = []
    for modality in clusters:
        images = features[modality].shape[0]
        levels = adapted_k(config.k, images, config.share)
        if levels != tuple(config.k):
            say(
                f"{images} training images ({modality.word}): {', '.join(map(str, levels))} clusters instead of "
                f"{', '.join(map(str, config.k))} (at most {config.share:g} of the images, method.clusters.share)"
            )
        jobs += [(modality, level, k) for level, k in enumerate(levels)]
    seeds = torch.randint(2**62, (len(jobs),)).tolist()
    world, mine = distributed.world_size(), {}
    for number, (modality, level, k) in enumerate(jobs):
        if number % world == distributed.rank():
            last = clusters[modality].prototypes()[level]
            warm = last if config.warm_start and len(last) == k else None
            mine[number] = _best_of(features[modality], k, config, seeds[number], warm)
    values: dict[str, float] = {}
    for number, (modality, level, k) in enumerate(jobs):
        x = features[modality]
        centroids, labels, refilled = _share(mine.get(number), number % world, k, x)
        clusters[modality].put(level, centroids, labels)
        name = f"{modality.word}_{k}"
        empty = int((torch.bincount(labels, minlength=k) == 0).sum())
        values[f"clusters/similarity_{name}"] = float((x * centroids[labels]).sum(1).mean())
        values[f"clusters/refilled_{name}"] = float(refilled)
        values[f"clusters/empty_{name}"] = float(empty)
        if empty:
            say(f"{empty} of {k} clusters ({modality.word}) hold no image: many features are identical")
    return values


def _best_of(x: Tensor, k: int, config: ClusterConfig, seed: int, warm: Tensor | None) -> KMeansResult:
    run = partial(kmeans, x, k, generator=torch.Generator().manual_seed(seed), iterations=config.iterations)
    if warm is not None:
        return run(initial=warm)
    runs = [run() for _ in range(config.restarts)]
    return max(runs, key=lambda run: run.similarity)


def _share(result: KMeansResult | None, owner: int, k: int, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Centroids [k, D], labels [N] and refilled clusters of the rank that computed them, on every rank."""
    if distributed.world_size() == 1:
        assert result is not None
        return result.centroids, result.labels, result.repaired
    if result is None:
        centroids, labels = (
            x.new_empty(k, x.shape[1]),
            torch.empty(len(x), dtype=torch.int64, device=x.device),
        )
        refilled = torch.zeros(1, dtype=torch.int64, device=x.device)
    else:
        centroids, labels = result.centroids, result.labels
        refilled = torch.tensor([result.repaired], device=x.device)
    for tensor in (centroids, labels, refilled):
        dist.broadcast(tensor, owner)
    return centroids, labels, int(refilled)
