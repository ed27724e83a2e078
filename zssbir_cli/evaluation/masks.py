"""What PuXIM's stored masks keep of the photos of a gallery. Nothing is scored here: that takes CLIP."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from zssbir_cli.data.scores import Scores, read_scores
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.gallery import Gallery
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.errors import DataError
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.puxim.losses import keep_mask, to_grid
from zssbir_cli.methods.puxim.method import Puxim
from zssbir_cli.methods.puxim.vxl import stored_scores
from zssbir_cli.models.encoder import Features
from zssbir_cli.types import Part


@dataclass(frozen=True)
class GalleryMasks:
    """Stored scores of a gallery's photos, in its order, and how they become masks on the encoder's `grid`."""

    scores: Scores
    config: PuximConfig
    grid: tuple[int, int]

    def keep(self, number: int) -> npt.NDArray[np.bool_]:
        """The patches of photo `number` that are kept, bool [a, b]."""
        config, scores = self.config, torch.from_numpy(self.scores.read(number))
        kept = keep_mask(to_grid(scores[None], self.grid), config.mask_ratio, config.rule, config.threshold)
        return np.asarray(kept[0].view(self.grid).numpy())


def masks_of_gallery(gallery: Gallery, before: GalleryMasks | None = None) -> GalleryMasks | None:
    """The masks that a PuXIM run was trained with; for other weights those that lie beside the shards, made as PuXIM's
    defaults say. `before`: those of the gallery before it was renewed.

    None where none are stored: for anything but all training photos of a prepared set, and for a run without fixed masks.
    """
    info, weights = gallery.stored.info, gallery.embedder.weights
    if info.part != Part.TRAIN or info.selection:
        return None
    own = weights.recipe.method if isinstance(weights, RunWeights) else None
    config = own if isinstance(own, PuximConfig) else PuximConfig()
    if config.masks == "none" or config.rule == "random":
        return None
    count, scores = len(gallery.rows), None
    if config.masks not in ("cached", "online"):
        with suppress(DataError):
            scores = read_scores(Path(config.masks).expanduser(), data=info.data_identity, count=count)
    else:
        options = config.vxl if config is own else None
        scores = stored_scores(options, Path(info.data_root), info.data_identity, count)
    if scores is None:
        return None
    if config is not own:
        return GalleryMasks(scores, config, scores.grid)
    return GalleryMasks(scores, config, before.grid if before else _grid(gallery.embedder))


@torch.inference_mode()
def _grid(embedder: Embedder) -> tuple[int, int]:
    """Rows and columns of the tokens of a PuXIM run's encoder. Errors: CheckpointError."""
    method, side = embedder.method, embedder.size
    if not isinstance(method, Puxim):  # the network of an earlier search, which gives vectors alone
        method = embedder.weights.load(embedder.device)
        assert isinstance(method, Puxim)
    features: Features = method.encoder(
        torch.zeros(1, 3, side, side, dtype=torch.uint8, device=embedder.device)
    )
    return features.grid
