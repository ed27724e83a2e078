"""Score the VxL sampler's masks against the demo generator's true masks, as ambiguity grows.

    python tests/bench/score_masks.py

For fresh pictures (seeds that neither the offline CLIP nor a demo set uses), keeps the share of tokens that PuXIM
keeps and prints, per level of ambiguity: the share of kept tokens' area on the object, and the IoU of the kept
tokens with the object's tokens (at least half covered), for the sampler, for random tokens and for the best possible
choice (most covered tokens first); and the area under the ROC curve of the scores.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from zssbir_cli.demo import draw_photo
from zssbir_cli.methods.puxim.losses import keep_mask, to_grid
from zssbir_cli.models import offline_clip
from zssbir_cli.models.clip_text import clean_class_name
from zssbir_cli.models.surgery_clip import ClassScorer, load_surgery_clip

LEVELS = (0.1, 0.4, 0.8)


def pictures(
    names: list[str], count: int, ambiguity: float, cache: Path | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Photos uint8 [N, 3, 128, 128], true masks [N, 128, 128] and labels [N]; N = count, classes in turn."""
    file = cache / f"{len(names)}-{count}-{ambiguity}.npz" if cache else None
    if file is not None and file.exists():
        stored = np.load(file)
        photos, masks = stored["photos"], stored["masks"]
    else:
        drawn = [
            draw_photo(names[i % len(names)], np.random.default_rng([77, i]), 128, ambiguity)
            for i in range(count)
        ]
        photos, masks = (np.stack(x) for x in zip(*drawn, strict=True))
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(file, photos=photos, masks=masks)
    labels = torch.arange(count) % len(names)
    return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(masks), labels


def quality(scores: Tensor, cover: Tensor, ratio: float) -> tuple[float, float]:
    """Share of kept tokens' area on the object, and IoU with its tokens; scores, cover [N, T]."""
    keep = keep_mask(scores, ratio)
    on_object = float((cover * keep).sum(1).div(keep.sum(1)).mean())
    true = cover >= 0.5
    iou = (keep & true).sum(1) / (keep | true).sum(1).clamp(min=1)
    return on_object, float(iou.mean())


def auc(scores: Tensor, cover: Tensor) -> float:
    """Mean over photos of the probability that a token of the object scores above one of the rest."""
    values = []
    for s, true in zip(scores, cover >= 0.5, strict=True):
        if true.any() and not true.all():
            values.append(float((s[true][:, None] > s[~true][None]).float().mean()))
    return float(np.mean(values))


def main() -> None:
    """Print the table; `--json` for numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--ratio", type=float, default=0.7)
    parser.add_argument("--against", nargs="+", default=["article", "empty", "classes"])
    parser.add_argument("--blocks", type=int, default=None, help="last blocks with the second path")
    parser.add_argument("--size", type=int, default=None)
    parser.add_argument("--weights", type=Path, default=offline_clip.WEIGHTS)
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    offline_clip.WEIGHTS = args.weights
    offline_clip.load_offline_clip.__defaults__ = (args.weights,)
    if args.blocks:
        offline_clip.BLOCKS = args.blocks
    with safe_open(args.weights, "pt") as file:
        words = json.loads(file.metadata()["classes"])
    from zssbir_cli.demo import CLASSES

    names = [c for c in CLASSES if clean_class_name(c) in words]
    clip = load_surgery_clip("offline", "", size=args.size)
    rows = []
    for level in LEVELS:
        photos, masks, labels = pictures(names, args.count, level, args.cache)
        cover = to_grid(masks.float(), clip.grid)
        random = quality(
            torch.rand(cover.shape, generator=torch.Generator().manual_seed(0)), cover, args.ratio
        )
        best = quality(cover, cover, args.ratio)
        for against in args.against:
            scorer = ClassScorer(clip, names, prompt="a photo of {}", against=against)
            scores = torch.cat(
                [scorer(p, y) for p, y in zip(photos.split(64), labels.split(64), strict=True)]
            )
            flat = scores.flatten(1)
            rows.append((level, against, *quality(flat, cover, args.ratio), *random, *best, auc(flat, cover)))
    if args.json:
        print(json.dumps(rows))
        return
    print(f"{args.count} photos per level, grid {clip.grid}, mask ratio {args.ratio}")
    print("ambiguity  against   on object (random, best)   IoU (random, best)    AUC")
    for level, against, share, iou, r_share, r_iou, b_share, b_iou, area in rows:
        print(
            f"{level:9.1f}  {against:8s}  {share:.3f} ({r_share:.3f}, {b_share:.3f})      "
            f"{iou:.3f} ({r_iou:.3f}, {b_iou:.3f})  {area:.3f}"
        )


if __name__ == "__main__":
    main()
