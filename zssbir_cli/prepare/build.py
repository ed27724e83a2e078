"""Carry out a plan: read, check and store every image, in order, on all cores, restartable at any moment.

Reading, decoding, encoding and hashing release the interpreter lock, so threads use all cores; results are
taken in order, so the output does not depend on their number.
"""

import os
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from zssbir_cli import __version__
from zssbir_cli.data.manifest import Manifest, ShardInfo, write_manifest
from zssbir_cli.data.shards import ShardWriter, read_digests
from zssbir_cli.errors import DataError
from zssbir_cli.files import write_text
from zssbir_cli.names import readable
from zssbir_cli.prepare.choices import BuildOptions
from zssbir_cli.prepare.clean import Cleaned, CleanOptions, clean
from zssbir_cli.prepare.journal import REPORT_NAME, Journal, Note, ShardRecord, lock
from zssbir_cli.prepare.leaks import find_image_leaks, refuse
from zssbir_cli.prepare.plan import GROUPS, Plan
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Part

CHUNK_IMAGES = 32
CHUNK_BYTES = 4 << 20
AHEAD_CHUNKS = 64
AHEAD_BYTES = 16 << 20
"""How far reading runs ahead of storing."""


@dataclass
class _Group:
    """One part and modality being written: its writer, how many of its items are settled, what is to tell."""

    writer: ShardWriter
    total: int
    done: int = 0
    first: int = 0
    notes: list[Note] = field(default_factory=list)
    records: list[ShardRecord] = field(default_factory=list)

    def note(self, kind: str, path: str, reason: str) -> None:
        """Remember what the report will say about an image."""
        self.notes.append((kind, readable(path), reason))

    def settle(self, store: "_Store", full: bool) -> None:
        """After an item: when it completed a shard (the group's last item always does), have it written."""
        write = self.writer.seal() if full or self.done == self.total else None
        if write is not None:
            store.put(partial(self._store, store.journal, write, self.first, self.done, tuple(self.notes)))
            self.first, self.notes = self.done, []

    def _store(
        self,
        journal: Journal,
        write: Callable[[], ShardInfo],
        first: int,
        done: int,
        notes: tuple[Note, ...],
    ) -> None:
        """Write a shard that settles the items [first, done), and make it count."""
        record = ShardRecord(info=write(), first=first, next=done, notes=notes)
        journal.record(record)
        self.records.append(record)


class _Store:
    """Writes finished shards while the next ones are filled: one at a time, in order."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._last: Future[None] | None = None

    def put(self, job: Callable[[], None]) -> None:
        """Start a job once the one before is through; what that one raised is raised here."""
        self.wait()
        self._last = self._pool.submit(job)

    def wait(self) -> None:
        """Until all that was put is on the disk."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def __enter__(self) -> "_Store":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()


def build(plan: Plan, out: Path, options: BuildOptions, progress: Progress = silent) -> Manifest:
    """Write the planned set into `out` and return its manifest; continues what a killed run left.

    Raises:
        DataError: an unusable image under `strict`, a leak that is not allowed, a full disk, another run.
    """
    out.mkdir(parents=True, exist_ok=True)
    _check_disk(plan, out)
    with lock(out), warnings.catch_warnings():
        Image.init()  # loading Pillow's readers is not safe in several threads at once
        warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in the report
        journal = Journal(out)
        journal.start(plan.key)
        groups = [_open_group(plan, out, journal, part, modality) for part, modality in GROUPS]
        _write_all(plan, groups, journal, options, progress)
        return _finish(plan, out, journal, groups, options)


def _open_group(plan: Plan, out: Path, journal: Journal, part: Part, modality: Modality) -> _Group:
    records = journal.finished(f"{part}-{modality.name.lower()}")
    writer = ShardWriter(
        out, dataset=plan.name, split=plan.split, part=part, modality=modality, first=len(records)
    )
    done = records[-1].next if records else 0
    total = plan.items.group.count(GROUPS.index((part, modality)))
    return _Group(writer, total, done, done, records=list(records))


def _write_all(
    plan: Plan, groups: list[_Group], journal: Journal, options: BuildOptions, progress: Progress
) -> None:
    items = plan.items
    todo = _unsettled(plan, groups)
    seen = _seen_digests(journal, groups) if options.dedup else None
    done = len(items) - len(todo)
    progress("preparing", done, len(items))
    with _Store(journal) as store:
        for chunk, results in _cleaned(plan, todo, options):
            for item, result in zip(chunk, results, strict=True):
                number = items.group[item]
                group, path = groups[number], items.paths[item]
                group.done += 1
                full = False
                if result.data is None:
                    _skip(group, path, result.note, options)
                elif seen is not None and _repeats(seen, GROUPS[number][1], result.digest):
                    group.note("skipped", path, "repeats an image that is already in the set")
                else:
                    if result.note:
                        group.note("changed", path, result.note)
                    full = group.writer.put(result.data, items.label[item], path, digest=result.digest)
                group.settle(store, full)
            done += len(chunk)
            progress("preparing", done, len(items))
        store.wait()


def _skip(group: _Group, path: str, reason: str, options: BuildOptions) -> None:
    if options.strict:
        path = readable(path)
        raise DataError(f"{path}: {reason} (--strict; without it the image is left out and reported)")
    group.note("skipped", path, reason)


def _repeats(seen: set[tuple[Modality, bytes]], modality: Modality, digest: bytes) -> bool:
    """Whether an image's file is in the set already; from here on it is."""
    mark = (modality, digest[:12])
    repeated = mark in seen
    seen.add(mark)
    return repeated


def _unsettled(plan: Plan, groups: list[_Group]) -> npt.NDArray[np.int64]:
    """Item numbers still to do, in writing order."""
    order = plan.order()
    group = np.asarray(plan.items.group)[order]
    keep = np.ones(len(order), bool)
    for number, state in enumerate(groups):
        keep[np.flatnonzero(group == number)[: state.done]] = False
    return order[keep]


def _seen_digests(journal: Journal, groups: list[_Group]) -> set[tuple[Modality, bytes]]:
    seen: set[tuple[Modality, bytes]] = set()
    for group in groups:
        for record in group.records:
            for digest in read_digests(journal.folder / record.info.file):
                seen.add((record.info.modality, digest[:12].tobytes()))
    return seen


def _cleaned(
    plan: Plan, todo: npt.NDArray[np.int64], options: BuildOptions
) -> Iterator[tuple[list[int], list[Cleaned]]]:
    """Chunks of items with their cleaned images, in order; a bounded number of chunks is under way."""
    pool = ThreadPoolExecutor(options.workers or available_cores(), thread_name_prefix="prepare")
    waiting: deque[tuple[list[int], Future[list[Cleaned]]]] = deque()
    ahead, sizes = 0, plan.items.size
    try:
        for chunk, raw in _feed(plan, todo):
            waiting.append((chunk, pool.submit(_clean_chunk, plan, chunk, raw, options.clean)))
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


def _clean_chunk(
    plan: Plan, chunk: list[int], raw: list[bytes] | None, options: CleanOptions
) -> list[Cleaned]:
    items, results = plan.items, []
    for place, item in enumerate(chunk):
        modality = GROUPS[items.group[item]][1]
        try:
            data = raw[place] if raw is not None else plan.sources[items.source[item]].read(items.entry[item])
        except DataError as error:
            results.append(Cleaned(None, str(error), b"\0" * 32))
            continue
        results.append(clean(data, modality, options))
    return results


def _feed(plan: Plan, todo: npt.NDArray[np.int64]) -> Iterator[tuple[list[int], list[bytes] | None]]:
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


def _feed_stream(plan: Plan, mine: list[int]) -> Iterator[tuple[list[int], list[bytes] | None]]:
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


def _finish(plan: Plan, out: Path, journal: Journal, groups: list[_Group], options: BuildOptions) -> Manifest:
    """Check for leaks, write the report and, last of all, the manifest."""
    by_part = sorted(range(len(GROUPS)), key=lambda g: (list(Part).index(GROUPS[g][0]), GROUPS[g][1]))
    shards = [record.info for g in by_part for record in groups[g].records]
    notes = [n for g in by_part for n in _notes(groups[g])]
    leaks = [*plan.leaks, *find_image_leaks(out, shards)]
    if leaks and not options.allow_leak:
        refuse(leaks)
    skipped = sum(kind == "skipped" for kind, _, _ in notes)
    manifest = Manifest(
        name=plan.name,
        split=plan.split,
        classes=plan.classes,
        shards=tuple(shards),
        sources=tuple(s.info() for s in plan.sources),
        options={**plan.options, "plan": plan.key},
        skipped=skipped,
        warnings=plan.warnings,
        leaks=tuple(leaks),
        tool_version=__version__,
    )
    if not shards:
        raise DataError(
            f"none of the {len(notes)} images of {plan.name} could be used ({notes[0][1]}: {notes[0][2]})"
        )
    report = "".join(f"{kind}\t{path}\t{reason}\n" for kind, path, reason in notes)
    write_text(out / REPORT_NAME, report)
    write_manifest(out, manifest)
    journal.close({s.file for s in shards})
    return manifest


def _notes(group: _Group) -> list[Note]:
    return [n for record in group.records for n in record.notes] + group.notes


def _check_disk(plan: Plan, out: Path) -> None:
    """Stop early when the images as found would not fit (a smaller --size needs less, and is not checked)."""
    if plan.options.get("size") is not None:
        return
    need, free = sum(plan.items.size), shutil.disk_usage(out).free
    present = sum(f.stat().st_size for f in out.iterdir() if f.is_file())
    if need > free + present:
        raise DataError(
            f"{out}: {need >> 20} MiB are needed and {free >> 20} MiB are free; use --out or --size"
        )


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1
