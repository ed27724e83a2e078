"""Adding a few photos to a large gallery, beside embedding them alone and listing the folder.

    python tests/bench/bench_follow.py [--photos 100000] [--added 50] [--repeat 3]

MobileNetV2 at 96 px with random weights. The folder holds small JPEG files of contents that differ; the gallery's rows
are generated, since embedding 100,000 photos takes longer than the benchmark. Interleaved, medians: whole commands, as
a user waits for them (their goal is a ratio of 1.2), and the work without start-up, which a larger network would hide:
writing the gallery anew costs more than embedding 50 photos with a small one.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from bench_draw import make_run, unit_rows
from PIL import Image

from zssbir_cli.data.embeddings import FileStamps, write_embeddings
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.folder import follow_folder
from zssbir_cli.embedding.listing import file_content, list_photos
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.types import Modality


def make_photos(folder: Path, first: int, count: int) -> None:
    """JPEG files of 160 x 120, 1,000 to a folder; a number after the end of the picture makes each content another."""
    rng = np.random.default_rng(first)
    pictures = []
    for _ in range(50):
        out = io.BytesIO()
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(coarse).resize((160, 120)).save(out, "JPEG")
        pictures.append(out.getvalue())
    for i in range(first, first + count):
        place = folder / f"{i // 1000:04d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:08d}.jpg").write_bytes(pictures[i % 50] + b"%012d" % i)


def make_gallery(path: Path, folder: Path, embedder: Embedder, width: int) -> None:
    """A gallery of all photos below a folder, with generated rows."""
    listing = list_photos(folder)
    size, mtime_ns, ctime_ns = listing.stamps.T
    content = np.array([np.frombuffer(file_content(folder / n), np.uint8) for n in listing.names])
    write_embeddings(
        path,
        unit_rows(len(listing), width),
        np.full(len(listing), -1, np.int32),
        np.full(len(listing), int(Modality.PHOTO), np.uint8),
        listing.names,
        embedder.info(data_name=folder.name, data_root=str(folder.resolve())),
        stamps=FileStamps(size, mtime_ns, ctime_ns, content),
    )


def timed(what: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of processor time, of this process and those that it starts."""
    wall, used = time.perf_counter(), sum(os.times()[:4])
    what()
    return time.perf_counter() - wall, sum(os.times()[:4]) - used


def command(run: Path, photos: Path, out: Path, *more: str) -> None:
    """`zssbir embed` as a process."""
    line = [
        sys.executable,
        "-m",
        "zssbir_cli",
        "embed",
        "--photos",
        str(photos),
        "--run",
        str(run),
        "--out",
        str(out),
    ]
    subprocess.run([*line, "--workers", "0", "--device", "cpu", *more], check=True, capture_output=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--added", type=int, default=50)
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        run = place / "run"
        embedder = Embedder(RunWeights(make_run(run)), torch.device("cpu"), workers=0)
        width = embedder.embed_batch(torch.zeros(1, 3, 96, 96, dtype=torch.uint8), Modality.PHOTO).shape[1]
        folder, before, gallery, few = (
            place / "photos",
            place / "before.h5",
            place / "gallery.h5",
            place / "few",
        )
        make_photos(folder, 0, options.photos)
        time.sleep(2.1)  # files that have just been written are not trusted by their times
        make_gallery(before, folder, embedder, width)
        make_photos(few, options.photos, options.added)
        shutil.copytree(few, folder, dirs_exist_ok=True)
        time.sleep(2.1)
        alone = place / "few.h5"
        sides: dict[str, Callable[[], object]] = {
            "listing": lambda: list_photos(folder),
            "alone, command": lambda: command(run, few, alone, "--force"),
            "following, command": lambda: command(run, folder, gallery),
            "alone": lambda: follow_folder(embedder, few, alone, force=True),
            "following": lambda: follow_folder(embedder, folder, gallery),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
        for _ in range(options.repeat):
            for name, what in sides.items():
                if name.startswith("following"):
                    shutil.copyfile(before, gallery)
                    os.sync()  # what the copy has left to the disk is not the program's
                times[name].append(timed(what))
        done = follow_folder(embedder, folder, gallery)
        assert done.kept == options.photos + options.added, str(done)
    wall = {name: median(w for w, _ in t) for name, t in times.items()}
    used = {name: median(c for _, c in t) for name, t in times.items()}
    for name in sides:
        print(f"{name:20s} {wall[name]:6.2f} s, {used[name]:6.2f} s of processor time")
    for tail, what in ((", command", "whole commands (goal 1.2)"), ("", "without start-up")):
        ratios = [t[f"following{tail}"] / (t["listing"] + t[f"alone{tail}"]) for t in (wall, used)]
        print(f"{what}: {ratios[0]:.2f} x, in processor time {ratios[1]:.2f} x")


if __name__ == "__main__":
    main()
