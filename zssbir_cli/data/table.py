"""A gallery as a LanceDB table: in a folder or an object store, for what one file or one machine cannot hold.

Its address ends with `.lance`: `photos.lance`, `s3://bucket/photos.lance`. Columns: `source` text, `vector` float16 or
float32 [D], `checksum` uint64 and `content` (16 bytes of the photo's sha256, or null), as in the embeddings file that it is
a copy of; the facts of that file are JSON under `zssbir` in the metadata of the schema. One process writes at a time; any
number read: the version that is tagged `whole`, so nobody searches half a table.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from zssbir_cli.arrays import Float32, Ints
from zssbir_cli.data.embeddings import CONTENT_BYTES, EmbeddingInfo, Embeddings, FileStamps
from zssbir_cli.data.hdf5 import differing_rows
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import parsed, printable, reason
from zssbir_cli.names import TABLE_SUFFIX
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

BLOCK = 32_768
"""Rows per version of the table while it is written."""
INDEX_ROWS = 100_000
"""Below this, an index gains nothing over exact search."""
PROBES = 50
REFINE = 20
"""Of each approximate result, so many times k rows are scored by their own vectors."""
KEEP_VERSIONS = timedelta(hours=1)
"""So long readers can finish on a version that has been replaced."""
MOST_TIES = 65_536
_FACTS = b"zssbir"
WHOLE = "whole"
"""Tag of the last version that was written to its end, which is the one that is searched."""


def is_remote(address: str) -> bool:
    """Whether a table is in an object store."""
    return "://" in address


@dataclass(frozen=True)
class TableChange:
    """What writing a table did: rows it has now, and rows added and removed."""

    rows: int
    added: int
    removed: int
    indexed: bool

    def __str__(self) -> str:
        index = "an index for --approximate" if self.indexed else "no index"
        return f"{self.rows:,} rows, {self.added:,} added, {self.removed:,} removed, {index}"


def write_table(
    address: str,
    galleries: Sequence[Embeddings],
    info: EmbeddingInfo,
    *,
    index: bool = False,
    progress: Progress = silent,
) -> TableChange:
    """Bring a table in line with embeddings files of photos, all made as `info` says; what it has already stays.

    A table of other facts, width or number format is written anew. A write that is killed is completed by the next.
    `index`: also make an index for approximate search, or bring it up to date; a table that has one keeps it.
    Errors: UsageError (extra missing, name not possible), DataError (cannot be written, another process writes too).
    """
    half = all(g.embedding.dtype == np.float16 for g in galleries)
    width = galleries[0].embedding.shape[1]
    try:
        schema = _schema(info, width, half=half)
        table = _opened(address, schema)
        known = _known(table)
        wanted = {source for g in galleries for source in g.sources}
        fresh = [
            np.array([i for i, s in enumerate(g.sources) if known.get(s) != _mark(g, i)], np.int64)
            for g in galleries
        ]
        gone = [s for s in known if s not in wanted]
        changed = [
            g.sources[i]
            for g, rows in zip(galleries, fresh, strict=True)
            for i in rows
            if g.sources[i] in known
        ]
        _delete(table, gone + changed)
        total, done = sum(map(len, fresh)), 0
        for gallery, rows in zip(galleries, fresh, strict=True):
            for block in _blocks(gallery, rows, schema):
                table.add(block)
                done += len(block)
                progress(f"writing {address}", done, total)
        if index and table.count_rows() >= INDEX_ROWS and not table.list_indices():
            progress(f"indexing {address}", 0, 1)
            table.create_index("vector", config=_index(table.count_rows(), width))
        now, indexed = int(table.count_rows()), bool(table.list_indices())
        if now == len(wanted):
            _tag(table)
            if total or gone:
                table.optimize()  # new rows go into the index, too
                _tag(table)
                table.optimize(cleanup_older_than=KEEP_VERSIONS)  # a version with a tag cannot go
    except (DataError, UsageError):
        raise
    except Exception as error:  # LanceDB raises RuntimeError, ValueError, OSError and its own
        raise DataError(
            f"{address}: cannot be written ({reason(error)}); run the same command again"
        ) from None
    if now != len(wanted):
        raise DataError(f"{address}: another process wrote it at the same time; run the same command again")
    return TableChange(now, total, len(gone) + len(changed), indexed)


def _schema(info: EmbeddingInfo, width: int, *, half: bool) -> Any:
    import pyarrow as pa

    fields = [("source", pa.string()), ("vector", pa.list_(pa.float16() if half else pa.float32(), width))]
    fields += [("checksum", pa.uint64()), ("content", pa.binary(CONTENT_BYTES))]
    return pa.schema(fields, metadata={_FACTS: json.dumps(asdict(info)).encode()})


def _tag(table: Any) -> None:
    """Make the table as it is now the one that is searched."""
    (table.tags.update if WHOLE in table.tags.list() else table.tags.create)(WHOLE, table.version)


def _mark(gallery: Embeddings, i: int) -> tuple[int, bytes | None]:
    """By what a row is known to be the same: its checksum, and the content of its photo."""
    stamps = gallery.stamps
    return int(gallery.checksum[i]), None if stamps is None else stamps.content[i].tobytes()


def _opened(address: str, schema: Any) -> Any:
    """The table, emptied when it is of another schema, or holds a photo twice."""
    connection, name = _connection(address)
    try:
        table = connection.open_table(name)
    except ValueError as error:
        if "not found" not in str(error):
            raise
        return connection.create_table(name, schema=schema)
    if table.schema.equals(schema, check_metadata=True) and len(_known(table)) == table.count_rows():
        return table
    if _FACTS not in (table.schema.metadata or {}):
        raise DataError(f"{address}: a table of another program; choose another name")
    return connection.create_table(name, schema=schema, mode="overwrite")


def _known(table: Any) -> dict[str, tuple[int, bytes | None]]:
    """The mark of each photo's row."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for batch in table.search().select(["source", "checksum", "content"]).to_batches():
        names, sums, contents = (batch[key].to_pylist() for key in ("source", "checksum", "content"))
        found |= zip(names, zip(sums, contents, strict=True), strict=True)
    return found


def _delete(table: Any, sources: Sequence[str]) -> None:
    for a in range(0, len(sources), 500):
        names = ", ".join("'" + s.replace("'", "''") + "'" for s in sources[a : a + 500])
        table.delete(f"source IN ({names})")


def _blocks(gallery: Embeddings, rows: Ints, schema: Any) -> Iterator[Any]:
    import pyarrow as pa

    for a in range(0, len(rows), BLOCK):
        part = rows[a : a + BLOCK]
        vectors = np.ascontiguousarray(
            gallery.embedding[part], schema.field("vector").type.value_type.to_pandas_dtype()
        )
        names = [gallery.sources[i] for i in part]
        for name in names:
            if printable(name) != name:
                raise DataError(
                    f"{gallery.path}: the name {name!r} is not UTF-8, which a table needs; rename the photo"
                )
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        content = [_mark(gallery, i)[1] for i in part.tolist()]
        yield pa.table(
            {"source": names, "vector": column, "checksum": gallery.checksum[part], "content": content},
            schema=schema,
        )


def _index(rows: int, width: int) -> Any:
    from lancedb.index import IvfPq

    return IvfPq(distance_type="cosine", num_partitions=round(rows**0.5), num_sub_vectors=max(1, width // 16))


@dataclass(frozen=True)
class GalleryTable:
    """A table that is open for search."""

    address: str
    info: EmbeddingInfo
    rows: int
    indexed: bool
    _table: Any

    def pick(self, queries: Float32, k: int, *, approximate: bool = False) -> Embeddings:
        """The photos among which are the k nearest of each query, as embeddings sorted by name.

        queries: unit rows [Q, D]. Exact unless `approximate`: equal scores and rounding at the k-th place are allowed for.
        Errors: DataError (damaged, cannot be read, no index, of another width).
        """
        width = self._table.schema.field("vector").type.list_size
        if len(queries) and queries.shape[1] != width:
            raise DataError(
                f"{self.address}: {width} dimensions, the queries {queries.shape[1]}: not the same model"
            )
        if approximate and not self.indexed:
            raise DataError(
                f"{self.address}: no index for --approximate; make one with `zssbir embed --index` (from {INDEX_ROWS:,} photos on)"
            )
        found: dict[str, tuple[int, Any, bytes | None]] = {}
        try:
            for query in queries:
                for block in self._near(query, k, approximate):
                    numbers = block["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
                    names, sums, contents = (
                        block[key].to_pylist() for key in ("source", "checksum", "content")
                    )
                    found |= zip(
                        names, zip(sums, numbers.reshape(-1, width), contents, strict=True), strict=True
                    )
        except Exception as error:
            raise DataError(f"{self.address}: cannot be searched ({reason(error)})") from None
        names = sorted(found)
        rows = np.array([found[n][1] for n in names]).reshape(-1, width)
        checksum = np.array([found[n][0] for n in names], np.uint64)
        if len(bad := differing_rows(rows, checksum)):
            raise DataError(
                f"{self.address}: damaged, the row of {names[int(bad[0])]} is not as it was written; write it again"
            )
        kind = np.full(len(names), int(Modality.PHOTO), np.uint8)
        label = np.full(len(names), -1, np.int32)
        stamps = _stamps([found[n][2] for n in names])
        return Embeddings(
            rows, checksum, label, kind, tuple(names), self.info, stamps, path=Path(self.address)
        )

    def _near(self, query: Float32, k: int, approximate: bool) -> list[Any]:
        """Rows around a query, so many that none within the error of a float32 score of the k-th is missing."""
        slack, limit = 4 * (len(query) + 4) * 2.0**-24, k + 16
        asked = (
            self._table.search(query)
            .distance_type("cosine")
            .select(["source", "checksum", "content", "vector", "_distance"])
        )
        if approximate:
            return [asked.nprobes(PROBES).refine_factor(REFINE).limit(k).to_arrow()]
        while True:
            block = asked.bypass_vector_index().limit(limit).to_arrow()
            distances = block["_distance"].to_numpy()
            if (
                len(block) < limit
                or distances.max() - np.sort(distances)[k - 1] > slack
                or limit >= MOST_TIES
            ):
                return [block]
            limit *= 4


def _stamps(contents: Sequence[bytes | None]) -> FileStamps | None:
    """What is known of the photos' files: their content alone; None where that is not known of each."""
    if not all(contents):
        return None
    none = np.zeros(len(contents), np.int64)
    content = np.frombuffer(b"".join(c for c in contents if c), np.uint8).reshape(-1, CONTENT_BYTES)
    return FileStamps(none, none, none, content)


def open_table(address: str) -> GalleryTable:
    """Open a table for search: as it was when it was last written to its end.

    Errors: UsageError (extra missing), DataError (not there, never finished, of another program).
    """
    missing = DataError(
        f"{address}: no such table; write it with `zssbir embed --photos DIR --out {address}`"
    )
    if not is_remote(address) and not Path(address).is_dir():
        raise missing
    connection, name = _connection(address)
    try:
        table = connection.open_table(name)
        _ = (table.schema.metadata or {})[_FACTS]
        if WHOLE not in table.tags.list():
            raise DataError(
                f"{address}: it was never written to its end; run the same `zssbir embed` command again"
            )
        table.checkout(WHOLE)
        facts = parsed((table.schema.metadata or {})[_FACTS])
        info = EmbeddingInfo(**{**facts, "classes": tuple(facts["classes"])})
        return GalleryTable(address, info, int(table.count_rows()), bool(table.list_indices()), table)
    except DataError:
        raise
    except KeyError:
        raise DataError(f"{address}: a table of another program (`zssbir embed` writes them)") from None
    except Exception as error:
        if "not found" in str(error):
            raise missing from None
        raise DataError(f"{address}: cannot be read ({reason(error)})") from None


def _connection(address: str) -> tuple[Any, str]:
    """The database around a table, and the table's name in it."""
    os.environ.setdefault("LANCEDB_LOG", "error")
    try:
        import lancedb
    except ImportError as error:
        raise UsageError(
            f"{address}: tables need the lance extra ({reason(error)}): python -m pip install '.[lance]'"
        ) from None
    parent, _, name = address.replace("\\", "/").rpartition("/")
    name = name.removesuffix(TABLE_SUFFIX)
    if not re.fullmatch(r"[\w.-]+", name, re.ASCII):
        raise UsageError(f"{address}: a table's name is made of letters, digits, - and _")
    try:
        return lancedb.connect(parent or ("/" if address.startswith("/") else ".")), name
    except Exception as error:
        raise DataError(f"{address}: cannot be opened ({reason(error)})") from None
