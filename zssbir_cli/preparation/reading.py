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
from zssbir_cli.preparation.plan import PreparePlan
from zssbir_cli.preparation.sources import UNREADABLE
from zssbir_cli.progress import Progress, silent

CHUNK_IMAGES = 32
CHUNK_BYTES = 4 << 20
AHEAD_CHUNKS = 64
AHEAD_BYTES = 16 << 20
"""How far reading runs ahead of what takes the results."""

T = TypeVar("T")


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
            size = sum(sizes[i] for i in chunk)
            waiting.append(
                (chunk, size, pool.submit(lambda items: [use(i, read_item(plan, i)) for i in items], chunk))
            )
            ahead += size
            while len(waiting) > AHEAD_CHUNKS or (ahead > AHEAD_BYTES and len(waiting) > 1):
                items, size, future = waiting.popleft()
                ahead -= size
                yield items, future.result()
        for items, _, future in waiting:
            yield items, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def read_item(plan: PreparePlan, item: int, entry: int | None = None) -> bytes | DataError:
    """The bytes of an item's file (or of another `entry` of its source), or why they cannot be read."""
    try:
        source = plan.sources[plan.items.source[item]]
        return source.read(plan.items.entry[item] if entry is None else entry)
    except DataError as error:
        return error


def read_mask(plan: PreparePlan, item: int) -> bytes | DataError | None:
    """The file of a photo's object mask, likewise; None when it has none."""
    entry = plan.items.mask[item]
    return None if entry < 0 else read_item(plan, item, entry)


def _chunks(plan: PreparePlan, todo: Ints) -> Iterator[list[int]]:
    """The items in chunks of bounded bytes."""
    chunk: list[int] = []
    size = 0
    for item in todo.tolist():
        chunk.append(item)
        size += plan.items.size[item]
        if len(chunk) >= CHUNK_IMAGES or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


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
    content, done, total = Content(), 0, len(plan.items)
    progress("comparing", 0, total)
    for chunk, digests in read_items(plan, plan.order(), workers, partial(_digest_with_mask, plan)):
        for item, digest in zip(chunk, digests, strict=True):
            content.add(plan.items.paths[item], digest)
        done += len(chunk)
        progress("comparing", done, total)
    return content.hex


def _digest_with_mask(plan: PreparePlan, item: int, data: bytes | DataError) -> bytes:
    mask = read_mask(plan, item)
    return _digest(data) + (b"" if mask is None else _digest(mask))


def _digest(data: bytes | DataError) -> bytes:
    return UNREADABLE if isinstance(data, DataError) else hashlib.sha256(data).digest()


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
