"""The VxL sampler's scores: computed once for all training photos, or in every step."""

import contextlib
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.compute.versions import library_versions
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.scores import ScoreCache, Scores, read_scores
from zssbir_cli.data.square import resize_photo
from zssbir_cli.errors import CheckpointError, DataError
from zssbir_cli.files import file_sha256
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.methods.puxim.config import VxlConfig
from zssbir_cli.models.surgery_clip import ClassScorer, SurgeryClip, load_surgery_clip, weights_file
from zssbir_cli.types import Modality, Part, Role

BATCH = 32


def load_vxl(config: VxlConfig, device: torch.device) -> SurgeryClip:
    """The frozen model that `config` names, on `device`."""
    return load_surgery_clip(
        config.model, config.weights, size=config.size, blocks=config.blocks, device=device
    )


def class_scorer(clip: SurgeryClip, config: VxlConfig, prepared: PreparedSet) -> ClassScorer:
    """Scores for the training classes of a data set; unseen classes are not even named to the model."""
    seen = [c.id for c in prepared.manifest.classes_of(Role.SEEN)]
    return ClassScorer(
        clip,
        prepared.classes,
        prompt=config.prompt,
        against=config.against,
        overrides=config.class_names,
        contrast=seen,
    )


def facts(config: VxlConfig) -> dict[str, str]:
    """All that the scores depend on besides the data set: options, the weights themselves, library versions."""
    weights = file_sha256(weights_file(config.model, config.weights))
    return _options(config) | {"weights_sha256": weights} | library_versions("torch", "open_clip_torch")


def _options(config: VxlConfig) -> dict[str, str]:
    out = {k: str(v) for k, v in config.model_dump(exclude={"class_names"}).items()}
    return out | {"class_names": str(sorted(config.class_names.items()))}


def stored_scores(config: VxlConfig | None, root: Path, data: str, count: int) -> Scores | None:
    """Scores of the `count` training photos of the prepared set `data` in the folder `root` that were made with these
    options (None: any), whichever machine had the weights; None where there are none."""
    wanted = _options(config) if config else {}
    for path in sorted(root.glob("masks-*.h5")):
        with contextlib.suppress(DataError):
            found = read_scores(path, data=data, count=count)
            if wanted.items() <= found.facts.items():
                return found
    return None


def ensure_scores(config: VxlConfig, prepared: PreparedSet) -> Scores:
    """Scores of all training photos: read from the cache beside the shards, or computed first.

    Ranks share the work and an interrupted computation continues where it stopped. The model is in memory only
    while scores are computed.
    """
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    try:
        made_by = facts(config)
    except CheckpointError:  # no weights on this machine: only scores that were computed elsewhere will do
        kept = stored_scores(config, prepared.root, prepared.identity, len(photos))
        if kept is None:
            raise
        _say(f"masks: from {kept.path}, made with weights {kept.facts.get('weights_sha256', '?')[:12]}")
        return kept
    cache = ScoreCache(prepared.root, prepared.identity, made_by, len(photos))
    if not distributed.from_main(cache.complete):
        _compute(config, prepared, photos, cache)
        distributed.barrier()
        if distributed.is_main():
            cache.finish()
        distributed.barrier()
    return read_scores(cache.path, data=prepared.identity, count=len(photos))


def _compute(config: VxlConfig, prepared: PreparedSet, photos: ImageSet, cache: ScoreCache) -> None:
    missing = cache.missing(distributed.rank(), distributed.world_size())
    if not missing:
        return
    device = choose_device("auto")
    scorer = class_scorer(load_vxl(config, device), config, prepared)
    total, done, start, spoke = sum(map(len, missing)), 0, time.monotonic(), time.monotonic()
    _say(f"masks: scoring {total:,} photos with {scorer.clip.name}, once ({cache.path})")
    for chunk in missing:
        cache.put(chunk, score_photos(scorer, photos, chunk, device))
        done += len(chunk)
        if time.monotonic() - spoke > 10 or done == total:
            spoke = time.monotonic()
            _say(f"masks: {done:,} of {total:,} photos, {done / max(spoke - start, 1e-9):,.0f}/s")


def _say(text: str) -> None:
    """A line on stderr, from one process."""
    if distributed.is_main():
        print(text, file=sys.stderr, flush=True)


def score_photos(
    scorer: ClassScorer, photos: ImageSet, chunk: range, device: torch.device
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float16]]":
    """Scores of the photos of one range, float16 [len(chunk), h, w]. Raises DataError for a damaged photo."""
    size = scorer.clip.size
    out = []
    for start in range(chunk.start, chunk.stop, BATCH):
        batch = range(start, min(start + BATCH, chunk.stop))
        images = torch.stack([resize_photo(load_image(photos, i), size) for i in batch])
        labels = torch.from_numpy(photos.labels[batch.start : batch.stop])
        out.append(scorer(images.to(device), labels).half().cpu().numpy())
    return np.concatenate(out)


class LazyScorer:
    """The sampler in the training step (`masks: online`): loaded at the first step, never pickled with the
    method, no part of its parameters."""

    def __init__(self, config: VxlConfig, root: str) -> None:
        self.config, self.root = config, root
        self._scorer: ClassScorer | None = None

    def __call__(self, images: Tensor, labels: Tensor) -> Tensor:
        """Photos uint8 [B, 3, H, W], labels [B] -> scores float32 [B, h, w]."""
        if self._scorer is None:
            prepared = PreparedSet.open(self.root)
            self._scorer = class_scorer(load_vxl(self.config, images.device), self.config, prepared)
        with torch.autocast(images.device.type, enabled=False):
            return self._scorer(images, labels)
