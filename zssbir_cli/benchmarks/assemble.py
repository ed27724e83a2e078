"""From scanned sources and a split to the images of a benchmark: one row per image, under its published path."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from zssbir_cli.benchmarks.layouts import Kind, match, published_path
from zssbir_cli.benchmarks.lists import TEST, TRAIN, Lists, file_key
from zssbir_cli.benchmarks.splits import Split, repair
from zssbir_cli.data.manifest import ClassInfo
from zssbir_cli.names import readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.kinds import is_picture_name
from zssbir_cli.preparation.layout import PART_OF_ROLE, passed_over
from zssbir_cli.preparation.plan import Items
from zssbir_cli.preparation.sources import Source
from zssbir_cli.types import Modality, Part, Role

Folder = tuple[int, str, bool]  # source number, folder's path, whether of `_ready` files


@dataclass
class BenchmarkFiles:
    """Files by (kind, class) and folder, as entry numbers; what was ignored and repaired."""

    folders: dict[tuple[Kind, str], dict[Folder, "array[int]"]] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    repaired: dict[str, str] = field(default_factory=dict)


def find(dataset: str, sources: Sequence[Source]) -> BenchmarkFiles:
    """Sort the files of the sources by kind and class (names repaired)."""
    found = BenchmarkFiles()
    for number, source in enumerate(sources):
        above = "/".join(source.path.resolve().parts[-2:])
        stem = above.split(".")[0] if source.kind != "folder" else above
        for entry, path in enumerate(source.listing.paths):
            what = match(dataset, f"{stem}/{path}")
            if isinstance(what, str):
                found.ignored[what] += 1
                continue
            if not is_picture_name(path):
                found.ignored[
                    f"files in class folders are not images by their suffix ({path.rsplit('/', 1)[1]})"
                ] += 1
                continue
            name = repair(dataset, what.folder)
            if name is None:
                found.ignored[f"files of the unknown class {what.folder!r}"] += 1
                continue
            if name != what.folder:
                found.repaired[f"{what.kind} {what.folder}"] = name
            folder = (number, path.rpartition("/")[0], what.ready)
            found.folders.setdefault((what.kind, name), {}).setdefault(folder, array("i")).append(entry)
    return found


def benchmark_items(
    found: BenchmarkFiles,
    sources: Sequence[Source],
    split: Split,
    classes: Sequence[ClassInfo],
    *,
    lists: Lists | None,
    choices: Choices,
    holdout: int,
) -> tuple[Items, list[str]]:
    """The images of the split and warnings about what is missing or left out."""
    items, warnings = Items(), [*_told(found), *(f"{text}; left out" for text in passed_over(sources))]
    missing = _Missing(lists)
    for info in classes:
        name = info.name
        originals: set[str] = set()
        chosen: list[tuple[Kind, Entry, Part]] = []
        for kind in (Kind.SKETCH, Kind.PHOTO, Kind.EXTEND):
            rows = list(_files(found, sources, kind, name, warnings))
            if kind is Kind.PHOTO:
                originals = {_stem(file) for _, _, file, _ in rows}
            elif kind is Kind.EXTEND and choices.dedup:
                rows = [row for row in rows if _stem(row[2]) not in originals]
            missing.found(kind, name, info.role, rows)
            chosen += [
                (kind, row, part)
                for row, part in _parts(rows, kind, info, lists, holdout=holdout, seed=choices.seed)
            ]
        for kind, (source, entry, file, size), part in _subset(chosen, choices, info.id):
            path = published_path(split.dataset, kind, name, file)
            items.add(path, source, entry, label=info.id, part=part, modality=kind.modality, size=size)
    return items, warnings + missing.told(split)


Entry = tuple[int, int, str, int]  # source, entry, file name, bytes


def _stem(file: str) -> str:
    return file.rsplit(".", 1)[0].casefold()


def _files(
    found: BenchmarkFiles, sources: Sequence[Source], kind: Kind, name: str, warnings: list[str]
) -> Iterator[Entry]:
    """Files of a class, each name once: `_ready` files where both kinds are there, earlier sources first."""
    folders = found.folders.get((kind, name), {})
    ready = [f for f in folders if f[2]]
    used = ready or list(folders)
    if len(used) < len(folders):
        warnings.append(f"{kind} {name}: the folder of _ready files is used, the other is ignored")
    seen: set[str] = set()
    for folder in used:
        listing = sources[folder[0]].listing
        for entry in folders[folder]:
            file = listing.paths[entry].rpartition("/")[2]
            if len(used) > 1:
                if file in seen:
                    continue
                seen.add(file)
            yield folder[0], entry, file, listing.sizes[entry]


def _parts(
    rows: list[Entry], kind: Kind, info: ClassInfo, lists: Lists | None, *, holdout: int, seed: int
) -> list[tuple[Entry, Part]]:
    """Each chosen file with its part."""
    side = TEST if info.role is Role.UNSEEN else TRAIN
    part = PART_OF_ROLE[info.role]
    known = lists.files[side] if lists is not None and lists.lists(side, kind) else None
    if info.leaked and known is None:  # only the images that the lists train on are training images
        return []
    ordered = sorted(rows, key=lambda row: row[2])
    order = np.random.default_rng([seed, info.id, list(Kind).index(kind)]).permutation(len(ordered))
    chosen: list[tuple[Entry, Part]] = []
    most = min(holdout, len(ordered) // 4)  # a trial with few sketches keeps most of them
    # sketches that no list trains on
    rest = {Role.SEEN: Part.HOLDOUT, Role.VAL: Part.VAL} if kind is Kind.SKETCH else {}
    for place, i in enumerate(order):
        row = ordered[i]
        if known is None:
            held = kind is Kind.SKETCH and info.role is Role.SEEN and place < most
            chosen.append((row, Part.HOLDOUT if held else part))
        elif file_key(kind, info.name, row[2]) in known:
            chosen.append((row, part))
        elif info.role in rest:
            chosen.append((row, rest[info.role]))
    return chosen


def _subset(
    chosen: list[tuple[Kind, Entry, Part]], choices: Choices, label: int
) -> list[tuple[Kind, Entry, Part]]:
    """At most `--per-class` images of a class per part and modality, drawn by seed."""
    if choices.subset is None:
        return chosen
    left: Counter[tuple[Part, Modality]] = Counter()
    kept = []
    for i in np.random.default_rng([choices.seed, label, 9]).permutation(len(chosen)):
        group = (chosen[i][2], chosen[i][0].modality)
        left[group] += 1
        if left[group] <= choices.subset:
            kept.append(chosen[i])
    return kept


class _Missing:
    """Listed images that no source holds."""

    def __init__(self, lists: Lists | None) -> None:
        self._lists = lists
        self._left = {side: set(lists.files[side]) for side in (TRAIN, TEST)} if lists else {}

    def found(self, kind: Kind, name: str, role: Role, rows: list[Entry]) -> None:
        """Strike off what is there."""
        if self._lists is not None:
            side = TEST if role is Role.UNSEEN else TRAIN
            self._left[side].difference_update(file_key(kind, name, row[2]) for row in rows)

    def told(self, split: Split) -> list[str]:
        """A warning per side, with the first names."""
        told, known = [], {TRAIN: set(split.seen), TEST: set(split.unseen)}
        for side, left in self._left.items():
            gone = sorted(k for k in left if k[1] in known[side])
            if gone and self._lists is not None:
                names = ", ".join(readable(self._lists.files[side][k]) for k in gone[:3])
                told.append(f"{len(gone):,} images of the {side} lists are not in your files, first: {names}")
        return told


def _told(found: BenchmarkFiles) -> list[str]:
    told = [f"{n:,} {why}; ignored" for why, n in sorted(found.ignored.items()) if why]
    told += [f"{folder} is taken as {name}" for folder, name in sorted(found.repaired.items())]
    return told
