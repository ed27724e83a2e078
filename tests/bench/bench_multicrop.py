"""Multi-crop augmentation per image on one core: the published pipeline, torchvision v2, and ours, in one
run.

    python tests/bench/bench_multicrop.py [--images 48] [--repeats 5]

2 global crops of 224 px and 8 local crops of 96 px of 256 px JPEG photos, decoding included, output uint8
(ours,
normalised later on the device) or normalised float32 (published, as its loaders do). The published pipeline
is DINO's: PIL image, RandomResizedCrop bicubic, flip, ColorJitter, grey, GaussianBlur, solarise, ToTensor,
Normalize.
The last lines compare the distributions of the crops' colours. Medians of interleaved repeats.
"""

import argparse
import io
import random
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torchvision import transforms as v1
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import InterpolationMode, v2

from zssbir_cli.data.images import decode_photo
from zssbir_cli.methods.ama.config import ViewsConfig
from zssbir_cli.methods.ama.views import multi_crop

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Blur:
    """DINO's GaussianBlur: PIL, radius uniform in 0.1-2."""

    def __init__(self, chance: float) -> None:
        self.chance = chance

    def __call__(self, image: Image.Image) -> Image.Image:
        if random.random() > self.chance:
            return image
        return image.filter(ImageFilter.GaussianBlur(radius=random.uniform(0.1, 2.0)))


class Solarize:
    """DINO's Solarization with chance 0.2."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return ImageOps.solarize(image) if random.random() < 0.2 else image


def published(
    size: int = 224, small: int = 96, decode_each: bool = False
) -> Callable[[bytes], list[torch.Tensor]]:
    """DINO's DataAugmentationDINO with AMA's scales; decode_each: the image is decoded for each crop anew."""

    def chain(side: int, scale: tuple[float, float], blur: float, solarize: bool) -> v1.Compose:
        steps = [
            v1.RandomResizedCrop(side, scale=scale, interpolation=InterpolationMode.BICUBIC),
            v1.RandomHorizontalFlip(0.5),
            v1.RandomApply([v1.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v1.RandomGrayscale(0.2),
            Blur(blur),
            *([Solarize()] if solarize else []),
            v1.ToTensor(),
            v1.Normalize(MEAN, STD),
        ]
        return v1.Compose(steps)

    first, second, local = (
        chain(size, (0.6, 1), 1.0, False),
        chain(size, (0.6, 1), 0.1, True),
        chain(small, (0.2, 0.6), 0.5, False),
    )

    def run(data: bytes) -> list[torch.Tensor]:
        views = [first, second, *[local] * 8]
        images = [Image.open(io.BytesIO(data)).convert("RGB") for _ in (views if decode_each else views[:1])]
        return [view(images[i % len(images)]) for i, view in enumerate(views)]

    return run


def vision() -> Callable[[bytes], list[torch.Tensor]]:
    """The same with torchvision v2 on uint8 tensors."""

    def chain(size: int, scale: tuple[float, float], blur: float, solarize: float) -> v2.Compose:
        return v2.Compose(
            [
                v2.RandomResizedCrop(
                    size, scale=scale, interpolation=InterpolationMode.BICUBIC, antialias=True
                ),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
                v2.RandomGrayscale(0.2),
                v2.RandomApply([v2.GaussianBlur(13, (0.1, 2.0))], p=blur),
                v2.RandomSolarize(128, p=solarize),
            ]
        )

    first, second, local = (
        chain(224, (0.6, 1), 1.0, 0.0),
        chain(224, (0.6, 1), 0.1, 0.2),
        chain(96, (0.2, 0.6), 0.5, 0.0),
    )

    def run(data: bytes) -> list[torch.Tensor]:
        image = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB)
        return [first(image), second(image), *(local(image) for _ in range(8))]

    return run


def ours() -> Callable[[bytes], list[torch.Tensor]]:
    """methods/ama/views.py."""
    count = iter(range(10**9))

    def run(data: bytes) -> list[torch.Tensor]:
        image = decode_photo(np.frombuffer(data, np.uint8))
        wide, near = multi_crop(image, ViewsConfig(), 224, np.random.default_rng(next(count)))
        return [*wide, *near]

    return run


def photos(count: int) -> list[bytes]:
    """256 px JPEGs with large and small structure."""
    rng = np.random.default_rng(0)
    result = []
    for _ in range(count):
        parts = [
            cv2.resize(
                rng.uniform(0, 255, (n, n, 3)).astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC
            )
            for n in (3, 8, 30, 128)
        ]
        picture = np.clip(
            sum(w * p for w, p in zip((0.6, 0.25, 0.1, 0.05), parts, strict=True)) * 1.4 - 50, 0, 255
        )
        buffer = io.BytesIO()
        Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        result.append(buffer.getvalue())
    return result


def describe(views: list[list[torch.Tensor]]) -> dict[str, float]:
    """Moments of the colours of all global crops, 0-1."""
    means, spreads, tints = [], [], []
    for crops in views:
        for crop in crops[:2]:
            x = (
                crop.float() / 255
                if crop.dtype is torch.uint8
                else crop * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)
            )
            means.append(float(x.mean()))
            spreads.append(float(x.std()))
            tints.append(float(x.std(0).mean()))
    out = {}
    for name, values in (("brightness", means), ("contrast", spreads), ("colour", tints)):
        out[name], out[f"{name} sd"] = statistics.mean(values), statistics.stdev(values)
    return out


def main() -> None:
    """Time, then compare distributions."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    data = photos(options.images)
    runs = {"published (PIL)": published(), "torchvision v2": vision(), "ours (OpenCV)": ours()}
    times: dict[str, list[float]] = {n: [] for n in runs}
    views: dict[str, list[list[torch.Tensor]]] = {n: [] for n in runs}
    for repeat in range(options.repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            views[name] += [run(d) for d in data]
            if repeat:  # the first is a warm-up
                times[name].append((time.perf_counter() - start) / len(data) * 1000)
    base = statistics.median(times["published (PIL)"])
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:16s} {median:6.2f} ms per image ({base / median:.1f}x)")
    for name, crops in views.items():
        print(f"{name:16s} " + "  ".join(f"{k} {v:.3f}" for k, v in describe(crops).items()))


if __name__ == "__main__":
    main()
