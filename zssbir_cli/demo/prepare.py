"""Writes the demo data set as a prepared data set: JPEG photos with 1-bit object masks, PNG sketches."""

import io
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zssbir_cli import __version__, files
from zssbir_cli.data.manifest import (
    MANIFEST_NAME,
    ClassInfo,
    Manifest,
    ShardInfo,
    read_manifest,
    write_manifest,
)
from zssbir_cli.data.shards import ShardWriter
from zssbir_cli.demo.classes import CLASSES
from zssbir_cli.demo.photo import draw_photo
from zssbir_cli.demo.sketch import draw_sketch
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import ROLE_OF_PART, Modality, Part, Role

_CHUNK = 10
_JPEG_QUALITY = 90


def prepare_demo(
    out: Path,
    *,
    seed: int = 0,
    size: int = 128,
    ambiguity: float = 0.2,
    photos_per_class: int = 40,
    sketches_per_class: int = 30,
    unseen: int | Sequence[str] = 13,
    val: int = 5,
    workers: int = 2,
    progress: Progress = silent,
) -> Path:
    """Draw the demo set and write it to the folder `out`; returns `out`.

    The same arguments give the same images. The folder appears under its name when it is complete; if it
    is there already with the same arguments, nothing is done.

    Args:
        size: side of the square images, 32-1024 pixels.
        ambiguity: 0-1, how many and how large the things of other classes in the photos are.
        unseen: names of the test classes, or how many to choose by `seed`.
        val: number of the remaining classes that are held out for model selection.
        workers: drawing processes; 0 or 1 draws in this process.
        progress: called with the number of images drawn.

    Raises:
        UsageError: an argument out of range or an unknown class.
        DataError: `out` holds something else, or cannot be written.
    """
    _check(seed, size, ambiguity, photos_per_class, sketches_per_class)
    roles = _roles(seed, unseen, val)
    names = sorted(name for name, role in roles.items() if role == Role.UNSEEN)
    options: dict[str, str | int | float | bool | None] = {
        "seed": seed,
        "size": size,
        "ambiguity": ambiguity,
        "photos_per_class": photos_per_class,
        "sketches_per_class": sketches_per_class,
        "unseen": ",".join(names),
        "val": val,
    }
    if _is_done(out, options):
        return out
    jobs = list(_jobs(roles, seed, size, ambiguity, photos_per_class, sketches_per_class))
    try:
        with files.Lock(out.with_name(f".{out.name}.lock"), "drawing the demo set"):
            if not _is_done(out, options):  # another process may have drawn it meanwhile
                _build(out, jobs, roles, options, workers, progress)
    except OSError as error:
        raise DataError(f"{out} cannot be written: {files.reason(error)}") from None
    return out


def _check(seed: int, size: int, ambiguity: float, photos: int, sketches: int) -> None:
    if seed < 0:
        raise UsageError(f"seed {seed} is negative; give 0 or more")
    if not 32 <= size <= 1024:
        raise UsageError(f"size {size} is not between 32 and 1024 pixels")
    if not 0 <= ambiguity <= 1:
        raise UsageError(f"ambiguity {ambiguity} is not between 0 and 1")
    if photos < 1 or sketches < 1:
        raise UsageError(f"{photos} photos and {sketches} sketches per class: give at least one of each")


def _roles(seed: int, unseen: int | Sequence[str], val: int) -> dict[str, Role]:
    """Role of each class: the unseen ones by name or by lot, then the validation classes by lot."""
    order = [CLASSES[i] for i in np.random.default_rng([seed, 1]).permutation(len(CLASSES))]
    if isinstance(unseen, int):
        test = order[: max(unseen, 0)]
    else:
        unknown = sorted(set(unseen) - set(CLASSES))
        if unknown:
            raise UsageError(f"no demo class {unknown[0]!r}; the classes are: {', '.join(CLASSES)}")
        test = list(dict.fromkeys(unseen))
    rest = [name for name in order if name not in test]
    if len(test) < 2 or val < 0 or len(rest) - val < 2:
        raise UsageError(
            f"{len(test)} unseen and {val} validation classes of {len(CLASSES)}: "
            "at least 2 must be unseen and 2 left to train on"
        )
    roles = dict.fromkeys(CLASSES, Role.SEEN)
    roles |= dict.fromkeys(test, Role.UNSEEN) | dict.fromkeys(rest[:val], Role.VAL)
    return roles


def _is_done(out: Path, options: dict[str, str | int | float | bool | None]) -> bool:
    """Whether `out` already holds this very set; DataError when it holds anything else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / MANIFEST_NAME).is_file():
        raise DataError(f"{out} exists and is not a demo set; give another folder with --out, or remove it")
    there = read_manifest(out)
    if there.name == "demo" and there.options == options and there.tool_version == __version__:
        return True
    raise DataError(f"{out} holds a data set made with other options; give another --out, or remove it")


@dataclass(frozen=True)
class _Job:
    """A few images of one class: `first` and `count` number them within the class."""

    name: str
    part: Part
    modality: Modality
    first: int
    count: int
    seed: int
    size: int
    ambiguity: float
    others: tuple[str, ...]


def _jobs(
    roles: dict[str, Role], seed: int, size: int, ambiguity: float, photos: int, sketches: int
) -> Iterator[_Job]:
    """All work, in the order in which it is stored: by part, modality, class, number.

    The things lying around in a photo are of classes of its own role or of less hidden ones, so that a
    training photo shows no unseen class even in its background.
    """
    allowed: list[Role] = []
    for part in (Part.TRAIN, Part.VAL, Part.TEST):
        allowed.append(ROLE_OF_PART[part])
        others = tuple(name for name in CLASSES if roles[name] in allowed)
        for modality, total in ((Modality.SKETCH, sketches), (Modality.PHOTO, photos)):
            for name in CLASSES:
                if roles[name] == ROLE_OF_PART[part]:
                    for first in range(0, total, _CHUNK):
                        count = min(_CHUNK, total - first)
                        yield _Job(name, part, modality, first, count, seed, size, ambiguity, others)


def _draw(job: _Job) -> list[tuple[bytes, bytes | None]]:
    """Encoded images of a job, each with its encoded mask (photos) or None (sketches)."""
    images: list[tuple[bytes, bytes | None]] = []
    for number in range(job.first, job.first + job.count):
        rng = np.random.default_rng([job.seed, CLASSES.index(job.name), int(job.modality), number])
        if job.modality == Modality.SKETCH:
            images.append((_encoded(Image.fromarray(draw_sketch(job.name, rng, job.size)), "PNG"), None))
            continue
        photo, mask = draw_photo(job.name, rng, job.size, job.ambiguity, job.others)
        images.append((_encoded(Image.fromarray(photo), "JPEG"), _encoded(Image.fromarray(mask), "PNG")))
    return images


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"quality": _JPEG_QUALITY} if kind == "JPEG" else {}))
    return buffer.getvalue()


def _drawn(jobs: list[_Job], workers: int) -> Iterator[list[tuple[bytes, bytes | None]]]:
    """Results of the jobs in their order."""
    if workers < 2:
        yield from map(_draw, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_draw, jobs)


def _build(
    out: Path,
    jobs: list[_Job],
    roles: dict[str, Role],
    options: dict[str, str | int | float | bool | None],
    workers: int,
    progress: Progress,
) -> None:
    """Draw all jobs beside `out` and rename the finished folder. Raises OSError."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    shards = _write(partial, jobs, workers, progress)
    classes = tuple(ClassInfo(id=i, name=name, role=roles[name]) for i, name in enumerate(CLASSES))
    unseen = sum(role == Role.UNSEEN for role in roles.values())
    write_manifest(
        partial,
        Manifest(
            name="demo",
            split=f"demo-{unseen}-seed{options['seed']}",
            classes=classes,
            shards=tuple(shards),
            options=options,
            tool_version=__version__,
        ),
    )
    if out.exists():
        out.rmdir()
    partial.rename(out)


def _write(folder: Path, jobs: list[_Job], workers: int, progress: Progress) -> list[ShardInfo]:
    shards: list[ShardInfo] = []
    writer: ShardWriter | None = None
    done, total = 0, sum(job.count for job in jobs)
    for job, images in zip(jobs, _drawn(jobs, workers), strict=True):
        if writer is None or (writer.part, writer.modality) != (job.part, job.modality):
            shards += _finished(writer)
            writer = ShardWriter(folder, dataset="demo", split="demo", part=job.part, modality=job.modality)
        kind = job.modality.name.lower()
        for number, (data, mask) in enumerate(images, start=job.first):
            suffix = "png" if job.modality == Modality.SKETCH else "jpg"
            source = f"{kind}/{job.name}/{number:04d}.{suffix}"
            writer.add(data, CLASSES.index(job.name), source, mask=mask)
        done += job.count
        progress("drawing", done, total)
    return shards + _finished(writer)


def _finished(writer: ShardWriter | None) -> list[ShardInfo]:
    if writer is None:
        return []
    writer.finish()
    return writer.shards
