"""What each choice of the recipe `mobilenet` is worth on unseen classes, on one core.

    python tests/bench/study_mobilenet.py --source sketchy104 --weights mobilenetv2_100_imagenet.pth --out study.jsonl
        [--rows base "proxies" ...] [--seeds 0 1 2]

SOURCE holds sketch/<class>/ and photo/<class>/. The frozen stages see two views of each image, once (bf16). A row trains
what comes behind them for 80 steps of 32 pairs, from the same start, and uses it at 160 px. A seed draws 24 unseen and 8
validation classes, as `prepare --unseen 24 --val-classes 8` does. Scores are mAP@all (voc, percent) at each share of the
way from the start (`train.blend`), as it is and with the modalities' means of every eighth training image taken away
(`method.centre`). One JSON line per row and seed; finished ones are skipped. The cache lies beside OUT.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.square import resize_photo, square_sketch
from zssbir_cli.engine.step import build_optimizer, lr_at, set_lr
from zssbir_cli.inputs.datasets import Augment
from zssbir_cli.inputs.sampling import RowPlan
from zssbir_cli.methods.ama.config import ViewsConfig
from zssbir_cli.methods.ama.views import drawing_views
from zssbir_cli.methods.triplet.method import batch_triplet, cosine_distance, supervised_contrast
from zssbir_cli.models.centring import Centring
from zssbir_cli.models.folding import fold_batchnorm
from zssbir_cli.preparation.roles import Unseen, assign_roles
from zssbir_cli.recipe.schema import DataConfig, OptimConfig
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality, Role

FRONT = 4
"""Blocks that `tune: last:3` leaves frozen, behind the stem."""
VIEWS, TRAIN_SIZE, SIZE = 2, 128, 160
SHARES = (0.5, 0.6, 0.7, 0.85, 1.0)
BASE: dict[str, Any] = {
    "steps": 80,
    "batch": 32,
    "classes": 16,
    "lr": 4e-4,
    "contrast": 1.0,
    "scale": 16.0,
    "triplet": 1.0,
    "drawings": 0.0,  # share of a batch's sketches that are line drawings of a photo of the class instead
    "more": 0,  # line drawings of the batch's photos beside its sketches
    "proxies": 0.0,
    "fixed": False,  # the proxies stay what they start as: the frozen start's mean of a class's photos
    "preserve": 0.0,
    "tune": 3,
    "norms": False,
    "decay": 0.0,  # of an average of the weights
}
ROWS: dict[str, dict[str, Any]] = {
    "base": {},
    "average": {"decay": 0.95},
    "half drawings": {"drawings": 0.5},
    "quarter drawings": {"drawings": 0.25},
    "16 drawings more": {"more": 16},
    "proxies": {"proxies": 1.0},
    "fixed proxies": {"proxies": 1.0, "fixed": True},
    "contrast alone": {"triplet": 0.0},
    "scale 10": {"scale": 10.0},
    "scale 24": {"scale": 24.0},
    "preserve 1": {"preserve": 1.0},
    "last:2": {"tune": 2},
    "norms of last:3": {"norms": True},
    "48 pairs": {"batch": 48},
    "200 steps": {"steps": 200},
    "lr 8e-4": {"lr": 8e-4},
}
Cache = dict[str, Tensor]


def build_net(weights: Path) -> nn.Module:
    """The start, batch norm with fixed statistics folded away."""
    net = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
    net.load_state_dict(torch.load(weights, weights_only=True))
    net = net.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    assert fold_batchnorm(net)
    return net


def front(net: Any, images: Tensor) -> Tensor:
    """uint8 [B, C, S, S] -> what the frozen stages give, [B, 64, S / 16, S / 16]."""
    x = ((images.float() - 127.5) / 127.5).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    out: Tensor = net.blocks[:FRONT](net.bn1(net.conv_stem(x)))
    return out


def back(net: Any, x: Tensor) -> Tensor:
    """The frozen stages' output -> embeddings float32 [B, 1280], not normalised."""
    x = x.float().contiguous(memory_format=torch.channels_last)
    out: Tensor = net.forward_head(net.bn2(net.conv_head(net.blocks[FRONT:](x))), pre_logits=True)
    return out


@torch.no_grad()
def build_cache(source: Path, net: nn.Module) -> Cache:
    """For `sketch` and `photo`: the labels, all images at SIZE (`test`) and views at TRAIN_SIZE, also of line drawings
    of the photos."""
    classes = sorted(p.name for p in (source / "sketch").iterdir())
    data = DataConfig(size=TRAIN_SIZE, flip=True, crop_scale=0.5, sketch_jitter=0.5, color_jitter=0.3)
    augment, rng, options = Augment(data), np.random.default_rng(0), ViewsConfig(drawings=1)

    def run(images: list[Tensor], view: Callable[[Tensor], Tensor]) -> Tensor:
        found = []
        for i in range(0, len(images), 50):
            batch = torch.stack([view(x) for x in images[i : i + 50]])
            with torch.autocast("cpu", torch.bfloat16):
                out = front(net, batch)
            found.append(out.half())
        return torch.cat(found)

    def views(images: list[Tensor], view: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.stack([run(images, view) for _ in range(VIEWS)])

    out: Cache = {}
    for side, decode in (("sketch", decode_sketch), ("photo", decode_photo)):
        files = [(c, f) for c, name in enumerate(classes) for f in sorted((source / side / name).iterdir())]
        out[f"{side} labels"] = torch.tensor([c for c, _ in files])
        images = [decode(np.fromfile(f, np.uint8)) for _, f in files]
        if side == "sketch":
            out["sketch test"] = run(images, lambda x: square_sketch(x, SIZE))
            out["sketch"] = views(images, lambda x: augment.sketch(square_sketch(x, TRAIN_SIZE), rng))
        else:
            out["photo test"] = run(images, lambda x: resize_photo(x, SIZE))
            out["photo"] = views(images, lambda x: augment.photo(x, rng)[0])
            out["drawing"] = views(images, lambda x: drawing_views(x, options, TRAIN_SIZE, rng)[0])
    return out


class Study:
    """One split, and the training of one row on it."""

    def __init__(self, source: Path, cache: Cache, start: nn.Module, seed: int) -> None:
        self.cache, self.start, self.seed = cache, start, seed
        names = sorted(p.name for p in (source / "sketch").iterdir())
        roles = assign_roles(names, Unseen(draw=24), val_classes=8, seed=seed)
        self.roles = {role: torch.tensor([c.id for c in roles if c.role is role]) for role in Role}

    def rows_of(self, side: str, role: Role, every: int = 1) -> Tensor:
        """Numbers of a role's images."""
        kept = torch.isin(self.cache[f"{side} labels"], self.roles[role])
        kept &= torch.arange(len(kept)) % every == 0
        return kept.nonzero()[:, 0]

    def run(self, row: str) -> dict[str, Any]:
        """Train a row and score it at every share."""
        c, used = {**BASE, **ROWS[row]}, time.process_time()
        torch.manual_seed(self.seed)
        net: Any = copy_net(self.start)
        for module in (*net.blocks[7 - c["tune"] :], net.conv_head, net.bn2):
            module.requires_grad_(True)
        if c["norms"]:
            for p in net.parameters():
                p.requires_grad_(p.requires_grad and p.ndim == 1)
        first = {k: v.clone() for k, v in net.state_dict().items()}
        last = self.train(net, c)
        found = {"row": row, "seed": self.seed, "train_cpu_s": round(time.process_time() - used)}
        for share in SHARES:
            net.load_state_dict(
                {k: v.lerp(last[k], share) if v.is_floating_point() else v for k, v in first.items()}
            )
            found |= {f"{name} {share}": value for name, value in self.score(net).items()}
        return found

    def train(self, net: nn.Module, c: dict[str, Any]) -> dict[str, Tensor]:
        """The row's steps; returns the weights that retrieval starts from."""
        rng, seen = np.random.default_rng(self.seed), self.roles[Role.SEEN]
        sketches, photos = self.rows_of("sketch", Role.SEEN), self.rows_of("photo", Role.SEEN)
        labels = [self.cache[f"{m} labels"][i].numpy() for m, i in (("sketch", sketches), ("photo", photos))]
        shape = {
            "batch_size": c["batch"],
            "steps_per_epoch": c["steps"],
            "seed": self.seed,
            "classes_per_batch": c["classes"],
        }
        plan = RowPlan.build(*labels, **shape).batches(0)
        drawn = RowPlan.build(labels[1], labels[1], **shape).batches(0)  # photos of the same classes
        means = torch.stack([self.mean_of(net, photos, k) for k in seen])
        proxies = nn.Parameter(functional.normalize(means, dim=1))
        settings = OptimConfig(lr=c["lr"], weight_decay=1e-2, warmup_steps=30)
        trained = [p for p in net.parameters() if p.requires_grad]
        optimizer = build_optimizer(
            [{"params": [*trained, *[proxies] * (c["proxies"] > 0 and not c["fixed"])], "lr_scale": 1.0}],
            settings,
        )
        average = {k: v.clone() for k, v in net.state_dict().items()}
        for step, rows in enumerate(plan):
            set_lr(optimizer, lr_at(step, c["steps"], settings))
            views = torch.as_tensor(rng.integers(0, VIEWS, (3, c["batch"])))
            order, y = torch.as_tensor(rng.permutation(c["batch"])), torch.as_tensor(labels[0][rows[:, 0]])
            s = self.cache["sketch"][views[0], sketches[rows[:, 0]]].clone()
            p = self.cache["photo"][views[1], photos[rows[:, 1]]]
            d = self.cache["drawing"][views[2], photos[rows[:, 1] if c["more"] else drawn[step][:, 0]]]
            swapped, added = order[: round(c["batch"] * c["drawings"])], order[: c["more"]]
            s[swapped] = d[swapped]
            raw = back(net, torch.cat([s, p, d[added]]))
            z, every = functional.normalize(raw, dim=1), torch.cat([y, y, y[added]])
            loss = c["contrast"] * supervised_contrast(z, every, c["scale"])
            if c["triplet"]:
                loss = loss + c["triplet"] * batch_triplet(z[: len(y)], z[len(y) : 2 * len(y)], y, 0.2)
            if c["proxies"]:
                scores = c["scale"] * z @ functional.normalize(proxies, dim=1).T
                loss = loss + c["proxies"] * functional.cross_entropy(scores, torch.searchsorted(seen, every))
            if c["preserve"]:
                with torch.no_grad():
                    target = back(self.start, p)
                loss = loss + c["preserve"] * cosine_distance(raw[len(y) : 2 * len(y)], target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            for k, v in net.state_dict().items():
                if v.is_floating_point():
                    average[k].lerp_(v, 1 - c["decay"])
        return average

    @torch.no_grad()
    def mean_of(self, net: nn.Module, photos: Tensor, label: Tensor) -> Tensor:
        """Mean embedding of a class's photos."""
        mine = photos[self.cache["photo labels"][photos] == label]
        return functional.normalize(back(net, self.cache["photo"][0][mine]), dim=1).mean(0)

    @torch.no_grad()
    def score(self, net: nn.Module) -> dict[str, float]:
        """mAP@all (voc, percent) on the unseen classes, as it is and centred."""
        plain, centred, found = Centring(1280), Centring(1280), {}
        for m in Modality:
            side = m.name.lower()
            centred.set_mean(self.embed(net, side, self.rows_of(side, Role.SEEN, 8)), m)
        parts = {m: self.rows_of(m.name.lower(), Role.UNSEEN) for m in Modality}
        raw = {m: self.embed(net, m.name.lower(), i) for m, i in parts.items()}
        labels = {m: self.cache[f"{m.name.lower()} labels"][i] for m, i in parts.items()}
        for name, how in (("plain", plain), ("centred", centred)):
            s, p = (how(raw[m], m) for m in (Modality.SKETCH, Modality.PHOTO))
            value = evaluate(s, p, labels[Modality.SKETCH], labels[Modality.PHOTO]).get("mAP@all")
            found[name] = round(100 * float(value), 2)
        return found

    def embed(self, net: nn.Module, side: str, index: Tensor) -> Tensor:
        """Embeddings of whole images."""
        return torch.cat([back(net, x) for x in self.cache[f"{side} test"][index].split(100)])


def copy_net(net: nn.Module) -> nn.Module:
    """A copy with weights of its own (a folded network's methods are bound to the modules they came from)."""
    other = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
    other.load_state_dict(net.state_dict())
    other = other.to(memory_format=torch.channels_last).eval().requires_grad_(False)
    assert fold_batchnorm(other)
    return other


def main() -> None:
    """Parse arguments and fill the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    done = [json.loads(x) for x in args.out.read_text().splitlines()] if args.out.exists() else []
    start, stored = build_net(args.weights), args.out.with_suffix(".pt")
    if not stored.exists():
        torch.save(build_cache(args.source, start), stored)
    cache = torch.load(stored)
    for row in args.rows:
        for seed in args.seeds:
            if not any((d["row"], d["seed"]) == (row, seed) for d in done):
                line = json.dumps(Study(args.source, cache, start, seed).run(row))
                print(line, flush=True)
                with args.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
