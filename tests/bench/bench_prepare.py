"""How fast `prepare` is against reading, hashing and (when resizing) coding the same files alone; peak memory.

    python tests/bench/bench_prepare.py speed [FOLDER] [--rounds 3]
    python tests/bench/bench_prepare.py memory [--images 10000 200000]

`speed`: FOLDER holds sketch/<class>/* and photo/<class>/*; without it, 20,000 images like those of the published
data sets are generated (256 px, JPEG of 17 kB and PNG of 2 kB). The baseline reads and hashes (and decodes, or
decodes, resizes and encodes) the same files with the same number of threads and keeps nothing. Rounds of the
baseline and of `prepare` alternate; medians and their ratio are printed.
`memory`: peak resident memory of `prepare` on generated sets of different sizes, as a folder and as a tar.
"""

import argparse
import io
import resource
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from full_layouts import Painter

from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.preparation.reading import available_cores
from zssbir_cli.types import Modality
from zssbir_cli.workflows.prepare import prepare_own

MODES = {
    "default: read + hash + decode": CleanOptions(),
    "--size 128: read + hash + decode + resize + encode": CleanOptions(size=128),
}


def alone(files: list[tuple[Path, Modality]], options: CleanOptions) -> float:
    """Seconds for the bare work on all files."""

    def work(item: tuple[Path, Modality]) -> int:
        raw = item[0].read_bytes()
        return len(clean(raw, item[1], options).digest)

    start = time.perf_counter()
    with ThreadPoolExecutor(available_cores()) as pool:
        for _ in pool.map(
            lambda chunk: [work(f) for f in chunk], [files[i : i + 32] for i in range(0, len(files), 32)]
        ):
            pass
    return time.perf_counter() - start


def prepared(folder: Path, options: CleanOptions) -> float:
    """Seconds for `prepare` (listing, storing, verifying and fsync included)."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        prepare_own([folder], out=Path(out) / "x", choices=Choices(clean=options, allow_leak=True))
        return time.perf_counter() - start


def speed(folder: Path, rounds: int) -> None:
    """Alternate the baseline and `prepare`."""
    files = [
        (p, Modality.SKETCH if "sketch" in p.parts[-3] else Modality.PHOTO)
        for p in sorted(folder.rglob("*/*/*.*"))
    ]
    print(
        f"{len(files):,} files, {sum(f.stat().st_size for f, _ in files) / 1e6:.0f} MB, {available_cores()} threads"
    )
    for what, options in MODES.items():
        alone(files, options)
        pairs = [(alone(files, options), prepared(folder, options)) for _ in range(rounds)]
        base, ours = (statistics.median(p[i] for p in pairs) for i in (0, 1))
        print(
            f"{what:52s} alone {len(files) / base:8,.0f}/s   prepare {len(files) / ours:8,.0f}/s   ratio {ours / base:.2f}"
        )


def generate(path: Path, images: int, pack: str, painter: Painter) -> None:
    """A folder or tar of 100 classes, half photos and half sketches."""
    archive = tarfile.open(path, "w") if pack == "tar" else None  # noqa: SIM115
    for i in range(images // 2):
        name = f"c{i % 100:02d}"
        for where, data in (
            (f"photo/{name}/{i}.jpg", painter.photo(i)),
            (f"sketch/{name}/{i}.png", painter.sketch(i)),
        ):
            if archive is not None:
                member = tarfile.TarInfo(where)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            else:
                target = path / where
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    if archive is not None:
        archive.close()


def memory(sizes: list[int]) -> None:
    """Peak memory of a fresh process for each size and packing."""
    for pack in ("folder", "tar"):
        for images in sizes:
            with tempfile.TemporaryDirectory() as base:
                source = Path(base) / ("own.tar" if pack == "tar" else "own")
                generate(source, images, pack, Painter(96))
                start = time.perf_counter()
                code = f"import bench_prepare as b, pathlib; b.measure(pathlib.Path({str(source)!r}))"
                done = subprocess.run(
                    [sys.executable, "-c", code],
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                    cwd=Path(__file__).parent,
                )
                took = time.perf_counter() - start
                shutil.rmtree(source, ignore_errors=True)
                print(
                    f"{pack:6s} {images:8,} images: peak {done.stdout.strip()} MB, {images / took:,.0f} images/s",
                    flush=True,
                )


def measure(source: Path) -> None:
    """Prepare `source` and print this process's peak memory in MB."""
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        prepare_own([source], out=Path(out) / "x", choices=Choices())
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    fast = commands.add_parser("speed")
    fast.add_argument("folder", type=Path, nargs="?")
    fast.add_argument("--rounds", type=int, default=3)
    big = commands.add_parser("memory")
    big.add_argument("--images", type=int, nargs="+", default=[10_000, 200_000])
    args = parser.parse_args()
    if args.command == "speed":
        with tempfile.TemporaryDirectory() as base:
            if args.folder is None:
                generate(Path(base), 20_000, "folder", Painter(256, grain=6))
            speed(args.folder or Path(base), args.rounds)
    else:
        memory(args.images)


if __name__ == "__main__":
    main()
