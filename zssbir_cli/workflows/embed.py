"""`zssbir embed`: embeddings of a prepared set's parts, or of any folder of photos, with the weights of a run or of a frozen tower."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.embedder import BATCH, Embedder
from zssbir_cli.embedding.folder import FolderResult, follow_folder
from zssbir_cli.embedding.own import data_of, remark
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.embedding.weights import choose_weights
from zssbir_cli.errors import UsageError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import AnyPath, Part


@dataclass(frozen=True)
class Embedded:
    """The embeddings files that are now up to date, and whose weights made them; of a folder, also what was done."""

    files: tuple[Path, ...]
    weights: str
    folder: FolderResult | None = None
    note: str = ""
    """What the user should know of the checkpoint and of the data set."""


def embed(
    run: AnyPath | None = None,
    *,
    model: str | None = None,
    checkpoint: str = "best",
    runs: AnyPath = "runs",
    photos: AnyPath | None = None,
    out: AnyPath | None = None,
    half: bool = False,
    data: AnyPath | None = None,
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
        run, model, checkpoint: whose weights, as `embedding.weights.choose_weights` takes them (default: the latest run
            under `runs`).
        photos: a folder of photos. Its file (`out`, default: one in the run's folder or the cache) follows the folder: photos it
            knows keep their rows, and a pass that is killed continues.
        half: store a folder's rows as float16.
        data, parts: a prepared set (default: the run's own; a model has none) and its parts (default: all but train).
        device, precision, workers, batch: how to compute.

    Errors: UsageError, DataError (no photos, a damaged set, disk full), CheckpointError.

    >>> zssbir.embed(photos="photos").folder.new
    5
    >>> zssbir.embed(photos="photos").folder.kept
    5
    """
    if unknown := [p for p in parts if p not in list(Part)]:
        raise UsageError(f"--part {unknown[0]}: one of {', '.join(Part)}")
    if photos is not None and (parts or data):
        raise UsageError("--photos embeds a folder of photos: leave out --part and --data")
    if photos is None and (out or half):
        raise UsageError(
            "--out and --half apply only to --photos: embeddings of a data set are kept in the run"
        )
    chosen = choose_device(device)
    with distributed.session(chosen):
        weights = choose_weights(run, model, Path(runs), checkpoint)
        embedder = Embedder(weights, chosen, precision=precision, workers=workers, batch=batch)
        if photos is not None:
            place = None if out is None else Path(out)
            result = follow_folder(embedder, Path(photos), place, half=half, force=force, progress=progress)
            return Embedded((result.path,), embedder.weights.label, result, embedder.weights.note)
        found = data_of(embedder.weights, None if data is None else Path(data))
        prepared = found.prepared
        have = {part for part, _ in prepared.manifest.counts}
        wanted = [Part(p) for p in parts] or [p for p in (Part.TEST, Part.VAL, Part.HOLDOUT) if p in have]
        stored = [embed_part(embedder, prepared, p, force=force, progress=progress) for p in wanted]
        note = "; ".join(filter(None, (embedder.weights.note, remark(found))))
        return Embedded(tuple(s.path for s in stored if s.path), embedder.weights.label, note=note)
