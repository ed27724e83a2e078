"""What each choice of the recipe `mobilenet` is worth on unseen classes, in one process and with every image in memory.

    python tests/bench/study_mobilenet.py --source sketchy104 --weights mobilenetv2_100_imagenet.pth --out study.jsonl
        [--rows before recipe ...] [--seeds 0 1 2] [--unseen 24] [--val 8]

SOURCE holds sketch/<class>/ and photo/<class>/. A seed draws the unseen and the validation classes. Each row trains once
and is then scored at several shares of the way from the start weights (`train.blend`), as it is and with the
modalities' means taken away (`method.centre`, means of every eighth training image). One JSON line per row and
seed; finished ones are skipped. Batch norm with fixed statistics is folded into the convolutions on the fly: the same
function of the same parameters, 1.4 times as fast on a CPU.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.layers import pad_same
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.square import resize_photo, square_sketch
from zssbir_cli.engine.step import build_optimizer, lr_at, set_lr
from zssbir_cli.inputs.datasets import Augment
from zssbir_cli.inputs.sampling import RowPlan
from zssbir_cli.methods.triplet.method import batch_triplet, supervised_contrast
from zssbir_cli.models.centring import Centring
from zssbir_cli.models.tune import select_trained
from zssbir_cli.recipe.schema import DataConfig, OptimConfig
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality

SHARES = (0.5, 0.6, 0.7, 0.85, 1.0)
DEFAULT: dict[str, Any] = {
    "size": 128,
    "steps": 220,
    "batch": 32,
    "tune": "last:3",
    "lr": 4e-4,
    "triplet": 1.0,
}
ROWS: dict[str, dict[str, Any]] = {
    "before": {"size": 96, "steps": 150, "tune": "all"},
    "recipe": {},
    "all weights": {"tune": "all"},
    "norms": {"tune": "norms"},
    "96 px": {"size": 96},
    "160 px": {"size": 160},
    "contrast alone": {"triplet": 0.0},
    "long": {"steps": 400, "batch": 48},
}
Images = list[tuple[int, Tensor]]


def load(source: Path) -> dict[Modality, Images]:
    """(class number, decoded image) of every file; sketches cropped to their ink at 192 px."""
    classes = sorted(p.name for p in (source / "sketch").iterdir())
    read = {
        Modality.SKETCH: lambda b: square_sketch(decode_sketch(b), 192, True),
        Modality.PHOTO: decode_photo,
    }
    return {
        m: [
            (number, decode(np.fromfile(file, np.uint8)))
            for number, name in enumerate(classes)
            for file in sorted((source / m.name.lower() / name).iterdir())
        ]
        for m, decode in read.items()
    }


def fold(model: nn.Module) -> nn.Module:
    """Make every batch norm behind a convolution a part of it, computed from both parameters in each call."""
    for module in model.modules():
        before: nn.Module | None = None
        for child in module.children():
            if isinstance(child, nn.BatchNorm2d) and isinstance(before, nn.Conv2d):
                _fold_pair(before, child)
            before = child
    return model


def _fold_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    same = type(conv).__name__ == "Conv2dSame"

    def forward(x: Tensor) -> Tensor:
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        x = pad_same(x, conv.kernel_size, conv.stride, conv.dilation) if same else x
        weight, bias = conv.weight * scale.view(-1, 1, 1, 1), norm.bias - norm.running_mean * scale
        return functional.conv2d(x, weight, bias, conv.stride, 0 if same else conv.padding, 1, conv.groups)

    conv.forward, norm.forward = forward, norm.act  # type: ignore[method-assign]


def embed(model: nn.Module, images: Tensor) -> Tensor:
    """uint8 [B, C, S, S] -> float32 [B, 1280]."""
    x = ((images.float() - 127.5) / 127.5).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
    out: Tensor = model.forward_head(model.forward_features(x), pre_logits=True)
    return out


class Study:
    """One split: images by class role, and the training of one row."""

    def __init__(self, args: argparse.Namespace, images: dict[Modality, Images], seed: int) -> None:
        self.args, self.images, self.seed = args, images, seed
        count = 1 + max(c for c, _ in images[Modality.PHOTO])
        order = np.random.default_rng([seed, count]).permutation(count)
        cuts = [args.unseen, args.unseen + args.val]
        self.roles = dict(zip(("un", "va", "train"), map(set, np.split(order, cuts)), strict=True))

    def part(self, role: str, modality: Modality, size: int, every: int = 1) -> tuple[Tensor, np.ndarray]:
        """Network inputs of a role's classes, and their labels."""
        chosen = [item for item in self.images[modality] if item[0] in self.roles[role]][::every]
        resize = resize_photo if modality is Modality.PHOTO else lambda x, s: square_sketch(x, s, False)
        return torch.stack([resize(x, size) for _, x in chosen]), np.array([c for c, _ in chosen])

    def run(self, row: str) -> dict[str, Any]:
        """Train a row and score it at every share."""
        c = {**DEFAULT, **ROWS[row]}
        torch.manual_seed(self.seed)
        began, used = time.time(), time.process_time()
        model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
        model.load_state_dict(torch.load(self.args.weights, weights_only=True))
        fold(model.to(memory_format=torch.channels_last)).eval()
        model.classifier.requires_grad_(False)
        select_trained(model, c["tune"])
        start = {k: v.clone() for k, v in model.state_dict().items()}
        self.train(model, c)
        found: dict[str, Any] = {
            "row": row,
            "seed": self.seed,
            **c,
            "cpu_s": round(time.process_time() - used),
        }
        end = {k: v.clone() for k, v in model.state_dict().items()}
        for share in SHARES:
            model.load_state_dict(
                {k: v.lerp(end[k], share) if v.is_floating_point() else v for k, v in start.items()}
            )
            found |= {f"{name} {share}": value for name, value in self.score(model, c["size"]).items()}
        return {**found, "wall_s": round(time.time() - began)}

    def train(self, model: nn.Module, c: dict[str, Any]) -> None:
        """The recipe's steps."""
        data = DataConfig(size=c["size"], flip=True, crop_scale=0.5, sketch_jitter=0.5, color_jitter=0.3)
        augment, rng = Augment(data), np.random.default_rng(self.seed)
        sketches, sketch_labels = self.part("train", Modality.SKETCH, c["size"])
        photos = [x for x in self.images[Modality.PHOTO] if x[0] in self.roles["train"]]
        plan = RowPlan.build(
            sketch_labels,
            np.array([label for label, _ in photos]),
            batch_size=c["batch"],
            steps_per_epoch=c["steps"],
            seed=self.seed,
            classes_per_batch=16,
        )
        settings = OptimConfig(lr=c["lr"], weight_decay=1e-2, warmup_steps=30)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = build_optimizer([{"params": trained}], settings)
        for step, rows in enumerate(plan.batches(0)):
            set_lr(optimizer, lr_at(step, c["steps"], settings))
            labels = torch.as_tensor(sketch_labels[rows[:, 0]])
            views = [augment.sketch(sketches[i], rng).expand(3, -1, -1) for i in rows[:, 0]]
            views += [augment.photo(photos[i][1], rng)[0] for i in rows[:, 1]]
            z = functional.normalize(embed(model, torch.stack(views)), dim=1)
            loss = supervised_contrast(z, labels.repeat(2), 16.0)
            if c["triplet"]:
                loss = loss + c["triplet"] * batch_triplet(*z.chunk(2), labels, 0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def score(self, model: nn.Module, size: int) -> dict[str, float]:
        """mAP@all (voc, percent) on validation and unseen classes, plain and centred."""

        def vectors(role: str, modality: Modality, every: int = 1) -> tuple[Tensor, np.ndarray]:
            images, labels = self.part(role, modality, size, every)
            return torch.cat([embed(model, x) for x in images.split(50)]), labels

        plain, centred, found = Centring(1280), Centring(1280), {}
        for m in Modality:
            centred.set_mean(vectors("train", m, 8)[0], m)
        for role in ("va", "un"):
            parts = {m: vectors(role, m) for m in Modality}
            for name, how in ((role, plain), (f"{role} centred", centred)):
                (zs, ls), (zp, lp) = ((how(z, m), torch.as_tensor(y)) for m, (z, y) in parts.items())
                found[name] = round(100 * float(evaluate(zs, zp, ls, lp).get("mAP@all")), 2)
        return found


def main() -> None:
    """Parse arguments and fill the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", default=["before", "recipe"], choices=list(ROWS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--unseen", type=int, default=24)
    parser.add_argument("--val", type=int, default=8)
    args = parser.parse_args()
    done = [json.loads(x) for x in args.out.read_text().splitlines()] if args.out.exists() else []
    images = load(args.source)
    for seed in args.seeds:
        study = Study(args, images, seed)
        for row in args.rows:
            if not any((d["row"], d["seed"]) == (row, seed) for d in done):
                line = json.dumps(study.run(row))
                print(line, flush=True)
                with args.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
