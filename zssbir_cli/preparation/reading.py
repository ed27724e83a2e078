"""Reads the planned files in order, on all cores: bytes -> whatever is made of them.

Reading, decoding, encoding and hashing release the interpreter lock, so threads use all cores; results are
taken in order, so nothing depends on their number.
"""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from zssbir_cli.arrays import Ints
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.plan import GROUPS, PreparePlan
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality

CHUNK_IMAGES = 32
CHUNK_BYTES = 4 << 20
AHEAD_CHUNKS = 64
AHEAD_BYTES = 16 << 20
"""How far reading runs ahead of what takes the results."""
UNREADABLE = b"\0" * 32
"""Stands for the digest of a file that cannot be read."""

T = TypeVar("T")
Chunk = tuple[list[int], list[bytes] | None]


def read_items(
    plan: PreparePlan, todo: Ints, workers: int, use: Callable[[int, bytes | DataError], T]
) -> Iterator[tuple[list[int], list[T]]]:
    """Chunks of item numbers, in the order of `todo`, with what `use` makes of each item's number and bytes (or
    of the error in their place). A bounded number of chunks is under way."""
    pool = ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="prepare")
    waiting: deque[tuple[list[int], Future[list[T]]]] = deque()
    ahead, sizes = 0, plan.items.size
    try:
        for chunk, raw in _feed(plan, todo):
            waiting.append((chunk, pool.submit(_use_chunk, plan, chunk, raw, use)))
            ahead += sum(sizes[i] for i in chunk)
            while len(waiting) > AHEAD_CHUNKS or (ahead > AHEAD_BYTES and len(waiting) > 1):
                items, future = waiting.popleft()
                ahead -= sum(sizes[i] for i in items)
                yield items, future.result()
        while waiting:
            items, future = waiting.popleft()
            yield items, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _use_chunk(
    plan: PreparePlan, chunk: list[int], raw: list[bytes] | None, use: Callable[[int, bytes | DataError], T]
) -> list[T]:
    items, results = plan.items, []
    for place, item in enumerate(chunk):
        data: bytes | DataError
        try:
            data = raw[place] if raw is not None else plan.sources[items.source[item]].read(items.entry[item])
        except DataError as error:
            data = error
        results.append(use(item, data))
    return results


def _feed(plan: PreparePlan, todo: Ints) -> Iterator[Chunk]:
    """Items in chunks of bounded bytes; with their bytes where the source must be read in order."""
    items, start = plan.items, 0
    while start < len(todo):
        source = plan.sources[items.source[int(todo[start])]]
        if source.sequential:
            mine = todo[np.asarray(items.source)[todo] == items.source[int(todo[start])]]
            yield from _feed_stream(plan, [int(i) for i in mine])
            start += len(mine)
            continue
        chunk: list[int] = []
        size = 0
        while start < len(todo) and len(chunk) < CHUNK_IMAGES and size < CHUNK_BYTES:
            item = int(todo[start])
            if plan.sources[items.source[item]].sequential:
                break
            chunk.append(item)
            size += items.size[item]
            start += 1
        yield chunk, None


def _feed_stream(plan: PreparePlan, mine: list[int]) -> Iterator[Chunk]:
    items, chunk, raw, size = plan.items, list[int](), list[bytes](), 0
    source = plan.sources[items.source[mine[0]]]
    stream = source.stream([items.entry[i] for i in mine])
    for item, (_, data) in zip(mine, stream, strict=True):
        chunk.append(item)
        raw.append(data)
        size += len(data)
        if len(chunk) >= CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk, raw
            chunk, raw, size = [], [], 0
    if chunk:
        yield chunk, raw


class Content:
    """Names all files of a plan by their bytes: a sum over items, so that parts of it can be added up."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def add(self, path: str, digest: bytes) -> None:
        """Count one item: its stored path, and the sha256 of its file (`UNREADABLE` = none), followed by that of
        its mask where it has one."""
        mark = hashlib.sha256(path.encode("utf-8", "surrogatepass") + b"\0" + digest).digest()
        self.value = (self.value + int.from_bytes(mark, "big")) % (1 << 256)

    @property
    def hex(self) -> str:
        """64 hexadecimal digits."""
        return f"{self.value:064x}"


def content_of(plan: PreparePlan, workers: int, progress: Progress = silent) -> str:
    """The plan's `Content`, from reading all of its files."""
    content, paths = Content(), plan.items.paths
    for chunk, digests in _digests(plan, workers, "comparing", progress, partial(_digest_with_mask, plan)):
        for item, digest in zip(chunk, digests, strict=True):
            content.add(paths[item], digest)
    return content.hex


def later_copies(plan: PreparePlan, workers: int, progress: Progress = silent) -> set[int]:
    """Items whose file repeats one that comes before it by part (test first), class and path, whatever the order
    in which the sources can be read."""
    digests: dict[int, bytes] = {}
    for chunk, found in _digests(plan, workers, "looking for copies", progress, _digest):
        digests.update(zip(chunk, found, strict=True))
    first: set[tuple[Modality, bytes]] = set()
    later: set[int] = set()
    for item in plan.rank().tolist():
        mark = (GROUPS[plan.items.group[item]][1], digests[item])
        if mark in first and digests[item] != UNREADABLE:
            later.add(item)
        first.add(mark)
    return later


def _digests(
    plan: PreparePlan,
    workers: int,
    what: str,
    progress: Progress,
    use: Callable[[int, bytes | DataError], bytes],
) -> Iterator[tuple[list[int], list[bytes]]]:
    done, total = 0, len(plan.items)
    progress(what, 0, total)
    for chunk, digests in read_items(plan, plan.order(), workers, use):
        yield chunk, digests
        done += len(chunk)
        progress(what, done, total)


def _digest(item: int, data: bytes | DataError) -> bytes:
    return UNREADABLE if isinstance(data, DataError) else hashlib.sha256(data).digest()


def _digest_with_mask(plan: PreparePlan, item: int, data: bytes | DataError) -> bytes:
    try:
        mask = plan.read_mask(item)
    except DataError as error:
        return _digest(item, data) + _digest(item, error)
    return _digest(item, data) + (b"" if mask is None else _digest(item, mask))


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
