"""Train the package's offline CLIP on the demo generator's pictures with captions.

    python tests/bench/train_offline_clip.py --pictures 12000 --steps 1500

Draws pictures once (cached in --pool, so that a second run starts at once), then trains image and text tower
from captions alone: no object mask is read. Writes zssbir_cli/models/offline_clip.safetensors (float16).

Only the training classes of the default demo split are captioned; its unseen and validation classes are never
drawn as the subject and never named. Things of any class may lie around in the pictures, unnamed.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zssbir_cli.data.demo import CLASSES, draw_photo
from zssbir_cli.data.demo.prepare import _roles
from zssbir_cli.models.clip_text import clean_class_name
from zssbir_cli.models.offline_clip import (
    BLOCKS,
    SIZE,
    WEIGHTS,
    WordTokenizer,
    build_offline_clip,
    split_words,
)
from zssbir_cli.models.surgery import SurgeryTower
from zssbir_cli.types import Role

DRAWN = 80  # pixels; crops of it are resized to the tower's input
CHUNK = 250
BATCH = 64
CAPTIONS = ("a photo of {}", "a photo of a {}", "a picture of {}", "a {}", "{}", "there is a {} in the scene")
TOP = 16  # tokens that speak for the picture in the token term, of 64


def draw_chunk(job: tuple[int, tuple[str, ...], Path]) -> Path:
    """Draw one chunk of pictures (if its file is not there) and return its file."""
    number, names, pool = job
    path = pool / f"{number:04d}.npz"
    if not path.exists():
        rng = np.random.default_rng([2026, number])
        labels = rng.integers(0, len(names), CHUNK)
        photos = [draw_photo(names[k], rng, DRAWN, float(rng.uniform(0, 0.8)))[0] for k in labels]
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            np.savez(file, photos=np.stack(photos), names=np.array([names[k] for k in labels]))
        partial.replace(path)
    return path


def draw(pool: Path, names: tuple[str, ...], pictures: int, processes: int) -> tuple[Tensor, Tensor]:
    """uint8 [N, 3, 80, 80] and the index of each picture's class in `names`, [N]."""
    pool.mkdir(parents=True, exist_ok=True)
    jobs = [(n, CLASSES, pool) for n in range(-(-pictures // CHUNK))]
    with ProcessPoolExecutor(processes) as executor:
        files = [np.load(path) for path in executor.map(draw_chunk, jobs)]
    subjects = np.concatenate([f["names"] for f in files])
    wanted = np.isin(subjects, names)
    photos = np.concatenate([f["photos"] for f in files])[wanted]
    labels = torch.tensor([names.index(str(n)) for n in subjects[wanted]])
    return torch.from_numpy(photos).permute(0, 3, 1, 2).contiguous(), labels


def augment(photos: Tensor, gen: torch.Generator) -> Tensor:
    """uint8 [B, 3, 80, 80] -> float [B, 3, 64, 64] in about -1..1: crop, flip, turn, light and colour."""
    n = len(photos)

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=gen) * (high - low) + low

    angle, scale = rand(-0.2, 0.2), rand(0.72, 1.0)
    flip = torch.where(rand(0, 1) < 0.5, -1.0, 1.0)
    shift = rand(-1, 1, 2) * (1 - scale)[:, None]
    rows = torch.stack([scale * angle.cos() * flip, -scale * angle.sin(), shift[:, 0]], 1)
    columns = torch.stack([scale * angle.sin() * flip, scale * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([rows, columns], 1), [n, 3, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(photos.float() / 127.5 - 1, grid, padding_mode="reflection", align_corners=False)
    return x * rand(0.7, 1.3, 3, 1, 1) + rand(-0.25, 0.25, 1, 1, 1)


def apart(x: Tensor) -> Tensor:
    """Rows [N, D] at unit length after removing their mean. Feature surgery removes what texts share, and an offset
    of all tokens changes no ranking of tokens, so training may do so too; it keeps both towers from collapsing."""
    return F.normalize(x - x.mean(0), dim=-1)


class Trainer(nn.Module):
    """Both towers and the loss."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.words = [clean_class_name(name) for name in names]
        vocabulary = sorted({w for text in (*CAPTIONS, *self.words) for w in split_words(text)})
        self.tokenizer = WordTokenizer(vocabulary)
        self.clip = build_offline_clip(self.tokenizer.size)
        with torch.no_grad():  # captions differ from the start: loud words, a quiet end token that sums up
            self.clip.token_embedding.weight.normal_(std=1.0)[-1] *= 0.05
        self.tower = SurgeryTower(self.clip.visual, BLOCKS)
        self.token_scale = nn.Parameter(torch.tensor(math.log(14.0)))

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the class token and of the best patch tokens over one caption per class."""
        captions = [random.choice(CAPTIONS).format(w) for w in self.words]
        text = apart(self.clip.encode_text(self.tokenizer(captions)).float())
        tokens = self.tower(images).float()
        cls, tokens = apart(tokens[:, 0]), apart(tokens[:, 1:].flatten(0, 1)).view_as(tokens[:, 1:])
        logits = self.clip.logit_scale.exp().clamp(max=50) * cls @ text.T
        similarity = tokens @ text.T
        best = similarity.topk(TOP, dim=1).values.mean(1)
        token_logits = self.token_scale.exp().clamp(max=50) * best
        return {
            "image": F.cross_entropy(logits, labels, label_smoothing=0.02),
            "token": F.cross_entropy(token_logits, labels, label_smoothing=0.02),
            "right": (logits.argmax(1) == labels).float().mean(),
            "token right": (token_logits.argmax(1) == labels).float().mean(),
        }


def train(model: Trainer, photos: Tensor, labels: Tensor, args: argparse.Namespace) -> None:
    """AdamW with warm-up and a cosine schedule; saves now and then."""
    gen = torch.Generator().manual_seed(0)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, args.lr, betas=(0.9, 0.98))
    start = time.monotonic()
    for step in range(args.steps):
        share = step / args.steps
        for group in optimizer.param_groups:
            group["lr"] = args.lr * min(1, (step + 1) / 40) * (0.02 + 0.49 * (1 + math.cos(math.pi * share)))
        rows = torch.randint(len(photos), (BATCH,), generator=gen)
        optimizer.zero_grad(set_to_none=True)
        with sdpa_kernel(SDPBackend.MATH):  # fused attention is slow in bf16 on CPUs, going backward
            with torch.autocast("cpu", torch.bfloat16):
                out = model(
                    augment(photos[rows], gen).contiguous(memory_format=torch.channels_last), labels[rows]
                )
            (out["image"] + args.token_weight * out["token"]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 25 == 24:
            values = "  ".join(f"{k} {v.item():.3f}" for k, v in out.items())
            print(f"{time.monotonic() - start:4.0f} s  step {step + 1}  {values}", flush=True)
        if step % 200 == 199:
            save(model, args.out)


def save(model: Trainer, path: Path) -> None:
    """Weights in float16, with the vocabulary and the training classes' words as metadata."""
    state = {k: v.half().contiguous() for k, v in model.clip.state_dict().items()}
    metadata = {"words": json.dumps(model.tokenizer.words), "classes": json.dumps(model.words)}
    save_file(state, path, metadata)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    """Draw, train, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pool", type=Path, default=Path("offline-clip-pool"))
    parser.add_argument("--pictures", type=int, default=12000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--token-weight", type=float, default=1.0)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--init", type=Path, default=None, help="go on from these weights")
    parser.add_argument("--seen", action="store_true", help="only the default split's training classes")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    names = tuple(c for c in CLASSES if not args.seen or _roles(0, 10, 6)[c] == Role.SEEN)
    photos, labels = draw(args.pool, names, args.pictures, args.processes)
    print(f"{len(photos)} pictures of {len(names)} classes")
    torch.manual_seed(0)
    random.seed(0)
    model = Trainer(names)
    if args.init:
        model.clip.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
    train(model, photos, labels, args)
    save(model, args.out)


if __name__ == "__main__":
    main()
