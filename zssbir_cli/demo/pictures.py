"""Draws the demo's pictures as a plain folder, `sketch/<class>/*.png photo/<class>/*.jpg mask/<class>/*.png`, which
`prepare` takes like anyone's."""

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zssbir_cli import __version__, files
from zssbir_cli.arrays import Array
from zssbir_cli.demo.classes import CLASSES
from zssbir_cli.demo.photo import draw_photo
from zssbir_cli.demo.sketch import draw_sketch
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import readable
from zssbir_cli.preparation.roles import Unseen, assign_roles
from zssbir_cli.preparation.whole import image_end
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Role

RECORD = "drawn.json"
"""Says how a folder's pictures were drawn."""
_ROLES = (Role.SEEN, Role.VAL, Role.UNSEEN)
_CHUNK = 10
_JPEG_QUALITY = 90


@dataclass(frozen=True)
class Look:
    """size: side of the square pictures, 32-1024 pixels; ambiguity: 0-1, how many and how large the things of
    other classes in the photos are; photos, sketches: how many of each class."""

    seed: int = 0
    size: int = 128
    ambiguity: float = 0.2
    photos: int = 40
    sketches: int = 30

    def check(self) -> None:
        """Raises UsageError for a value out of range."""
        if self.seed < 0:
            raise UsageError(f"seed {self.seed} is negative; give 0 or more")
        if not 32 <= self.size <= 1024:
            raise UsageError(f"size {self.size} is not between 32 and 1024 pixels")
        if not 0 <= self.ambiguity <= 1:
            raise UsageError(f"ambiguity {self.ambiguity} is not between 0 and 1")
        if self.photos < 1 or self.sketches < 1:
            raise UsageError(
                f"{self.photos} photos and {self.sketches} sketches per class: give at least one of each"
            )


def draw_roles(seed: int, unseen: Unseen, val: int) -> dict[str, Role]:
    """Role of each class: the unseen ones by name or by lot, then `val` validation classes by lot.

    Errors: UsageError: too few classes are left to train on.
    """
    order = [CLASSES[i] for i in np.random.default_rng([seed, 1]).permutation(len(CLASSES))]
    test = unseen.names or frozenset(order[: unseen.draw])
    held = frozenset([name for name in order if name not in test][:val])
    return {c.name: c.role for c in assign_roles(CLASSES, Unseen(test), val_classes=held, seed=seed)}


def draw_pictures(
    folder: Path, roles: dict[str, Role], look: Look, *, workers: int = 1, progress: Progress = silent
) -> None:
    """Draw what `folder` lacks; pictures that are there and whole are kept. The same arguments give the same files.

    The things that lie around in a photo are of classes of its own role or of less hidden ones, so that a
    training photo shows no unseen class even in its background. `workers`: drawing processes; 1 draws in this one.

    Errors: UsageError: a value out of range; DataError: the folder holds other things, is being drawn by another
    process, or cannot be written.
    """
    look.check()
    try:
        _check_ours(folder)
        with files.Lock(folder / ".lock", "drawing the demo's pictures"):
            _claim(folder, roles, look)
            jobs = list(_jobs(folder, roles, look))
            done, total = 0, sum(len(job.numbers) for job in jobs)
            progress("drawing", done, total)
            for count in _drawn(jobs, workers):
                done += count
                progress("drawing", done, total)
    except OSError as error:
        raise DataError(f"{readable(str(folder))} cannot be written: {files.reason(error)}") from None


def _check_ours(folder: Path) -> None:
    if (
        folder.exists()
        and not (folder / RECORD).exists()
        and any(path.name != ".lock" and not path.name.startswith(RECORD) for path in folder.iterdir())
    ):
        raise DataError(f"{readable(str(folder))} holds other files; give another --out, or remove it")


def _claim(folder: Path, roles: dict[str, Role], look: Look) -> None:
    """Write down how the pictures are drawn. Raises DataError when those in the folder are others."""
    names = {str(role): [n for n in CLASSES if roles[n] is role] for role in (Role.VAL, Role.UNSEEN)}
    record = {"version": __version__, **asdict(look), **names}
    path = folder / RECORD
    try:
        same = files.parsed(path.read_bytes()) == record
    except FileNotFoundError:
        files.write_json(path, record)
        return
    except ValueError:
        same = False
    if not same:
        raise DataError(
            f"{readable(str(folder))} holds pictures drawn with other options, or by another version; "
            f"give another --out, or delete it"
        )
    for left in folder.glob(f"*/*/*{files.PARTIAL}"):  # of a killed run
        left.unlink()


@dataclass(frozen=True)
class _Job:
    """Some pictures of one class, by their numbers within it; `others`: classes of the things in the background."""

    folder: Path
    name: str
    modality: Modality
    numbers: range
    look: Look
    others: tuple[str, ...]


def _jobs(folder: Path, roles: dict[str, Role], look: Look) -> Iterator[_Job]:
    for name in CLASSES:
        shown = _ROLES[: _ROLES.index(roles[name]) + 1]
        others = tuple(c for c in CLASSES if roles[c] in shown)
        for modality, total in ((Modality.SKETCH, look.sketches), (Modality.PHOTO, look.photos)):
            for first in range(0, total, _CHUNK):
                numbers = range(first, min(first + _CHUNK, total))
                yield _Job(folder, name, modality, numbers, look, others)


def _drawn(jobs: list[_Job], workers: int) -> Iterator[int]:
    """Carry out the jobs; the number of pictures of each."""
    if workers < 2:
        yield from map(_draw, jobs)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_ctrl_c)
    try:
        with _ctrl_c_held():
            counts = pool.map(_draw, jobs)  # starts the processes
        yield from counts
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_ctrl_c() -> None:
    """In a drawing process: Ctrl-C is the main process's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Ctrl-C arrives after the block; processes that are started in it never get it, not even before their first line."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _draw(job: _Job) -> int:
    draw = _draw_sketch if job.modality is Modality.SKETCH else _draw_photo
    for number in job.numbers:
        seed = [job.look.seed, CLASSES.index(job.name), int(job.modality), number]
        draw(job, f"{job.name}/{number:04d}", np.random.default_rng(seed))
    return len(job.numbers)


def _draw_sketch(job: _Job, name: str, rng: np.random.Generator) -> None:
    path = job.folder / f"sketch/{name}.png"
    if not _is_whole(path):
        _save(path, draw_sketch(job.name, rng, job.look.size), "PNG")


def _draw_photo(job: _Job, name: str, rng: np.random.Generator) -> None:
    path, mask_path = job.folder / f"photo/{name}.jpg", job.folder / f"mask/{name}.png"
    if not (_is_whole(path) and _is_whole(mask_path)):
        photo, mask = draw_photo(job.name, rng, job.look.size, job.look.ambiguity, job.others)
        _save(path, photo, "JPEG", quality=_JPEG_QUALITY)
        _save(mask_path, mask, "PNG")


def _is_whole(path: Path) -> bool:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return False
    return image_end(data) == len(data)


def _save(path: Path, pixels: Array, kind: str, **options: int) -> None:
    with files.replacing(path, durable=False) as partial:
        Image.fromarray(pixels).save(partial, kind, **options)
