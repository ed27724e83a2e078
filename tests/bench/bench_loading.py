"""Loading speed: prepared shards against loose files, and our sampling against the published scan of labels.

    python tests/bench/bench_loading.py FOLDER [--size 224] [--batch 32] [--batches 60] [--rounds 3]

FOLDER holds sketch/<class>/* and photo/<class>/*. Compared, in batches of sketch-photo pairs per second times
two (images/s), rounds alternating:

  published  loose files: PIL open, convert, bicubic resize, ToTensor, normalise; sketches by OpenCV with crop to
             the ink and squaring; a photo of the class by a scan of all labels for each item
  loose      the same transforms as ours on loose files (PIL decode), per-class index
  shards     this package: shards of the files as they are, uint8 batches
  squared    this package: shards of `prepare --size SIZE --square`
  augmented  shards and squared again, with the augmentation of the recipe `mobilenet`

The floor printed first is reading and decoding alone, of the files as they are and squared.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.square import resize_photo, square_sketch
from zssbir_cli.inputs.datasets import RowItems
from zssbir_cli.inputs.sampling import RowPlan
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import prepare_own


class Published(Dataset[Any]):
    """The way of the published programs: everything per item, from loose files."""

    def __init__(self, folder: Path, sketches: ImageSet, photos: ImageSet, size: int) -> None:
        self.sketch_paths = [folder / s for s in sketches.sources]
        self.photo_paths = [folder / s for s in photos.sources]
        self.sketch_labels, self.photo_labels = sketches.labels.tolist(), photos.labels
        self.size = size
        self.transform = transforms.Compose(
            [
                transforms.Resize((size, size), transforms.InterpolationMode.BICUBIC),
                transforms.ToTensor(),
                transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )

    def __len__(self) -> int:
        return 1 << 30

    def __getitem__(self, item: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng(item)
        sketch = int(rng.integers(len(self.sketch_paths)))
        same = np.where(self.photo_labels == self.sketch_labels[sketch])[0]
        photo = Image.open(self.photo_paths[int(rng.choice(same))]).convert("RGB")
        return self.transform(self._sketch(self.sketch_paths[sketch])), self.transform(photo)

    def _sketch(self, path: Path) -> Image.Image:
        pixels = cv2.imread(str(path))
        ink = np.argwhere(pixels.min(2) < 250)
        if len(ink):
            (top, left), (bottom, right) = ink.min(0), ink.max(0) + 1
            pixels = pixels[top:bottom, left:right]
        side = max(pixels.shape[:2])
        square = np.full((side, side, 3), 255, np.uint8)
        y, x = (side - pixels.shape[0]) // 2, (side - pixels.shape[1]) // 2
        square[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels
        return Image.fromarray(square).resize((self.size, self.size))


class Loose(Dataset[Any]):
    """Our transforms on loose files."""

    def __init__(self, folder: Path, items: RowItems) -> None:
        self.folder, self.items = folder, items

    def __getitem__(self, key: Any) -> dict[str, torch.Tensor]:
        _, _, (sketch, photo) = key
        size = self.items.augment.config.size
        with Image.open(self.folder / self.items.sketches.sources[sketch]) as image:
            drawn = torch.from_numpy(np.array(image.convert("L")))[None]
        with Image.open(self.folder / self.items.photos.sources[photo]) as image:
            seen = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        return {"sketch": square_sketch(drawn, size), "photo": resize_photo(seen, size)}


def rate(dataset: Dataset[Any], keys: list[list[Any]], workers: int) -> float:
    """Images per second over the batches of `keys` (the first batch warms up)."""
    loader = DataLoader(
        dataset, batch_sampler=keys, num_workers=workers, multiprocessing_context="fork" if workers else None
    )
    stream = iter(loader)
    first = next(stream)
    batch = len(next(iter(first.values())) if isinstance(first, dict) else first[0])
    start = time.perf_counter()
    count = sum(2 * batch for _ in stream)
    return count / (time.perf_counter() - start)


def scan_cost(photos: ImageSet, draws: int = 2000) -> tuple[float, float]:
    """Microseconds per item: the published scan of all labels, and our index (both repeated to 60,000 labels)."""
    labels = np.resize(photos.labels, 60_000)
    wanted = np.random.default_rng(0).choice(labels, draws)
    start = time.perf_counter()
    for label in wanted:
        np.random.choice(np.where(labels == label)[0])
    scan = (time.perf_counter() - start) / draws
    plan = RowPlan.build(labels, labels, batch_size=32, steps_per_epoch=draws // 32, seed=0)
    start = time.perf_counter()
    plan.batches(0)
    return scan * 1e6, (time.perf_counter() - start) / (draws // 32 * 32) * 1e6


def decode_cost(images: ImageSet, n: int = 1000) -> tuple[float, float]:
    """Microseconds per image: reading by memory map, and reading plus decoding."""
    order = np.random.default_rng(0).permutation(len(images))[:n]
    start = time.perf_counter()
    for i in order:
        images.read(int(i))
    read = time.perf_counter() - start
    decode = decode_sketch if images.modality is Modality.SKETCH else decode_photo
    start = time.perf_counter()
    for i in order:
        decode(images.read(int(i)))
    return read / len(order) * 1e6, (time.perf_counter() - start) / len(order) * 1e6


def _prepared(folder: Path, out: Path, options: CleanOptions) -> tuple[ImageSet, ImageSet]:
    """Training sketches and photos of the folder as a prepared set."""
    choices = Choices(clean=options, allow_leak=True)
    data = PreparedSet.open(prepare_own([folder], out=out, choices=choices).root)
    return data.images(Part.TRAIN, Modality.SKETCH), data.images(Part.TRAIN, Modality.PHOTO)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        sketches, photos = _prepared(args.folder, Path(out) / "x", CleanOptions())
        square = _prepared(args.folder, Path(out) / "y", CleanOptions(args.size, square=True))
        for what, pair in (("as it is", (sketches, photos)), ("squared", square)):
            for images in pair:
                read, both = decode_cost(images)
                name = images.modality.name.lower()
                print(f"{name:6s} {what:8s} read {read:5.1f} us, read + decode {both:5.0f} us")
        scan, index = scan_cost(photos)
        print(
            f"choosing a photo among 60,000: scan of labels {scan:.0f} us, class index {index:.2f} us an item"
        )
        plan = RowPlan.build(
            sketches.labels, photos.labels, batch_size=args.batch, steps_per_epoch=args.batches, seed=0
        )
        rows = plan.batches(0)
        keys = [
            [(0, b * args.batch + i, tuple(map(int, r))) for i, r in enumerate(rows[b])]
            for b in range(len(rows))
        ]
        numbers = [[b * args.batch + i for i in range(args.batch)] for b in range(args.batches)]
        plain = DataConfig(size=args.size)
        lively = load_recipe(find_recipe("mobilenet"), [f"data.size={args.size}"]).data
        ours = RowItems(sketches, photos, plain, 0)
        items = {
            "shards": ours,
            "squared": RowItems(*square, plain, 0),
            "shards augmented": RowItems(sketches, photos, lively, 0),
            "squared augmented": RowItems(*square, lively, 0),
        }
        folder = args.folder
        for workers in (0, 2):
            runs: dict[str, list[float]] = {"published": [], "loose": [], **{name: [] for name in items}}
            for _ in range(args.rounds):
                runs["published"].append(
                    rate(Published(folder, sketches, photos, args.size), numbers, workers)
                )
                runs["loose"].append(rate(Loose(folder, ours), keys, workers))
                for name, dataset in items.items():
                    runs[name].append(rate(dataset, keys, workers))
            medians = {name: statistics.median(values) for name, values in runs.items()}
            text = ", ".join(f"{n} {v:,.0f} ({v / medians['published']:.1f}x)" for n, v in medians.items())
            print(f"{workers} workers, images/s at {args.size} px: {text}", flush=True)


if __name__ == "__main__":
    main()
