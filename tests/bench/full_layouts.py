"""Write a benchmark's full-size layout with generated images under published paths.

    python tests/bench/full_layouts.py sketchy OUT [--scale 1.0] [--side 64] [--zip|--tar]

Counts per class are the published ones where they are known (Sketchy; TU-Berlin's test classes), else even
shares of the published totals. Images are small and repeat, but each file says its number and so has
its own checksum; EXTEND repeats Sketchy's originals under their names, as it really does.
"""

import argparse
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from zssbir_cli.benchmarks.compare import published_counts
from zssbir_cli.benchmarks.layouts import Kind, published_path
from zssbir_cli.benchmarks.splits import CLASSES


def plan(dataset: str, scale: float) -> Iterator[tuple[Kind, str, str]]:
    """(kind, class, file name) of every image of the data set."""
    for number, name in enumerate(CLASSES[dataset]):
        for kind, n in counts(dataset, name).items():
            total = max(2, round(n * scale))
            for i in range(total):
                yield kind, name, file_name(dataset, kind, number, i, max(2, round(100 * scale)))


def counts(dataset: str, name: str) -> dict[Kind, int]:
    """Images per kind of a class."""
    known = published_counts(dataset).get(name)
    if dataset == "sketchy" and known:
        return {Kind.SKETCH: known["sketches"], Kind.PHOTO: 100, Kind.EXTEND: known["photos"] - 100}
    if dataset == "tuberlin":
        return {
            Kind.SKETCH: 80,
            Kind.PHOTO: known["photos"] if known else 802 + (CLASSES[dataset].index(name) < 90),
        }
    return {Kind.SKETCH: 3000, Kind.PHOTO: 1855}


def file_name(dataset: str, kind: Kind, number: int, i: int, originals: int) -> str:
    """A name like the published ones; the first EXTEND files of a class are its originals again."""
    if dataset == "sketchy":
        if kind is Kind.SKETCH:
            return f"n{number:08d}_{i // 6}-{i % 6 + 1}.png"
        return f"ext_{i}.jpg" if kind is Kind.EXTEND and i >= originals else f"n{number:08d}_{i}.jpg"
    if dataset == "tuberlin":
        return f"{number * 80 + i + 1}.png" if kind is Kind.SKETCH else f"n{number:08d}_{i}.JPEG"
    return f"{number * 10**6 + i}.png" if kind is Kind.SKETCH else f"image_{i:05d}.jpg"


class Painter:
    """Small encoded images, each another file: 256 drawings of each kind, and the image's number as a comment.

    `grain`: standard deviation of the noise in photos; 256 px with a grain of 6 take as much as real ones (17 kB).
    """

    def __init__(self, side: int, grain: float = 0) -> None:
        self.side, self.grain, self.rng = side, grain, np.random.default_rng(0)
        self.photos = [self._photo() for _ in range(256)]
        self.sketches = [self._sketch() for _ in range(256)]

    def photo(self, key: int) -> bytes:
        """A JPEG."""
        raw, text = self.photos[key % 256], b"image %d" % key
        return raw[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + raw[2:]

    def sketch(self, key: int) -> bytes:
        """A PNG."""
        raw, chunk = self.sketches[key % 256], b"tEXtimage\0%d" % key
        size, crc = struct.pack(">I", len(chunk) - 4), struct.pack(">I", zlib.crc32(chunk))
        return raw[:33] + size + chunk + crc + raw[33:]

    def _photo(self) -> bytes:
        smooth = Image.fromarray(self.rng.integers(0, 256, (8, 8, 3), np.uint8))
        pixels = np.asarray(smooth.resize((self.side, self.side), Image.Resampling.BICUBIC))
        if self.grain:
            noise = self.rng.normal(0, self.grain, (self.side, self.side, 1))
            pixels = np.clip(pixels + noise, 0, 255).astype(np.uint8)
        return _encoded(Image.fromarray(pixels), "JPEG", quality=85)

    def _sketch(self) -> bytes:
        image = Image.new("L", (self.side, self.side), 255)
        ImageDraw.Draw(image).line(self.rng.integers(0, self.side, 16).tolist(), fill=0, width=2)
        return _encoded(image, "PNG", compress_level=1)


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def images(dataset: str, scale: float, side: int) -> Iterator[tuple[str, bytes]]:
    """(published path, bytes) of every image."""
    painter, originals = Painter(side), dict[tuple[str, str], int]()
    for key, (kind, name, file) in enumerate(plan(dataset, scale)):
        path = published_path(dataset, kind, name, file)
        if kind is Kind.SKETCH:
            yield path, painter.sketch(key)
            continue
        if kind is Kind.PHOTO:
            originals[name, file] = key
        yield path, painter.photo(originals.get((name, file), key))


def write(dataset: str, out: Path, scale: float, side: int, pack: str) -> int:
    """Write the layout as a folder, a .zip or a .tar; returns the number of images."""
    number = 0
    if pack == "folder":
        save: Callable[[str, bytes], object] = _to_folder(out)
        for number, (path, data) in enumerate(images(dataset, scale, side), 1):  # noqa: B007
            save(path, data)
    elif pack == "zip":
        with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
            for number, (path, data) in enumerate(images(dataset, scale, side), 1):  # noqa: B007
                archive.writestr(path, data)
    else:
        with tarfile.open(out, "w" if pack == "tar" else "w:gz") as archive:
            for number, (path, data) in enumerate(images(dataset, scale, side), 1):  # noqa: B007
                member = tarfile.TarInfo(path)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    return number


def _to_folder(out: Path) -> Callable[[str, bytes], object]:
    made: set[Path] = set()

    def save(path: str, data: bytes) -> None:
        target = out / path
        if target.parent not in made:
            target.parent.mkdir(parents=True, exist_ok=True)
            made.add(target.parent)
        target.write_bytes(data)

    return save


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=list(CLASSES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--pack", choices=("folder", "zip", "tar", "tar.gz"), default="folder")
    args = parser.parse_args()
    print(f"{write(args.dataset, args.out, args.scale, args.side, args.pack):,} images in {args.out}")


if __name__ == "__main__":
    main()
