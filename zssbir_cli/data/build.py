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
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from zssbir_cli import __version__
from zssbir_cli.data.clean import Cleaned, CleanOptions, clean
from zssbir_cli.data.journal import REPORT_NAME, Journal, Note, ShardRecord, lock
from zssbir_cli.data.leaks import find_image_leaks, refuse
from zssbir_cli.data.manifest import Manifest, ShardInfo, write_atomically, write_manifest
from zssbir_cli.data.plan import GROUPS, Plan
from zssbir_cli.data.shards import ShardWriter, clean_source, read_digests
from zssbir_cli.errors import DataError
from zssbir_cli.types import Modality, Part

CHUNK_IMAGES = 32
CHUNK_BYTES = 4 << 20
AHEAD_CHUNKS = 64
AHEAD_BYTES = 32 << 20
"""How far reading runs ahead of storing, so that the cores have work while a shard is written."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BuildOptions:
    """`dedup`: leave out images whose file repeats one already stored. `strict`: an unusable image is an
    error. `allow_leak`: record leaks instead of refusing them."""

    clean: CleanOptions = field(default_factory=CleanOptions)
    dedup: bool = False
    strict: bool = False
    allow_leak: bool = False
    workers: int = 0


@dataclass
class _Group:
    """One part and modality being written: its writer, how many of its items are settled, what is to tell."""

    writer: ShardWriter
    total: int
    done: int = 0
    first: int = 0
    notes: list[Note] = field(default_factory=list)
    told: list[Note] = field(default_factory=list)
    records: list[ShardRecord] = field(default_factory=list)

    def settle(self, journal: Journal, info: ShardInfo | None) -> None:
        """After an item: when it completed a shard (the group's last item always does), make the shard count."""
        if self.done == self.total:
            info = self.writer.flush() or info
        if info is not None:
            record = ShardRecord(info=info, first=self.first, next=self.done, notes=tuple(self.notes))
            journal.record(record)
            self.records.append(record)
            self.first, self.notes = self.done, []


def build(
    plan: Plan, out: Path, options: BuildOptions, progress: Progress = lambda done, total: None
) -> Manifest:
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
        journal.start(plan.key())
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
    progress(len(items) - len(todo), len(items))
    done = len(items) - len(todo)
    for chunk, results in _cleaned(plan, todo, options):
        for item, result in zip(chunk, results, strict=True):
            group = groups[items.group[item]]
            group.done += 1
            path = clean_source(items.paths[item])
            reason = result.note if result.data is None else ""
            if seen is not None and not reason:
                mark = (GROUPS[items.group[item]][1], result.digest[:12])
                reason = "repeats an image that is already in the set" if mark in seen else ""
                seen.add(mark)
            info = None
            if reason or result.data is None:
                _skip(group, path, reason, options, repeated=result.data is not None)
            else:
                if result.note:
                    group.notes.append(("changed", path, result.note))
                info = group.writer.add(result.data, items.label[item], path, digest=result.digest)
            group.settle(journal, info)
        done += len(chunk)
        progress(done, len(items))


def _skip(group: _Group, path: str, reason: str, options: BuildOptions, *, repeated: bool) -> None:
    if options.strict and not repeated:
        raise DataError(f"{path}: {reason} (--strict; without it the image is left out and reported)")
    group.notes.append(("skipped", path, reason))


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
        options={**plan.options, "plan": plan.key()},
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
    write_atomically(out / REPORT_NAME, report.encode("utf-8"))
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
