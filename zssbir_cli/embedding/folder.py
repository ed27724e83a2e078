"""`zssbir embed --images`: any folder of photos, in a pass that can be killed and continued."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Subset

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import read_embeddings, write_embeddings
from zssbir_cli.data.stage import Stage
from zssbir_cli.embedding.parts import Embedder, Request
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.folder import PhotoFolder
from zssbir_cli.progress import Progress, silent, within
from zssbir_cli.types import Modality

CHUNK = 4096
"""Images between two records of a resumable pass."""


@dataclass(frozen=True)
class FolderResult:
    """What embedding a folder left: the file, images embedded, and (name, reason) of those that were skipped."""

    path: Path
    images: int
    skipped: tuple[tuple[str, str], ...]
    resumed: int


def embed_folder(
    embedder: Embedder, folder: Path, out: Path, *, half: bool = False, progress: Progress = silent
) -> FolderResult:
    """Embed every image below `folder` into the embeddings file `out`; a killed pass continues where it was.

    Unreadable images are left out and named. Errors: DataError (no images, none readable, disk full).
    """
    images = PhotoFolder(folder, embedder.recipe.data.size)
    key: dict[str, str | int] = {
        "checkpoint": embedder.checkpoint.sha256, "images": images.digest, "count": len(images),
        "precision": embedder.precision.name, "size": embedder.recipe.data.size,
    }  # fmt: skip
    stage = Stage(out, key)
    start = resumed = distributed.from_main(stage.done)
    total = len(images)
    for a in range(start, total, CHUNK):
        chunk = range(a, min(a + CHUNK, total))
        shown = within(progress, f"embedding {folder.name or folder}", total, start=a)
        rows = embedder.embed(Subset(images, chunk), Modality.PHOTO, shown).numpy()
        failed = distributed.all_max_(images.failed[chunk.start : chunk.stop].clone())
        if distributed.is_main():
            stage.append(rows, [a + int(i) for i in torch.nonzero(failed).flatten()])
    bad = distributed.from_main(stage.failed)
    if len(bad) == total:
        raise DataError(f"{folder}: none of the {total} images can be read (the first: {images.why(0)})")
    if distributed.is_main():
        _finish(stage, images, embedder, folder, out, half)
    distributed.barrier()
    return FolderResult(out, total - len(bad), tuple((images.names[i], images.why(i)) for i in bad), resumed)


def _finish(
    stage: Stage, images: PhotoFolder, embedder: Embedder, folder: Path, out: Path, half: bool
) -> None:
    keep = np.ones(len(images), bool)
    keep[stage.failed] = False
    rows = stage.rows()

    def blocks() -> Iterator[np.ndarray]:
        for a in range(0, len(rows), CHUNK):
            yield np.asarray(rows[a : a + CHUNK][keep[a : a + CHUNK]])

    count = int(keep.sum())
    info = embedder.info(
        data_name=folder.resolve().name, data_identity=images.digest[:16], data_root=str(folder.resolve())
    )
    names = [name for name, good in zip(images.names, keep, strict=True) if good]
    photo = np.full(count, int(Modality.PHOTO), np.uint8)
    dtype = np.float16 if half else np.float32
    write_embeddings(out, blocks(), np.full(count, -1, np.int32), photo, names, info, dtype=dtype)
    stage.remove()


def run_folder(
    request: Request,
    images: Path,
    out: Path | None,
    *,
    half: bool,
    force: bool,
    progress: Progress = silent,
) -> FolderResult:
    """Embed a folder of photos into `out` (default: a file in the run's folder); a fresh file is kept.

    Errors: DataError, CheckpointError, UsageError.
    """
    device = choose_device(request.device)
    with distributed.session(device):
        embedder = request.open(device)
        path = out or folder_file(request.run, request.which, images)
        if not force and path.exists():
            kept = _kept(path, embedder, images)
            if distributed.from_main(kept is not None) and kept is not None:
                return kept
        return embed_folder(embedder, images, path, half=half, progress=progress)


def _kept(path: Path, embedder: Embedder, images: Path) -> FolderResult | None:
    """The result that `path` already is: the same weights and the same files (names and sizes)."""
    try:
        found = read_embeddings(path)
    except DataError:
        return None
    same = found.info.data_identity == PhotoFolder(images, embedder.recipe.data.size).digest[:16]
    rounded = embedder.precision.name == "fp32" and found.info.precision != "fp32"
    if found.info.checkpoint != embedder.checkpoint.sha256 or not same or rounded:
        return None
    return FolderResult(path, len(found), (), len(found))


def folder_file(run: Path, which: str, images: Path) -> Path:
    """Where a run keeps the embeddings of a folder of photos."""
    whole = images.resolve()
    tag = hashlib.sha256(str(whole).encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return run / "embeddings" / f"{which}-folder-{whole.name}-{tag}.h5"
