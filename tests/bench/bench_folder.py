"""Embedding a folder of photos: `zssbir embed` against the loop that one writes in ten lines with timm and torchvision.

    python tests/bench/bench_folder.py PHOTOS --weights mobilenetv2_100.pth [--size 96] [--repeat 5] [--count 3000]

PHOTOS: any folder of JPEG files; `--weights`: a MobileNetV2 as TensorFlow trained it (1,001 classes). The plain loop is a
timm model, PIL, torchvision's resizing and normalisation, a DataLoader with two workers and batches of 128, fp32, in a process of its
own with the allocator as it is. Both embed the same files with the same network; the largest difference of their unit
vectors is printed. Runs interleaved, whole processes, medians of seconds and of processor seconds (user and system, of all
processes); start-up is taken off by a run over 64 photos each. Under four minutes on two idle cores.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PLAIN = """
import sys, numpy as np, timm, torch
from pathlib import Path
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F
files, size, weights, out = sorted(p for p in Path(sys.argv[1]).rglob("*") if p.is_file()), int(sys.argv[2]), sys.argv[3], sys.argv[4]
class Photos(Dataset):
    def __len__(self): return len(files)
    def __getitem__(self, i):
        image = F.resize(F.pil_to_tensor(Image.open(files[i]).convert("RGB")), [size, size], antialias=True)
        return (image.float() - 127.5) / 127.5
model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
model.load_state_dict(torch.load(weights, weights_only=True)); model.reset_classifier(0); model.eval()
torch.set_num_threads(2)
with torch.inference_mode():
    rows = torch.cat([model(x) for x in DataLoader(Photos(), batch_size=128, num_workers=2)])
np.save(out, torch.nn.functional.normalize(rows, dim=1).numpy())
"""


def main() -> None:
    """Run both, print medians and the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--count", type=int, default=3000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        files = sorted(p for p in args.photos.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[
            : args.count
        ]
        if len(files) <= 64:
            sys.exit(f"{args.photos}: {len(files)} JPEG files found, 65 are needed at the least")
        for name, some in (("all", files), ("few", files[:64])):
            (work / name).mkdir()
            for i, file in enumerate(some):
                shutil.copy(file, work / name / f"{i:06d}.jpg")
        tower_recipe(work / "tower.yaml", args.weights, args.size)
        times: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for turn in range(args.repeat):
            for what in ("few", "all"):
                for who in ("plain", "zssbir"):
                    times.setdefault((who, what), []).append(run(who, work, what, args, turn))
        print(f"{args.repeat} runs, {len(files)} photos, {args.size} px, load {os.getloadavg()[0]:.1f}")
        for i, unit in enumerate(("seconds", "processor seconds")):
            compare({key: [run[i] for run in runs] for key, runs in times.items()}, unit, len(files) - 64)
        print(f"largest difference of unit vectors {difference(work):.1e}")


def compare(times: dict[tuple[str, str], list[float]], unit: str, photos: int) -> None:
    """Print medians and ratios."""
    median = {key: statistics.median(values) for key, values in times.items()}
    net = {who: median[who, "all"] - median[who, "few"] for who in ("plain", "zssbir")}
    for who, seconds in net.items():
        print(
            f"{unit}: {who:7s} {median[who, 'all']:6.1f} in all, {photos / seconds:6.0f} photos/s without start-up"
        )
    whole = median["plain", "all"] / median["zssbir", "all"]
    print(f"{unit}: ratio {net['plain'] / net['zssbir']:.2f} x without start-up, {whole:.2f} x in all")


def run(who: str, work: Path, what: str, args: argparse.Namespace, turn: int) -> tuple[float, float]:
    """Seconds and processor seconds of one process and its children."""
    if who == "plain":
        return timed(plain_command(work / what, args.size, args.weights, work / "plain.npy"))
    return timed(
        [
            sys.executable, "-m", "zssbir_cli", "embed", "--photos", str(work / what), "--model", str(work / "tower.yaml"),
            "--precision", "fp32", "--out", str(work / f"{what}-{turn}.h5"), "--device", "cpu",
        ],
        ZSSBIR_CACHE=str(work / f"cache-{turn}"),
    )  # fmt: skip


def plain_command(photos: Path, size: int, weights: Path, out: Path) -> list[str]:
    """The plain loop over a folder."""
    return [sys.executable, "-c", PLAIN, str(photos), str(size), str(weights), str(out)]


def tower_recipe(file: Path, weights: Path, size: int) -> None:
    """A recipe whose start is the plain loop's network."""
    file.write_text(
        f"name: tower\nmethod: {{name: triplet}}\ndata: {{size: {size}, workers: 2}}\nmodel: {{backbone: "
        f"mobilenetv2_100, weights: {weights.resolve()}, options: {{pad_type: same}}, mean: [0.5, 0.5, 0.5], std: "
        "[0.5, 0.5, 0.5]}\n"
    )


def timed(command: list[str], **env: str) -> tuple[float, float]:
    """Seconds and processor seconds (user and system) of one process and its children; ends where it fails."""
    begin, before = time.perf_counter(), os.times()
    done = subprocess.run(
        command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    after = os.times()
    if done.returncode:
        sys.exit(f"{command[:4]} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - begin, sum(after[2:4]) - sum(before[2:4])


def difference(work: Path) -> float:
    """Largest difference between the two programs' vectors of the same files."""
    from zssbir_cli.data.embeddings import read_embeddings

    ours = np.asarray(read_embeddings(work / "all-0.h5").embedding)
    ours = ours / np.linalg.norm(ours, axis=1, keepdims=True)
    return float(np.abs(ours - np.load(work / "plain.npy")).max())


if __name__ == "__main__":
    main()
