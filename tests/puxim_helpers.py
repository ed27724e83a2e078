"""A tiny prepared set whose photos are black with one white square, a tiny CLIP, and a gallery with stored masks."""

import io
from pathlib import Path

import numpy as np
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from retrieval_helpers import make_run

from zssbir_cli.data.manifest import ClassInfo, Manifest, write_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.scores import write_scores
from zssbir_cli.data.shards import ShardWriter
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.gallery import Gallery, open_gallery
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.methods.puxim.config import VxlConfig
from zssbir_cli.methods.puxim.vxl import facts
from zssbir_cli.models.offline_clip import WordTokenizer
from zssbir_cli.models.surgery_clip import SurgeryClip
from zssbir_cli.types import Modality, Part, Role

SIDE = 64
NAMES = ("cat", "dog", "hot-air_balloon", "owl")  # the last one is unseen
MARKERS = 16  # the square's place is a cell of a 4 x 4 grid


def png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def photo(cell: int) -> np.ndarray:
    picture = np.zeros((SIDE, SIDE, 3), np.uint8)
    y, x = divmod(cell, 4)
    picture[16 * y : 16 * y + 16, 16 * x : 16 * x + 16] = 255
    return picture


def sketch(label: int) -> np.ndarray:
    picture = np.full((SIDE, SIDE), 255, np.uint8)
    picture[10 : 20 + 10 * label, 12:16] = 0
    picture[10, 12 : 30 + 8 * label] = 0
    return picture


def tiny_set(root: Path, photos: int = 10) -> PreparedSet:
    """Three seen classes with `photos` photos each (marker cell = index % 16) and five sketches, one unseen."""
    root.mkdir(parents=True)
    shards = []
    for part, labels in ((Part.TRAIN, (0, 1, 2)), (Part.TEST, (3,))):
        for modality in Modality:
            with ShardWriter(root, dataset="tiny", split="t", part=part, modality=modality) as writer:
                for label in labels:
                    for k in range(photos if modality is Modality.PHOTO else 5):
                        cell = (label * photos + k) % MARKERS
                        picture = photo(cell) if modality is Modality.PHOTO else sketch(label)
                        writer.add(png(picture), label, f"{NAMES[label]}/{modality}{k}.png")
            shards += writer.shards
    roles = [Role.SEEN] * 3 + [Role.UNSEEN]
    classes = tuple(
        ClassInfo(id=i, name=n, role=r) for i, (n, r) in enumerate(zip(NAMES, roles, strict=True))
    )
    write_manifest(
        root, Manifest(name="tiny", split="t", classes=classes, shards=tuple(shards), tool_version="0")
    )
    return PreparedSet.open(root)


def tiny_clip(size: int = 32) -> SurgeryClip:
    """Random weights, 4 x 4 tokens; knows the words of the seen classes only."""
    torch.manual_seed(5)
    words = WordTokenizer(["a", "photo", "of", "cat", "dog", "hot", "air", "balloon"])
    vision = CLIPVisionCfg(layers=2, width=32, head_width=16, patch_size=8, image_size=32)
    text = CLIPTextCfg(context_length=16, vocab_size=words.size, width=32, heads=2, layers=1)
    half = (0.5, 0.5, 0.5)
    clip = CLIP(16, vision, text, quick_gelu=True)
    return SurgeryClip(clip, words, name="tiny", blocks=1, size=size, mean=half, std=half)


RECIPE = """
name: masked
method: METHOD
data: {root: DATA, size: 32, workers: 0}
model: {backbone: vit_tiny_patch16_224, weights: none, options: {embed_dim: 24, depth: 1, num_heads: 2}}
"""
PUXIM = "{name: puxim, interaction: 0, vxl: {model: offline}}"


def masked_gallery(
    place: Path, method: str = PUXIM, part: Part = Part.TRAIN, prompt: str = "a photo of {}"
) -> Gallery:
    """A part of the tiny set, embedded by a run of random weights with 2 x 2 tokens. The scores beside its shards, made
    with `prompt`, are 1 where a training photo has its white square, else 0; there are as many as the part has photos."""
    prepared = tiny_set(place / "data")
    count = len(prepared.images(part, Modality.PHOTO))
    scores = np.eye(MARKERS, dtype=np.float32)[np.arange(count) % MARKERS].reshape(count, 4, 4)
    made_by = facts(VxlConfig(model="offline", prompt=prompt))
    write_scores(place / "data" / "masks-0.h5", scores, data=prepared.identity, facts=made_by)
    recipe = place / "masked.yaml"
    recipe.write_text(RECIPE.replace("DATA", str(prepared.root)).replace("METHOD", method))
    run = make_run(place / "runs" / "one", recipe)
    cpu = torch.device("cpu")
    stored = embed_part(Embedder(RunWeights(run), cpu, workers=0), prepared, part)
    assert stored.path is not None
    return open_gallery(stored.path, cpu, workers=0)
