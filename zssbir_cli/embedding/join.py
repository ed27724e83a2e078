"""One gallery of several: embeddings files of shards or folders, made in one way, become a file or a table."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path

import numpy as np

from zssbir_cli.data.embeddings import (
    EmbeddingInfo,
    Embeddings,
    FileStamps,
    Rows,
    check_target,
    read_embeddings,
    write_embeddings,
)
from zssbir_cli.data.table import write_table
from zssbir_cli.embedding.shares import shard_names
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.names import table_address
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

BLOCK = 16_384
MUST_AGREE = {
    "checkpoint": "other weights",
    "made": "another preprocessing or other versions of the libraries",
}


def join_galleries(
    parts: Sequence[Path],
    out: Path,
    *,
    shards: str | Path | None = None,
    index: bool = False,
    progress: Progress = silent,
) -> int:
    """Write the photos of embeddings files, in this order, to one file or, where `out` ends with `.lance`, to a table.

    Returns the number of photos. `shards`: the tars that were to be embedded (`shard_names`), each of which must have its
    part; `index`: see `write_table`.
    Errors: UsageError (no parts), DataError: a part is damaged, made in another way, holds sketches, or a photo of
    another part; a shard has no part; `out` cannot be written.
    """
    if not parts:
        raise UsageError("--join OUT PARTS...: name the embeddings files to join")
    if not table_address(out):
        check_target(out)
    opened = []
    for number, part in enumerate(parts):
        progress("checking the parts", number, len(parts))
        opened.append(read_embeddings(part))
    info = _common(opened, out)
    if shards is not None:
        _check_complete(opened, shards)
    if address := table_address(out):
        return write_table(address, opened, info, index=index, progress=progress).rows
    names = [name for part in opened for name in part.sources]
    half = all(part.embedding.dtype == np.float16 for part in opened)
    write_embeddings(
        out,
        _rows(opened, len(names), progress),
        np.full(len(names), -1),
        np.full(len(names), int(Modality.PHOTO)),
        names,
        info,
        dtype=np.float16 if half else np.float32,
        stamps=_stamps(opened),
        skipped=[lost for part in opened for lost in part.skipped],
    )
    return len(names)


def _check_complete(parts: Sequence[Embeddings], shards: str | Path) -> None:
    """DataError naming a shard without a part, or a part of no shard."""
    wanted = shard_names(shards)
    spare = {name: list(group) for name, group in groupby(sorted(parts, key=_shard), _shard)}
    missing = [shard for shard in wanted if not spare.get(shard.stem) or not spare[shard.stem].pop()]
    if missing:
        raise DataError(
            f"{missing[0]}: no part of this shard ({len(missing):,} of {len(wanted):,} are missing); embed them first"
        )
    if left := [part.path for group in spare.values() for part in group]:
        raise DataError(f"{left[0]}: a part of no shard of {shards}; leave it out")


def _shard(part: Embeddings) -> str:
    return part.info.data_name


def _stamps(parts: Sequence[Embeddings]) -> FileStamps | None:
    """What is known of the photos' files, where all parts know it."""
    known = [part.stamps for part in parts if part.stamps is not None]
    if len(known) < len(parts):
        return None
    return FileStamps(*(np.concatenate([getattr(s, f.name) for s in known]) for f in fields(FileStamps)))


def _common(parts: Sequence[Embeddings], out: Path) -> EmbeddingInfo:
    """What holds for all of them. DataError naming two that do not belong together."""
    first, seen = parts[0], dict[str, Path | None]()
    for part in parts:
        for fact, what in MUST_AGREE.items():
            if getattr(part.info, fact) != getattr(first.info, fact):
                raise DataError(f"{part.path}: made with {what} than {first.path}; embed its photos again")
        if part.embedding.shape[1] != first.embedding.shape[1]:
            raise DataError(
                f"{part.path}: {part.embedding.shape[1]} dimensions, {first.path} {first.embedding.shape[1]}"
            )
        if len(part.rows_of(Modality.PHOTO)) != len(part):
            raise DataError(f"{part.path}: holds sketches; only galleries of photos are joined")
        for name in part.sources:
            if name in seen:
                raise DataError(f"{part.path}: {name} is also in {seen[name]}; name each part once")
            seen[name] = part.path
    roots = {part.info.data_root for part in parts}
    identity = hashlib.sha256("\n".join(part.info.data_identity for part in parts).encode()).hexdigest()
    return replace(
        first.info,
        data_name=out.stem,
        data_identity=identity,
        data_root=roots.pop() if len(roots) == 1 else "",
        precision=min({part.info.precision for part in parts} - {"fp32"}, default="fp32"),
    )


def _rows(parts: Sequence[Embeddings], total: int, progress: Progress) -> Iterator[Rows]:
    done = 0
    for part in parts:
        for a in range(0, len(part), BLOCK):
            block = part.embedding[a : a + BLOCK]
            yield block
            done += len(block)
            progress("joining", done, total)
