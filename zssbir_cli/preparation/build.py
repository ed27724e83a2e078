"""Carry out a plan: read, check and store every image, in order, on all cores, restartable at any moment."""

import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zssbir_cli import __version__
from zssbir_cli.arrays import Ints
from zssbir_cli.data.manifest import Leak, Manifest, ShardInfo, write_manifest
from zssbir_cli.data.shards import Shard, ShardWriter, read_digests, read_index
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason, remedy, write_text
from zssbir_cli.names import counted, listed, readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import Cleaned, clean
from zssbir_cli.preparation.finished import alone, check_free, finished_set
from zssbir_cli.preparation.forecast import foresee
from zssbir_cli.preparation.ground import NOTE as GROUND_MADE
from zssbir_cli.preparation.journal import REPORT_NAME, WORK, Journal, ShardRecord
from zssbir_cli.preparation.leaks import (
    Note,
    Repeats,
    find_image_leaks,
    find_repeats,
    find_saved_again,
    refuse,
    told_near,
)
from zssbir_cli.preparation.masks import NOTE, Mask, fit_mask, told
from zssbir_cli.preparation.plan import GROUPS, PreparePlan
from zssbir_cli.preparation.reading import Content, read_items, read_mask
from zssbir_cli.preparation.sources import UNREADABLE
from zssbir_cli.progress import Progress, Say
from zssbir_cli.types import Modality, Part

MANY = 0.5
"""Share of the sketches that is no longer taken for an exception."""
COPY = "repeats an image that is already in the set"
WORTH_SAYING = 5.0
"""Seconds: what is done sooner needs no forecast."""


@dataclass(frozen=True)
class Prepared:
    """The result: where, what, and whether anything had to be done."""

    root: Path
    manifest: Manifest
    fresh: bool


def carry_out(plan: PreparePlan, out: Path, choices: Choices, say: Say, progress: Progress) -> Prepared:
    """Build the plan into `out` unless this very set is there already.

    Errors: DataError: `out` holds another set or other files, or is in use by another process; see `build_set`.
    """
    for warning in plan.warnings:
        say(f"warning: {warning}")
    check_free(out)
    with alone(out):
        finished = finished_set(plan, out, choices, say, progress)
        if finished is not None:
            return Prepared(out, finished, fresh=False)
        if (out / WORK).is_dir():
            same = Journal(out).is_of(plan.key, plan.state)
            anew = "starting anew: the unfinished set is of other options, other files or another version"
            say(f"continuing in {readable(str(out))}" if same else f"{readable(str(out))}: {anew}")
        elif (
            forecast := foresee(plan, choices.workers, partial(clean_item, plan, choices))
        ).seconds > WORTH_SAYING:
            say(str(forecast))
        manifest = build_set(plan, out, choices, progress)
    for warning in (*manifest.warnings[len(plan.warnings) :], *told_near(manifest.leaks)):
        say(f"warning: {warning}")
    return Prepared(out, manifest, fresh=True)


class _Group:
    """One part and modality being written: how many of its items are done, and the notes on them."""

    def __init__(
        self, plan: PreparePlan, journal: Journal, store: "_Store", part: Part, modality: Modality
    ) -> None:
        self.part, self.modality = part, modality
        self.records = list(journal.finished(f"{part}-{modality.word}"))
        self.total = plan.items.group.count(GROUPS.index((part, modality)))
        self.done = self._first = self.records[-1].next if self.records else 0
        self.notes: list[Note] = []
        self.content, self.looks = Content(), bytearray()
        self._journal, self._store = journal, store
        self.writer = ShardWriter(
            journal.folder, dataset=plan.name, split=plan.split, part=part, modality=modality,
            first=len(self.records), store=self._full,
        )  # fmt: skip

    def note(self, kind: str, path: str, text: str) -> None:
        """Remember what the report will say about an image."""
        self.notes.append((kind, readable(path), text))

    def _full(self, shard: Shard) -> None:
        """Have a full shard written; it settles all items since the one before."""
        told = {"notes": tuple(self.notes), "content": self.content.hex, "looks": self.looks.hex()}
        job = partial(self._write, shard, first=self._first, next=self.done, **told)
        self._first, self.notes, self.content, self.looks = self.done, [], Content(), bytearray()
        self._store.run(job)

    def _write(self, shard: Shard, **settled: Any) -> None:
        """Write a shard that settles the items [first, next), and make it count."""
        record = ShardRecord(info=shard.write(), **settled)
        self._journal.record(record)
        self.records.append(record)

    def all_notes(self) -> list[Note]:
        """The notes on all items, in order."""
        return [n for record in self.records for n in record.notes] + self.notes


class _Store:
    """Writes full shards while the next ones are filled: one at a time, in order."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._last: Future[None] | None = None

    def run(self, job: Callable[[], None]) -> None:
        """Start a job once the one before is through; what that one raised is raised here."""
        self.wait()
        self._last = self._pool.submit(job)

    def wait(self) -> None:
        """Until all is on the disk."""
        if self._last is not None:
            self._last.result()
            self._last = None

    def __enter__(self) -> "_Store":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()


def build_set(plan: PreparePlan, out: Path, choices: Choices, progress: Progress) -> Manifest:
    """Write the planned set into the folder `out` and return its manifest; continues what a killed run left. The
    caller holds the folder for itself (`finished.alone`).

    Errors: DataError: an unusable image under `strict`, a leak that is not allowed, a full disk.
    """
    _check_disk(plan, out)
    try:
        with warnings.catch_warnings(), _Store() as store:
            Image.preinit()  # loading Pillow's readers is not safe in several threads at once
            warnings.simplefilter("ignore")  # Pillow's remarks on odd files; what matters is in the report
            journal = Journal(out)
            journal.start(plan.key, plan.state)
            groups = [_Group(plan, journal, store, part, modality) for part, modality in GROUPS]
            _write_all(plan, groups, choices, progress)
            store.wait()
            return _finish(plan, out, journal, groups, choices)
    except OSError as error:
        raise DataError(
            f"{readable(str(out))} cannot be written: {reason(error)}; what is finished is kept: {remedy(error)}, and run "
            f"the same command again"
        ) from None


def _write_all(plan: PreparePlan, groups: list[_Group], choices: Choices, progress: Progress) -> None:
    items = plan.items
    stored = _stored(groups) if choices.dedup else None
    todo = _unsettled(plan, groups)
    done = len(items) - len(todo)
    progress("preparing", done, len(items))
    work = partial(clean_item, plan, choices)
    for chunk, results in read_items(plan, todo, choices.workers, work):
        for item, (result, mask) in zip(chunk, results, strict=True):
            group, path = groups[items.group[item]], items.paths[item]
            group.done += 1
            group.content.add(path, result.digest + mask.digest)
            if result.data is None:
                _leave_out(group, "skipped", path, result.note, choices)
            elif stored is not None and (mark := (group.modality, result.digest[:12])) in stored:
                group.note("skipped", path, COPY)
            else:
                if stored is not None:
                    stored.add(mark)
                if result.note:
                    group.note("changed", path, result.note)
                if mask.note:
                    _leave_out(group, NOTE, path, mask.note, choices)
                group.looks += result.look
                group.writer.add(result.data, items.label[item], path, digest=result.digest, mask=mask.data)
            if group.done == group.total:
                group.writer.finish()
        done += len(chunk)
        progress("preparing", done, len(items))


def clean_item(
    plan: PreparePlan, choices: Choices, item: int, data: bytes | DataError
) -> tuple[Cleaned, Mask]:
    """What is stored of an image whose file holds `data`, and of its mask."""
    if isinstance(data, DataError):
        image = Cleaned(None, str(data), UNREADABLE)
    else:
        image = clean(data, GROUPS[plan.items.group[item]][1], choices.clean)
    return image, fit_mask(read_mask(plan, item), data, image.data)


def _leave_out(group: _Group, kind: str, path: str, why: str, choices: Choices) -> None:
    """Note an image (`skipped`) or a mask (`NOTE`) that cannot be used. Raises DataError under `strict`."""
    if choices.strict:
        what, thing = ("mask of ", "mask") if kind == NOTE else ("", "image")
        raise DataError(
            f"{what}{readable(path)}: {why} (--strict; without it the {thing} is left out and reported)"
        )
    group.note(kind, path, why)


def _stored(groups: list[_Group]) -> set[tuple[Modality, bytes]]:
    """What tells the files that are in the set already from others, of a run that is continued."""
    return {
        (group.modality, digest[:12].tobytes())
        for group in groups
        for record in group.records
        for digest in read_digests(group.writer.folder / record.info.file)
    }


def _unsettled(plan: PreparePlan, groups: list[_Group]) -> Ints:
    """Item numbers still to do, in writing order: of each group, those after the ones that are done."""
    order = plan.order()
    group = np.asarray(plan.items.group)[order]  # ascending
    place = np.arange(len(order)) - np.searchsorted(group, group)
    left: Ints = order[place >= np.array([g.done for g in groups])[group]]
    return left


def _finish(
    plan: PreparePlan, out: Path, journal: Journal, groups: list[_Group], choices: Choices
) -> Manifest:
    """Check for leaks, write the report and, last of all, the manifest."""
    ordered = sorted(groups, key=lambda g: (list(Part).index(g.part), g.modality))
    shards = [record.info for g in ordered for record in g.records]
    notes = [n for g in ordered for n in g.all_notes()]
    _check_any_left(plan, ordered)
    leaks = [*plan.leaks, *find_image_leaks(out, shards)]
    refused = tuple(leaks)
    leaks += find_saved_again(out, [(r.info, r.looks) for g in ordered for r in g.records], refused)
    repeats = find_repeats(out, shards, plan.classes)
    _write_report(out, notes, leaks, repeats)
    if refused and not choices.allow_leak:
        refuse(refused, out / REPORT_NAME)
    content = sum(int(record.content, 16) for g in groups for record in g.records)
    content += sum(g.content.value for g in groups)
    manifest = Manifest(
        name=plan.name,
        split=plan.split,
        classes=plan.classes,
        shards=tuple(shards),
        sources=tuple(s.info() for s in plan.sources),
        options={**plan.options, "plan": plan.key},
        skipped=sum(kind == "skipped" for kind, _, _ in notes),
        warnings=(
            *plan.warnings,
            *_emptied(plan, out, shards),
            *_grounds(notes, shards),
            *told(notes),
            *repeats.warnings,
        ),
        leaks=tuple(leaks),
        files_state=plan.state,
        files_content=Content(content % (1 << 256)).hex,
        tool_version=__version__,
    )
    write_manifest(out, manifest)
    journal.clear({s.file for s in shards})
    return manifest


def _write_report(out: Path, notes: list[Note], leaks: list[Leak], repeats: Repeats) -> None:
    """report.txt: a line for each image that was left out or changed, for each leak and each repeated image."""
    rows = [*notes, *((f"leak: {k.kind}", k.what, f"is in {k.where}") for k in leaks), *repeats.notes]
    write_text(out / REPORT_NAME, "".join(f"{kind}\t{path}\t{text}\n" for kind, path, text in rows))


def _check_any_left(plan: PreparePlan, groups: list[_Group]) -> None:
    """A part of which nothing could be used is an error. Raises DataError."""
    for group in groups:
        if group.total and not group.records:
            _, path, why = next(n for n in group.notes if n[0] == "skipped")
            what = f"{group.part} {counted(group.total, group.modality.word)}"
            raise DataError(f"none of the {what} of {plan.name} could be used; first: {path}: {why}")


def _emptied(plan: PreparePlan, out: Path, shards: list[ShardInfo]) -> list[str]:
    """Warnings for classes that lost all of their sketches or photos on the way."""
    stored: Counter[tuple[int, Modality]] = Counter()
    for shard in shards:
        stored.update((label, shard.modality) for label in read_index(out / shard.file).labels.tolist())
    planned = {(label, GROUPS[g][1]) for label, g in zip(plan.items.label, plan.items.group, strict=True)}
    told = []
    for modality, plural in ((Modality.SKETCH, "sketches"), (Modality.PHOTO, "photos")):
        lost = sorted(label for label, m in planned - stored.keys() if m is modality)
        if lost:
            names = listed([plan.classes[label].name for label in lost])
            told.append(f"no {plural} are left of {counted(len(lost), 'class')}: {names}; see the report")
    return told


def _grounds(notes: list[Note], shards: list[ShardInfo]) -> list[str]:
    """A warning when most of the sketches were on no white paper: photos, perhaps, given as sketches."""
    total = sum(s.count for s in shards if s.modality is Modality.SKETCH)
    made = sum(kind == "changed" and GROUND_MADE in text for kind, _, text in notes)
    if made <= MANY * total:
        return []
    return [
        f"{made:,} of {counted(total, 'sketch')} were not on white paper and have been brought there: look at some with "
        f"`zssbir info --sheet`, and whether sketch/ and photo/ are the right way round"
    ]


def _check_disk(plan: PreparePlan, out: Path) -> None:
    """Stop early when the images as found would not fit (a smaller --size needs less, and is not checked)."""
    if plan.options.get("size") is not None:
        return
    need, free = sum(plan.items.size), shutil.disk_usage(out).free
    present = sum(f.stat().st_size for f in out.iterdir() if f.is_file())
    if need > free + present:
        raise DataError(
            f"{readable(str(out))}: {need / 1e6:,.2f} MB are needed and {free / 1e6:,.2f} MB are free; use --out or --size"
        )
