"""An epoch of AMA against the published way, in one run: data, steps, clustering.

    pip install faiss-cpu
    python tests/bench/bench_ama.py [--images 256] [--batch 8] [--backbone vit_tiny_patch16_224] [--size 224]
    python tests/bench/bench_ama.py --recipe ama-fast [--images 256] [--batch 8]

Both train the same network on the same JPEG photos and PNG sketches at the same size, with as many processes and
threads, all losses on. Published, re-implemented from its evident parts: 2 global and 8 local PIL crops, each from its
own decode, a 65,536-way head, float32, explicit attention (DINO's), one forward pass per crop size and modality,
cross-entropy pair by pair, masks and neighbours row by row, SGD as PyTorch has it by default, features for clustering
from PIL at batch 32, and faiss k-means with 5 starts of 20 passes for each K (OPENBLAS_CORETYPE=SkylakeX). Ours: the
engine's own step in bf16 where the processor has it, with the published settings or with those of `--recipe` (its views,
head, clusters, optimizer). Steps are timed one by one (data made in the loop), interleaved; an epoch is
images / batch steps and a clustering.
"""

import argparse
import io
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if "OPENBLAS_CORETYPE" not in os.environ and "avx512f" in Path("/proc/cpuinfo").read_text():
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"OPENBLAS_CORETYPE": "SkylakeX"})
sys.path.insert(0, str(Path(__file__).parent))

import faiss
import numpy as np
import torch
import torch.nn.functional as F
from bench_multicrop import MEAN, STD, photos, published
from PIL import Image
from torch import Tensor
from torchvision import transforms

from zssbir_cli.compute.precision import Precision
from zssbir_cli.embedding.embedder import embed_all
from zssbir_cli.engine.step import Stepper
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.ama import data as ama_data
from zssbir_cli.methods.ama import method as ama_method
from zssbir_cli.methods.base import Position
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality, Part

STARTS = 5
STARTS_AT_ONCE = {"name": "ama", "cluster_start": 0, "cluster_full": 0, "pairing_start": 0}


class Images:
    """Encoded images in memory, in the place of data.prepared.ImageSet."""

    squared = False

    def __init__(self, modality: Modality, content: list[bytes]) -> None:
        self.part, self.modality, self.content = Part.TRAIN, modality, content
        self.sources = [str(i) for i in range(len(content))]

    def __len__(self) -> int:
        return len(self.content)

    def read(self, i: int) -> np.ndarray:
        return np.frombuffer(self.content[i], np.uint8)


class Prepared:
    """Sketches and photos, in the place of data.prepared.PreparedSet."""

    root = "bench"

    def __init__(self, count: int) -> None:
        pictures = photos(min(count, 64))
        drawn = []
        for data in pictures:
            buffer = io.BytesIO()
            Image.open(io.BytesIO(data)).convert("L").point(lambda v: 0 if 110 < v < 125 else 255).save(
                buffer, "PNG"
            )
            drawn.append(buffer.getvalue())
        self.sets = {
            Modality.SKETCH: Images(Modality.SKETCH, [drawn[i % len(drawn)] for i in range(count)]),
            Modality.PHOTO: Images(Modality.PHOTO, [pictures[i % len(pictures)] for i in range(count)]),
        }

    def images(self, part: Part, modality: Modality) -> Images:
        return self.sets[modality]


class Ours:
    """The toolkit's way."""

    def __init__(self, recipe: Recipe, prepared: Prepared) -> None:
        self.recipe, self.prepared = recipe, prepared
        self.precision = Precision.choose(recipe.train.precision, torch.device("cpu"))
        self.method = ama_method.build(recipe, True)
        self.data = ama_data.build(recipe, prepared)  # type: ignore[arg-type]
        self.stepper = Stepper(self.method, recipe.optim, recipe.train, self.precision)
        self.stepper.wrap()

    def features(
        self, modality: Modality, embed: Callable[[Tensor], Tensor], most: int | None = None
    ) -> Tensor:
        images = EvalImages(self.prepared.images(Part.TRAIN, modality), self.recipe.data.size, most=most)  # type: ignore[arg-type]
        return embed_all(embed, images, batch_size=32, workers=0, precision=self.precision)

    def cluster(self) -> None:
        self.method.before_epoch(self.recipe.method.cluster_start, self)  # type: ignore[union-attr]
        self.stepper.train_mode()

    def step(self, number: int) -> None:
        plan = self.data.plan.batches(0)
        rows = plan[number % len(plan)]
        items = [self.data.items[(0, i, tuple(int(v) for v in row))] for i, row in enumerate(rows)]
        batch = {k: torch.stack([item[k] for item in items]) for k in items[0]}
        self.stepper.step(lambda _: batch, 1, Position(number, 1000, 1, 2), False)


class Published:
    """The published way, on the same networks."""

    def __init__(self, recipe: Recipe, prepared: Prepared) -> None:
        self.recipe, self.prepared = recipe, prepared
        self.net = ama_method.build(recipe, True)
        self.net.train()
        for module in self.net.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False
        self.crops = published(recipe.data.size, recipe.method.views.local_size, decode_each=True)  # type: ignore[union-attr]
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(trained, lr=2e-4, momentum=0.9, weight_decay=1e-4)
        self.center = torch.zeros(1, recipe.method.head.out_dim)  # type: ignore[union-attr]
        self.labels: dict[Modality, Tensor] = {}
        self.centroids: dict[Modality, list[Tensor]] = {}

    def cluster(self) -> None:
        """Features by PIL, then five starts of every K on the CPU."""
        size = self.recipe.data.size
        plain = transforms.Compose(
            [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        )
        for modality in Modality:
            content = self.prepared.sets[modality].content
            parts = []
            with torch.no_grad():
                for i in range(0, len(content), 32):
                    images = [
                        plain(Image.open(io.BytesIO(data)).convert("RGB")) for data in content[i : i + 32]
                    ]
                    parts.append(self.net.teacher.features(torch.stack(images)).embedding)
            x = F.normalize(torch.cat(parts), dim=1).numpy()
            labels, centroids = [], []
            for k in levels(self.recipe):
                model = faiss.Kmeans(
                    x.shape[1], k, niter=20, nredo=STARTS, spherical=True, min_points_per_centroid=1
                )
                model.train(x)
                labels.append(torch.from_numpy(model.index.search(x, 1)[1][:, 0]))
                centroids.append(F.normalize(torch.from_numpy(model.centroids), dim=1))
            self.labels[modality], self.centroids[modality] = torch.stack(labels), centroids

    def step(self, number: int) -> None:
        config, batch = self.recipe.method, self.recipe.train.batch_size
        total, globals_ = torch.zeros(()), {}
        for modality, weight in ((Modality.SKETCH, 2.0), (Modality.PHOTO, 1.0)):
            content = self.prepared.sets[modality].content
            index = [(number * batch + i) % len(content) for i in range(batch)]
            images = [self.crops(content[i]) for i in index]
            views = [torch.stack([image[v] for image in images]) for v in range(10)]
            with torch.no_grad():
                known = self.net.teacher.features(torch.cat(views[:2])).embedding
                logits = self.net.teacher_head(known)
            seen = torch.cat(
                [self.net.student.features(torch.cat(v)).embedding for v in (views[:2], views[2:])]
            )
            total = total + weight * self.distill(self.net.student_head(seen), logits)
            z, k = F.normalize(seen, dim=1), F.normalize(known, dim=1)
            total = total + 0.5 * self.contrast(
                z, k[:batch], self.labels[modality][:, index], self.centroids[modality]
            )
            total = total + 0.02 * guidance_by_rows(z[: 2 * batch], k)
            globals_[modality] = z[: 2 * batch]
        for f in globals_.values():
            for a, b in zip(self.centroids[Modality.SKETCH], self.centroids[Modality.PHOTO], strict=True):
                total = total + 0.1 * alignment_by_rows(f, a, b) / 6
        assert config.name == "ama"
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        with torch.no_grad():
            for mine, other in (
                (self.net.teacher, self.net.student),
                (self.net.teacher_head, self.net.student_head),
            ):
                for t, s in zip(mine.parameters(), other.parameters(), strict=True):
                    t.data.mul_(0.999).add_((1 - 0.999) * s.detach().data)

    def distill(self, student: Tensor, teacher: Tensor) -> Tensor:
        targets = F.softmax((teacher - self.center) / 0.04, dim=-1).detach().chunk(2)
        views, total, count = (student / 0.1).chunk(10), torch.zeros(()), 0
        for q, target in enumerate(targets):
            for v, view in enumerate(views):
                if v != q:
                    total, count = (
                        total + torch.sum(-target * F.log_softmax(view, dim=-1), dim=-1).mean(),
                        count + 1,
                    )
        self.center = self.center * 0.9 + teacher.mean(0, keepdim=True) * 0.1
        return total / count

    def contrast(self, z: Tensor, k: Tensor, labels: Tensor, centroids: list[Tensor]) -> Tensor:
        batch, total = len(k), torch.zeros(())
        for level in range(len(centroids)):
            mask = torch.ones(batch, batch)
            for i in range(batch):
                for j in range(batch):
                    mask[i, j] = float(all(labels[m, i] == labels[m, j] for m in range(level + 1)))
            mask = mask.repeat(1, 9)
            log_prob = F.log_softmax(z[:batch] @ z[batch:].T / 0.2, dim=1)
            own = F.softmax(k @ centroids[level].T / 0.2, dim=1).gather(1, labels[level][:, None])[:, 0]
            rows = (mask * log_prob).sum(1) / mask.sum(1)
            total = total - (rows * (own > 0.0)).sum() / batch
        return total / len(centroids)


def guidance_by_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """STML's loss with its loop over rows."""
    count = len(student)
    with torch.no_grad():
        pair = torch.exp(-torch.cdist(teacher, teacher).square())
        top = pair.topk(min(10, count))[1]
        near = torch.zeros_like(pair).scatter_(1, top, 1.0)
        mutual, context = ((near + near.T) / 2 == 1).float(), torch.zeros_like(pair)
        for i in range(count):
            found = torch.where(mutual[i] != 0)[0]
            context[i, found] = (mutual[:, found].sum(1) / len(found))[found]
        half = context[top[:, :5]].mean(1)
        weights = (pair + (half + half.T) / 2) / 2
    distance = torch.cdist(student, student)
    distance = distance / distance.mean(1, keepdim=True)
    off = 1 - torch.eye(count)
    return ((weights * distance**2 + (1 - weights) * F.relu(1 - distance) ** 2) * off).sum() / (
        count * (count - 1)
    )


def alignment_by_rows(f: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Distance of distances, row by row."""
    chances = [F.softmax(f @ c.T / 0.01, dim=1) for c in (a, b)]
    rows = []
    for i in range(len(f)):
        one, two = (1 - F.cosine_similarity(c[i : i + 1], c) for c in chances)
        rows.append(F.pairwise_distance(one[None], two[None]) ** 2)
    return torch.cat(rows).mean()


def levels(recipe: Recipe) -> tuple[int, ...]:
    return recipe.method.clusters.k  # type: ignore[union-attr]


def published_recipe(options: argparse.Namespace) -> Recipe:
    """The published settings with every loss on; K a quarter of the published share of the images."""
    own = load_recipe(find_recipe(options.recipe)) if options.recipe else None
    size = own.data.size if own else options.size
    return Recipe.model_validate(
        {
            "name": "published",
            "method": STARTS_AT_ONCE
            | {
                "cc_threshold": 0.0,
                "clusters": {"k": [max(2 + i, options.images // n) for i, n in enumerate((64, 32, 16))]},
                "views": {"local_size": size * 3 // 7 // 16 * 16},
            },
            "data": {"size": size},
            "model": {"drop_path": 0.1, "backbone": options.backbone, "weights": "none"}
            | (own.model.model_dump() | {"weights": "none"} if own else {}),
            "optim": {"name": "sgd", "lr": 2e-4, "momentum": 0.9, "weight_decay": 1e-4},
            "train": {"batch_size": options.batch, "validate_every": 0},
        }
    )


def recipe_under_test(options: argparse.Namespace) -> Recipe:
    """The recipe `--recipe` with random weights, this run's batch size and every loss on from the start."""
    own = load_recipe(find_recipe(options.recipe)).model_dump()
    own["method"] |= STARTS_AT_ONCE
    own["model"]["weights"] = "none"
    own["train"] |= {"batch_size": options.batch, "steps_per_epoch": None}
    return Recipe.model_validate(own)


def main() -> None:
    """Interleave steps and clusterings of both ways; print medians and ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=256, help="per modality")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", default="vit_tiny_patch16_224")
    parser.add_argument(
        "--recipe", help="ours with the settings of this recipe file (its network and size for both)"
    )
    options = parser.parse_args()
    torch.manual_seed(0)
    prepared, recipe = Prepared(options.images), published_recipe(options)
    own = recipe_under_test(options) if options.recipe else recipe
    ways = {"published": Published(recipe, prepared), "ours": Ours(own, prepared)}
    times: dict[tuple[str, str], list[float]] = {}
    for repeat in range(options.repeats + 1):
        for name, way in ways.items():
            for what, run in (("clustering", way.cluster), ("step", lambda w=way, r=repeat: w.step(r))):
                if what == "clustering" and repeat > 2:
                    continue
                start = time.perf_counter()
                run()
                print(f"  {name} {what} {time.perf_counter() - start:.2f} s", file=sys.stderr, flush=True)
                if repeat or what == "clustering":
                    times.setdefault((name, what), []).append(time.perf_counter() - start)
    steps = options.images // options.batch
    median = {key: statistics.median(values) for key, values in times.items()}
    for name in ways:
        median[name, "epoch"] = steps * median[name, "step"] + median[name, "clustering"]
    print(
        f"{own.name}: {own.model.backbone}, {own.data.size} px, batch {options.batch}, {options.images} images per modality, "
        f"K {levels(recipe)}"
    )
    for what in ("step", "clustering", "epoch"):
        old, new = median["published", what], median["ours", what]
        print(f"{what:10s} published {old:8.2f} s   ours {new:8.2f} s   {old / new:.1f}x")


if __name__ == "__main__":
    main()
