"""`zssbir embed`: embeddings of a prepared set's parts, or of any folder of photos, with the weights of a run or of a frozen tower."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import check_target, read_embeddings
from zssbir_cli.data.table import write_table
from zssbir_cli.embedding.embedder import BATCH, Embedder
from zssbir_cli.embedding.folder import FolderResult, follow_folder
from zssbir_cli.embedding.own import data_of, remark
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.embedding.shares import shard_files, share_of
from zssbir_cli.embedding.tars import ShardsResult, embed_shards
from zssbir_cli.embedding.weights import choose_weights
from zssbir_cli.errors import UsageError
from zssbir_cli.files import check_writable
from zssbir_cli.names import table_address
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import AnyPath, Part


@dataclass(frozen=True)
class Embedded:
    """The embeddings files that are now up to date, and whose weights made them; of a folder, also what was done."""

    files: tuple[Path, ...]
    weights: str
    folder: FolderResult | None = None
    shards: ShardsResult | None = None
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
    index: bool = False,
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
            knows keep their rows, and a pass that is killed continues. When `out` ends with `.lance` it is a LanceDB
            table, in a folder or an object store, brought in line with that file. Or tar shards
            (`shards-{000..999}.tar`): one file each in the folder `out`.
        index: make an index for approximate search, in a table.
        half: store a folder's rows as float16.
        data, parts: a prepared set (default: the run's own; a model has none) and its parts (default: all but train); of
            shards, which share of them: `2/8`, or `auto` (default) for the numbers of torchrun or a Slurm array.
        device, precision, workers, batch: how to compute.

    Errors: UsageError, DataError (no photos, a damaged set, disk full), CheckpointError.

    >>> zssbir.embed(photos="photos").folder.new
    5
    >>> zssbir.embed(photos="photos").folder.kept
    5
    """
    sharded = photos is not None and str(photos).endswith(".tar")
    if not sharded and (unknown := [p for p in parts if p not in list(Part)]):
        raise UsageError(f"--part {unknown[0]}: one of {', '.join(Part)}")
    if photos is not None and (data or (parts and not sharded)):
        raise UsageError("--photos embeds a folder of photos: leave out --part and --data")
    if photos is None and (out or half):
        raise UsageError(
            "--out and --half apply only to --photos: embeddings of a data set are kept in the run"
        )
    address = None if out is None else table_address(out)
    if index and address is None:
        raise UsageError("--index is for a table: name one with --out photos.lance")
    if out is not None and sharded:
        check_writable(Path(out), folder=True)
    elif out is not None and address is None:
        check_target(Path(out))
    chosen = choose_device(device)
    # ranks share the shards out, and work alone
    with nullcontext() if sharded else distributed.session(chosen):
        weights = choose_weights(run, model, Path(runs), checkpoint)
        embedder = Embedder(weights, chosen, precision=precision, workers=workers, batch=batch)
        if sharded:
            return _shards(embedder, str(photos), out, parts, half, force, progress)
        if photos is not None:
            place = None if out is None or address else Path(out)
            result = follow_folder(embedder, Path(photos), place, half=half, force=force, progress=progress)
            made = Embedded((result.path,), weights.label, result, note=weights.note)
            return _in_table(made, address, index, progress) if address and distributed.is_main() else made
        found = data_of(embedder.weights, None if data is None else Path(data))
        prepared = found.prepared
        have = {part for part, _ in prepared.manifest.counts}
        wanted = [Part(p) for p in parts] or [p for p in (Part.TEST, Part.VAL, Part.HOLDOUT) if p in have]
        stored = [embed_part(embedder, prepared, p, force=force, progress=progress) for p in wanted]
        note = "; ".join(filter(None, (embedder.weights.note, remark(found))))
        return Embedded(tuple(s.path for s in stored if s.path), embedder.weights.label, note=note)


def _in_table(made: Embedded, address: str, index: bool, progress: Progress) -> Embedded:
    """Bring a table in line with an embeddings file."""
    gallery = read_embeddings(made.files[0])
    change = write_table(address, [gallery], gallery.info, index=index, progress=progress)
    note = "; ".join(filter(None, (made.note, f"{address}: {change}")))
    return replace(made, files=(Path(address),), note=note)


def _shards(
    embedder: Embedder,
    photos: str,
    out: AnyPath | None,
    parts: Sequence[str],
    half: bool,
    force: bool,
    progress: Progress,
) -> Embedded:
    """Embed a share of tar shards; processes of torchrun work on their own, so that a slow shard holds nobody up."""
    if out is None or table_address(out):
        raise UsageError(
            "--photos SHARDS: name a folder for their embeddings with --out DIR; --join makes one gallery of them"
        )
    if len(parts) > 1:
        raise UsageError(f"--part {parts[1]}: with shards, give one I/N or auto")
    share = share_of(parts[0] if parts else "auto", os.environ)
    result = embed_shards(
        embedder, shard_files(photos), Path(out), share, half=half, force=force, progress=progress
    )
    return Embedded(result.files, embedder.weights.label, shards=result, note=embedder.weights.note)
