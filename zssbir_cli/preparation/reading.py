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
Chunk = list[tuple[int, bytes | None]]
"""Item numbers, with their bytes where the source must be read in order."""


def read_items(
    plan: PreparePlan, todo: Ints, workers: int, use: Callable[[int, bytes | DataError], T]
) -> Iterator[tuple[list[int], list[T]]]:
    """Chunks of item numbers, in the order of `todo`, with what `use` makes of each item's number and bytes (or
    of the error in their place). A bounded number of chunks is under way."""
    pool = ThreadPoolExecutor(workers or available_cores(), thread_name_prefix="prepare")
    waiting: deque[tuple[list[int], int, Future[list[T]]]] = deque()
    ahead, sizes = 0, plan.items.size
    try:
        for chunk in _chunks(plan, todo):
            items = [item for item, _ in chunk]
            size = sum(sizes[i] for i in items)
            waiting.append((items, size, pool.submit(_use_chunk, plan, chunk, use)))
            ahead += size
            while len(waiting) > AHEAD_CHUNKS or (ahead > AHEAD_BYTES and len(waiting) > 1):
                items, size, future = waiting.popleft()
                ahead -= size
                yield items, future.result()
        for items, _, future in waiting:
            yield items, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _use_chunk(plan: PreparePlan, chunk: Chunk, use: Callable[[int, bytes | DataError], T]) -> list[T]:
    return [use(item, read_item(plan, item) if data is None else data) for item, data in chunk]


def read_item(plan: PreparePlan, item: int) -> bytes | DataError:
    """The bytes of an item's file, or why they cannot be read."""
    try:
        return plan.sources[plan.items.source[item]].read(plan.items.entry[item])
    except DataError as error:
        return error


def _chunks(plan: PreparePlan, todo: Ints) -> Iterator[Chunk]:
    """The items in chunks of bounded bytes."""
    chunk: Chunk = []
    size = 0
    for item, data in _feed(plan, todo):
        chunk.append((item, data))
        size += plan.items.size[item]
        if len(chunk) >= CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _feed(plan: PreparePlan, todo: Ints) -> Iterator[tuple[int, bytes | None]]:
    """Each item; all of a source that must be read in order come together, with their bytes."""
    items, order = plan.items, todo.tolist()
    start = 0
    while start < len(order):
        source = plan.sources[items.source[order[start]]]
        if not source.sequential:
            yield order[start], None
            start += 1
            continue
        mine = [i for i in order[start:] if plan.sources[items.source[i]] is source]
        for item, (_, data) in zip(mine, source.stream([items.entry[i] for i in mine]), strict=True):
            yield item, data
        start += len(mine)


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
