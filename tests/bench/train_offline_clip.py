"""Train the package's offline CLIP on the demo generator's pictures with captions of regions.

    python tests/bench/train_offline_clip.py --pictures 4000 --steps 900

Draws pictures once (cached in --pool, so that a second run starts at once), then trains image and text tower: the
class token is told the picture's caption ("a photo of teapot"), the patch tokens on the object the same caption, and
the patch tokens elsewhere the empty prompt or the article. The second part is more than OpenAI's CLIP gets: captions
alone did not teach a tower of this size anything in the minutes of CPU time that a student has. Its masks on drawn
pictures are therefore a good case for the sampler, which docs/puxim.md says. All demo classes are learnt, as
OpenAI's CLIP has seen all classes of the benchmarks. Writes zssbir_cli/models/offline_clip.safetensors (float16).
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

from zssbir_cli.demo import CLASSES, draw_photo
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

DRAWN = 80  # pixels; crops of it are resized to the tower's input
CHUNK = 250
BATCH = 64
CAPTIONS = ("a photo of {}", "a photo of a {}", "a picture of {}", "a {}", "{}", "there is a {} in the scene")
NOTHING = ("a photo of", "a photo of a", "", "a", "a picture of")


def draw_chunk(job: tuple[int, Path]) -> Path:
    """Draw one chunk of pictures (if its file is not there) and return its file."""
    number, pool = job
    path = pool / f"{number:04d}.npz"
    if not path.exists():
        rng = np.random.default_rng([2026, number])
        labels = rng.integers(0, len(CLASSES), CHUNK)
        drawn = [draw_photo(CLASSES[k], rng, DRAWN, float(rng.uniform(0, 0.9))) for k in labels]
        photos, masks = (np.stack(x) for x in zip(*drawn, strict=True))
        partial = path.with_suffix(".tmp")
        with partial.open("wb") as file:
            np.savez(file, photos=photos, masks=masks, names=np.array([CLASSES[k] for k in labels]))
        partial.replace(path)
    return path


def draw(pool: Path, pictures: int, processes: int) -> tuple[Tensor, Tensor]:
    """uint8 [N, 4, 80, 80] (colour, and the object's mask as 0 or 255), and the class of each picture, [N]."""
    pool.mkdir(parents=True, exist_ok=True)
    jobs = [(n, pool) for n in range(-(-pictures // CHUNK))]
    with ProcessPoolExecutor(processes) as executor:
        files = [np.load(path) for path in executor.map(draw_chunk, jobs)]
    labels = torch.tensor([CLASSES.index(str(n)) for f in files for n in f["names"]])
    stacked = [np.concatenate([f["photos"], 255 * f["masks"][..., None].astype(np.uint8)], -1) for f in files]
    return torch.from_numpy(np.concatenate(stacked)).permute(0, 3, 1, 2).contiguous(), labels


def augment(pictures: Tensor, gen: torch.Generator) -> tuple[Tensor, Tensor]:
    """uint8 [B, 4, 80, 80] -> image, float [B, 3, 64, 64] in about -1..1 (crop, flip, turn, light and colour), and how
    much of each patch the object covers, [B, 64]."""
    n = len(pictures)

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=gen) * (high - low) + low

    angle, scale = rand(-0.2, 0.2), rand(0.72, 1.0)
    flip = torch.where(rand(0, 1) < 0.5, -1.0, 1.0)
    shift = rand(-1, 1, 2) * (1 - scale)[:, None]
    rows = torch.stack([scale * angle.cos() * flip, -scale * angle.sin(), shift[:, 0]], 1)
    columns = torch.stack([scale * angle.sin() * flip, scale * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([rows, columns], 1), [n, 4, SIZE, SIZE], align_corners=False)
    x = F.grid_sample(pictures.float() / 127.5 - 1, grid, padding_mode="reflection", align_corners=False)
    cover = F.avg_pool2d((x[:, 3:] + 1) / 2, 8).flatten(1)
    return x[:, :3] * rand(0.7, 1.3, 3, 1, 1) + rand(-0.25, 0.25, 1, 1, 1), cover


def apart(x: Tensor) -> Tensor:
    """Rows [N, D] at unit length after removing their mean. Feature surgery removes what texts share, and an offset
    of all tokens changes no ranking of tokens, so training may do so too; it keeps both towers from collapsing."""
    return F.normalize(x - x.mean(0), dim=-1)


class Trainer(nn.Module):
    """Both towers and the loss."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.words = [clean_class_name(name) for name in names]
        vocabulary = sorted({w for text in (*CAPTIONS, *NOTHING, *self.words) for w in split_words(text)})
        self.tokenizer = WordTokenizer(vocabulary)
        self.clip = build_offline_clip(self.tokenizer.size)
        with torch.no_grad():  # captions differ from the start: loud words, a quiet end token that sums up
            self.clip.token_embedding.weight.normal_(std=1.0)[-1] *= 0.05
        self.tower = SurgeryTower(self.clip.visual, BLOCKS)
        self.token_scale = nn.Parameter(torch.tensor(math.log(14.0)))

    def forward(self, images: Tensor, cover: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy of the class token, of the object's tokens and of the other tokens over one caption per class
        and one without a class."""
        captions = [random.choice(CAPTIONS).format(w) for w in self.words] + [random.choice(NOTHING)]
        text = apart(self.clip.encode_text(self.tokenizer(captions)).float())
        tokens = self.tower(images).float()
        cls, tokens = apart(tokens[:, 0]), apart(tokens[:, 1:].flatten(0, 1)).view_as(tokens[:, 1:])
        logits = self.clip.logit_scale.exp().clamp(max=50) * cls @ text.T
        token_logits = self.token_scale.exp().clamp(max=50) * tokens @ text.T
        inside, outside = cover > 0.6, cover < 0.1
        target = labels[:, None].expand_as(cover)[inside]
        nothing = torch.full((int(outside.sum()),), len(self.words))
        return {
            "image": F.cross_entropy(logits, labels),
            "object": F.cross_entropy(token_logits[inside], target),
            "elsewhere": F.cross_entropy(token_logits[outside], nothing),
            "right": (logits.argmax(1) == labels).float().mean(),
            "token right": (token_logits[inside].argmax(1) == target).float().mean(),
            "found": (token_logits[inside].argmax(1) != len(self.words)).float().mean(),
            "left": (token_logits[outside].argmax(1) == len(self.words)).float().mean(),
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
                images, cover = augment(photos[rows], gen)
                out = model(images.contiguous(memory_format=torch.channels_last), cover, labels[rows])
            (0.5 * out["image"] + out["object"] + out["elsewhere"]).backward()
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
    parser.add_argument("--pictures", type=int, default=4000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--init", type=Path, default=None, help="go on from these weights")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    photos, labels = draw(args.pool, args.pictures, args.processes)
    print(f"{len(photos)} pictures of {len(CLASSES)} classes")
    torch.manual_seed(0)
    random.seed(0)
    model = Trainer(CLASSES)
    if args.init:
        model.clip.load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
    train(model, photos, labels, args)
    save(model, args.out)


if __name__ == "__main__":
    main()
