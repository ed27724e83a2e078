"""`prepare --verify`: read a prepared set completely and say what is wrong with it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from zssbir_cli.data.manifest import ShardInfo
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.shards import content_digest
from zssbir_cli.errors import DataError
from zssbir_cli.files import file_sha256
from zssbir_cli.preparation.leaks import find_image_leaks
from zssbir_cli.preparation.reading import available_cores
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Part

MAX_PROBLEMS = 50


@dataclass(frozen=True)
class Verdict:
    """What a full re-read found. `problems` is empty for a sound set."""

    images: int
    shards: int
    problems: tuple[str, ...]
    leaks: int


def verify(root: Path, workers: int = 0, progress: Progress = silent) -> Verdict:
    """Check the manifest, each shard's checksum and offsets, every image's decodability, and leaks that the
    manifest does not record.

    Errors: DataError: the manifest cannot be read, or a shard is missing or of another size.
    """
    prepared = PreparedSet.open(root)
    problems = [p for p in (_bad_shard(root, s) for s in prepared.manifest.shards) if p]
    total = sum(s.count for s in prepared.manifest.shards)
    done = 0
    if not problems:
        for part in Part:
            for modality in Modality:
                images = prepared.images(part, modality)
                for bad in _undecodable(images, workers or available_cores()):
                    done += 1
                    if bad:
                        problems.append(bad)
                    if done % 256 == 0:
                        progress("verifying", done, total)
        progress("verifying", total, total)
        problems += _new_leaks(prepared)
    return Verdict(
        total, len(prepared.manifest.shards), tuple(problems[:MAX_PROBLEMS]), len(prepared.manifest.leaks)
    )


def _bad_shard(root: Path, info: ShardInfo) -> str:
    try:
        same = content_digest(root / info.file) == info.sha256
        same &= info.file_sha256 in (None, file_sha256(root / info.file))
    except DataError as error:
        return str(error)
    return "" if same else f"{root / info.file}: its checksum is not the manifest's"


def _undecodable(images: ImageSet, workers: int) -> Iterator[str]:
    """For each image "" or what is wrong with it."""
    from zssbir_cli.data.images import decode_photo, decode_sketch

    decode = decode_sketch if images.modality is Modality.SKETCH else decode_photo

    def check(i: int) -> str:
        try:
            decode(images.read(i))
        except DataError as error:
            return f"{images.part} {images.modality.word} {images.sources[i]}: {error}"
        return ""

    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(images), 4096):
            yield from pool.map(check, range(start, min(start + 4096, len(images))))


def _new_leaks(prepared: PreparedSet) -> list[str]:
    recorded = {leak.what for leak in prepared.manifest.leaks}
    found = find_image_leaks(prepared.root, prepared.manifest.shards)
    return [f"leak: {leak.what} is in {leak.where}" for leak in found if leak.what not in recorded]
