"""`zssbir embed`: embeddings of a prepared set's parts, or of any folder of photos, with a run's weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.embedder import BATCH, Embedder
from zssbir_cli.embedding.folder import FolderResult, follow_folder
from zssbir_cli.embedding.own import data_of_run
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.errors import UsageError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Part


@dataclass(frozen=True)
class Embedded:
    """The embeddings files that are now up to date; of a folder, also what was done."""

    files: tuple[Path, ...]
    folder: FolderResult | None = None


def embed(
    run: Path,
    *,
    checkpoint: str = "best",
    images: Path | None = None,
    out: Path | None = None,
    half: bool = False,
    data: Path | None = None,
    parts: Sequence[str] = (),
    force: bool = False,
    device: str = "auto",
    precision: str = "auto",
    workers: int | None = None,
    batch: int = BATCH,
    progress: Progress = silent,
) -> Embedded:
    """Embed a folder of photos, or parts of a prepared set; what is up to date is kept, unless `force`.

    Args:
        run, checkpoint: whose weights.
        images: a folder of photos. Its file (`out`, default: one in the run's folder) follows the folder: photos it
            knows keep their rows, and a pass that is killed continues.
        half: store a folder's rows as float16.
        data, parts: a prepared set (default: the run's own) and its parts (default: all but train).
        device, precision, workers, batch: how to compute.

    Errors: UsageError, DataError (no photos, a damaged set, disk full), CheckpointError.

    >>> embed(Path("runs/latest"), images=Path("photos")).folder  # doctest: +SKIP
    FolderResult(path=..., images=100038, new=50, changed=3, moved=0, gone=12, kept=99935, skipped=())
    """
    if unknown := [p for p in parts if p not in list(Part)]:
        raise UsageError(f"--part {unknown[0]}: one of {', '.join(Part)}")
    if images is not None and (parts or data):
        raise UsageError("--photos embeds a folder of photos: leave out --part and --data")
    if images is None and (out or half):
        raise UsageError(
            "--out and --half are for --photos: the parts of a data set have their places in the run"
        )
    chosen = choose_device(device)
    with distributed.session(chosen):
        embedder = Embedder.open(
            run, chosen, which=checkpoint, precision=precision, workers=workers, batch=batch
        )
        if images is not None:
            result = follow_folder(embedder, images, out, half=half, force=force, progress=progress)
            return Embedded((result.path,), result)
        prepared = data_of_run(run, embedder.checkpoint, embedder.recipe, data).prepared
        have = {part for part, _ in prepared.manifest.counts}
        wanted = [Part(p) for p in parts] or [p for p in (Part.TEST, Part.VAL, Part.HOLDOUT) if p in have]
        found = [embed_part(embedder, prepared, p, force=force, progress=progress) for p in wanted]
        return Embedded(tuple(f.path for f in found if f.path))
