"""Embedding a folder and training, beside other libraries: one run, each in processes of its own and with its own settings.

    python tests/bench/bench_peers.py PICTURES --weights mobilenetv2_100.pth [--size 96] [--repeat 3]

PICTURES: photo/<class>/* and sketch/<class>/*, 12 classes or more; `--weights`: a MobileNetV2 as TensorFlow trained it
(1,001 classes). Three groups, the first row of each is the baseline:

- embedding with that MobileNetV2: the plain loop of bench_folder.py, lightly-train's `embed`, `zssbir embed`;
- embedding with CLIP ViT-B/32 (random weights): open_clip's model and preprocessing in a DataLoader, which is also
  clip-retrieval's way, and `zssbir embed` in fp32 and as it is;
- training all weights of that MobileNetV2, 48 images a batch (12 classes, 4 images each), AdamW, fp32, batch statistics,
  no augmentation, two loading processes: the loops of pytorch-metric-learning's and open-metric-learning's READMEs, and
  `zssbir train` with the method `triplet`.

The libraries are no dependencies of zssbir: install those you want to compare into an environment of their own (`pip
install lightly-train pytorch-metric-learning pandas validators gdown` and `pip install --no-deps open-metric-learning`, which
asks for numpy 1); what is missing is left out, and named.
Each contender runs over a few items and over many in each round, one after the other; the difference is the time without
start-up. Medians of the rounds. How long all of it takes on idle cores has not been timed.
"""

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench_folder import difference, plain_command, timed, tower_recipe

ZSSBIR = [sys.executable, "-m", "zssbir_cli"]
BATCH = 48
Command = Callable[[str, int], list[str]]
"""From `few` or `all` and the round to a command line."""


@dataclass(frozen=True)
class Contender:
    """A row: what it is called, the package it needs (empty: none but zssbir's own), and how it is run."""

    name: str
    package: str
    command: Command


def main() -> None:
    """Run all groups, print a table each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--photos", type=int, default=1000, help="for MobileNetV2")
    parser.add_argument("--clip-photos", type=int, default=160)
    parser.add_argument("--steps", type=int, default=16)
    args = parser.parse_args()
    args.weights = args.weights.resolve()
    print(
        f"Python {platform.python_version()}, PyTorch {version('torch')}, {os.cpu_count()} cores, {args.size} px, {args.repeat} rounds, load {os.getloadavg()[0]:.1f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["ZSSBIR_CACHE"] = str(work / "cache")
        os.environ["LIGHTLY_TRAIN_EVENTS_DISABLED"] = "1"
        mobilenet = embedders(args, work)
        compare("embedding, MobileNetV2", "photos", mobilenet, args.photos - 64, args.repeat)
        print(f"largest difference of unit vectors, zssbir and plain loop: {difference(work):.1e}\n")
        few = args.clip_photos // 5
        compare(
            "embedding, CLIP ViT-B/32", "photos", clips(args, work, few), args.clip_photos - few, args.repeat
        )
        compare(
            "training, MobileNetV2",
            "images",
            trainers(args, work),
            args.steps * BATCH,
            args.repeat,
            args.steps,
        )


def embedders(args: argparse.Namespace, work: Path) -> list[Contender]:
    """Programs that embed a folder with the MobileNetV2."""
    copy_photos(args.pictures, work / "all", args.photos)
    copy_photos(args.pictures, work / "few", 64)
    tower_recipe(work / "tower.yaml", args.weights, args.size)
    return [
        Contender(
            "timm + DataLoader",
            "timm",
            lambda what, _: plain_command(work / what, args.size, args.weights, work / "plain.npy"),
        ),
        Contender(
            "lightly-train embed",
            "lightly-train",
            lambda what, _: loop("lightly_train", work / what, 0, args.size, args.weights, work / "lightly"),
        ),
        Contender(
            "zssbir embed, fp32",
            "",
            lambda what, turn: [
                *ZSSBIR, "embed", "--photos", str(work / what), "--model", str(work / "tower.yaml"), "--precision",
                "fp32", "--out", str(work / f"{what}-{turn}.h5"),
            ],
        ),
    ]  # fmt: skip


def clips(args: argparse.Namespace, work: Path, few: int) -> list[Contender]:
    """Programs that embed a folder with open_clip's ViT-B-32."""
    import open_clip
    import torch

    copy_photos(args.pictures, work / "clip-all", args.clip_photos)
    copy_photos(args.pictures, work / "clip-few", few)
    weights = work / "clip.pt"
    torch.save(open_clip.create_model("ViT-B-32").state_dict(), weights)
    recipe = work / "clip.yaml"
    recipe.write_text(
        "name: clip\nmethod: {name: triplet}\ndata: {size: 224, workers: 2}\nmodel: {backbone: "
        f"vit_base_patch32_clip_224.laion2b, weights: {weights}, options: {{num_classes: 512}}}}\n"
    )

    def peer(name: str) -> Command:
        return lambda what, turn: loop(
            name, work / f"clip-{what}", 0, 224, weights, work / f"{name}-{what}-{turn}"
        )

    def ours(precision: str) -> Command:
        return lambda what, turn: [
            *ZSSBIR, "embed", "--photos", str(work / f"clip-{what}"), "--model", str(recipe),
            "--precision", precision, "--out", str(work / f"clip-{what}-{turn}-{precision}.h5"),
        ]  # fmt: skip

    return [
        Contender("open_clip + DataLoader", "open_clip_torch", peer("open_clip")),
        Contender("zssbir embed, fp32", "", ours("fp32")),
        Contender("zssbir embed, bf16", "", ours("bf16")),
    ]


def trainers(args: argparse.Namespace, work: Path) -> list[Contender]:
    """Programs that train the MobileNetV2 for a few steps and for `steps` more."""
    for kind in ("photo", "sketch"):
        for folder in sorted((args.pictures / kind).iterdir()):
            for file in sorted(folder.iterdir())[:20]:
                (work / "pictures" / kind / folder.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(file, work / "pictures" / kind / folder.name)
    timed([*ZSSBIR, "prepare", str(work / "pictures"), "--out", str(work / "data"), "--unseen", "1", "--val-classes", "0"])  # fmt: skip
    recipe = work / "train.yaml"
    recipe.write_text(
        f"name: peers\nmethod: {{name: triplet, classes_per_batch: 12}}\ndata: {{root: {work / 'data'}, size: {args.size}, "
        f"workers: 2}}\nmodel: {{backbone: mobilenetv2_100, weights: {args.weights}, options: {{pad_type: same}}, "
        "freeze_batchnorm: false, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\noptim: {name: adamw, lr: 1e-4}\n"
        f"train: {{epochs: 1, batch_size: {BATCH // 2}, precision: fp32, validate_every: 0}}\n"  # pairs
    )
    steps = {"few": 4, "all": 4 + args.steps}

    def peer(name: str) -> Command:
        return lambda what, _: loop(
            name, work / "pictures", steps[what], args.size, args.weights, work / "out"
        )

    return [
        Contender("pytorch-metric-learning", "pytorch-metric-learning", peer("pytorch_metric_learning")),
        Contender("open-metric-learning", "open-metric-learning", peer("open_metric_learning")),
        Contender(
            "zssbir train",
            "",
            lambda what, _: [
                *ZSSBIR, "train", "--recipe", str(recipe), "--runs", str(work / "runs"), "--set",
                f"train.steps_per_epoch={steps[what]}",
            ],
        ),
    ]  # fmt: skip


def loop(name: str, folder: Path, count: int, size: int, weights: Path, out: Path) -> list[str]:
    """The command line of a loop of peer_loops.py."""
    script = Path(__file__).with_name("peer_loops.py")
    return [sys.executable, str(script), name, *map(str, (folder, count, size, weights, out))]


def copy_photos(pictures: Path, to: Path, count: int) -> None:
    """The first `count` photos that are JPEG files."""
    to.mkdir()
    files = sorted(p for p in (pictures / "photo").rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    for i, file in enumerate(files[:: max(1, len(files) // count)][:count]):
        shutil.copy(file, to / f"{i:06d}.jpg")


def compare(
    title: str, unit: str, contenders: list[Contender], items: int, rounds: int, steps: int = 0
) -> None:
    """Run the contenders in turns; print items a second without start-up, ratios to the first, and start-up itself."""
    present = [c for c in contenders if installed(c.package)]
    times: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for turn in range(rounds):
        for contender in present:
            for what in ("few", "all"):
                times.setdefault((contender.name, what), []).append(timed(contender.command(what, turn)))
    print(
        f"{title} | version | {unit}/s | x | {unit}/processor s | x | all, s{' | a step, ms' if steps else ''}"
    )
    base: list[float] = []
    for contender in contenders:
        if contender not in present:
            print(f"{contender.name} | not installed")
            continue
        few, whole = times[contender.name, "few"], times[contender.name, "all"]
        net = [statistics.median(b[i] - a[i] for a, b in zip(few, whole, strict=True)) for i in (0, 1)]
        base = base or net
        row = [f"{value} | {base[i] / net[i]:.2f}" for i, value in enumerate(f"{items / n:.0f}" for n in net)]
        step = f" | {1e3 * net[0] / steps:.0f}" if steps else ""
        print(
            f"{contender.name} | {installed(contender.package or 'zssbir')} | {' | '.join(row)} | {statistics.median(w[0] for w in whole):.1f}{step}",
            flush=True,
        )
    print(f"load {os.getloadavg()[0]:.1f}\n")


def installed(package: str) -> str:
    """Its version, empty where it is not installed; `own` where nothing but zssbir is needed."""
    try:
        return version(package) if package else "own"
    except PackageNotFoundError:
        return "own" if package == "zssbir" else ""


if __name__ == "__main__":
    main()
