"""The same image twice: in two parts (a leak), in two classes, as sketch and as photo; the same photo saved again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zssbir_cli.data.manifest import NEAR, ClassInfo, Leak, ShardInfo
from zssbir_cli.data.shards import read_digests, read_index, read_sources
from zssbir_cli.errors import DataError
from zssbir_cli.names import counted, listed, readable
from zssbir_cli.preparation.looks import VALUES, saved_again
from zssbir_cli.types import Modality, Part

MOST_NAMED = {"class": 25, "id": 10}
FEW = 3
_ORDER = (Part.TEST, Part.VAL, Part.HOLDOUT, Part.TRAIN)
"""What an image is first, when it is in several parts; in the others it is a leak."""
_KIND = {Part.TEST: "image", Part.VAL: "val image", Part.HOLDOUT: "holdout image"}
_KINDS = {
    "class": "training classes are test classes",
    "image": "training images are test images",
    "val image": "training images are validation images",
    "holdout image": "training images are hold-out images",
    "id": "classes have contradictory ids",
}
Note = tuple[str, str, str]  # what, path, reason: a line of report.txt


@dataclass(frozen=True)
class Repeats:
    """Images that are there twice without being a leak: warnings, and a line of the report for each image."""

    warnings: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()


class StoredImages:
    """Digest, part, class and place of every stored image of one modality, equal images side by side."""

    def __init__(self, folder: Path, shards: Sequence[ShardInfo], modality: Modality) -> None:
        self.folder = folder
        self.shards = [s for s in shards if s.modality is modality]
        digests = [read_digests(folder / s.file)[:, :16] for s in self.shards]
        labels = [read_index(folder / s.file).labels for s in self.shards]
        sizes = [len(d) for d in digests]
        raw = np.ascontiguousarray(np.concatenate(digests)) if digests else np.empty((0, 16), np.uint8)
        halves = raw.view(">u8").reshape(-1, 2)
        part = np.repeat([_ORDER.index(s.part) for s in self.shards], sizes)
        order = np.lexsort((np.arange(len(halves)), part, halves[:, 1], halves[:, 0]))
        self.keys, self.part = raw.view("V16").reshape(-1)[order], part[order]
        self.label = (np.concatenate(labels) if labels else np.empty(0, np.int32))[order]
        self.shard = np.repeat(np.arange(len(sizes)), sizes)[order]
        self.row = np.concatenate([np.arange(n) for n in sizes])[order] if sizes else np.empty(0, np.int64)
        same = np.zeros(len(raw), bool)
        same[1:] = self.keys[1:] == self.keys[:-1]
        self.first = np.maximum.accumulate(np.where(same, 0, np.arange(len(raw))))
        """For each image, the number of the first one that is equal to it."""
        self._sources: dict[int, list[str]] = {}

    def source(self, i: int) -> str:
        """The original path of image `i`."""
        shard = int(self.shard[i])
        if shard not in self._sources:
            self._sources[shard] = read_sources(self.folder / self.shards[shard].file)
        return self._sources[shard][int(self.row[i])]

    def leaks(self) -> list[Leak]:
        """Images of a part that are, byte for byte, in another part that they must not be in."""
        found = []
        for i in np.flatnonzero(self.part != self.part[self.first]).tolist():
            first = int(self.first[i])
            own, other = _ORDER[self.part[i]], _ORDER[self.part[first]]
            where = f"{own}, and {other} as {self.source(first)}"
            found.append(Leak(kind=_KIND[other], what=self.source(i), where=where))
        return found

    def in_two_classes(self) -> list[tuple[int, int]]:
        """Pairs of equal images of one part that have different labels."""
        twice = (self.label != self.label[self.first]) & (self.part == self.part[self.first])
        return [(int(self.first[i]), int(i)) for i in np.flatnonzero(twice)]

    def copies(self) -> list[tuple[int, int]]:
        """Pairs of equal images of one part and class."""
        twice = (self.label == self.label[self.first]) & (self.part == self.part[self.first])
        twice &= self.first != np.arange(len(self.first))
        return [(int(self.first[i]), int(i)) for i in np.flatnonzero(twice)]


def find_image_leaks(folder: Path, shards: Sequence[ShardInfo]) -> list[Leak]:
    """Images whose file is, byte for byte, both one to test, validate or hold out with and one that is not: a test
    image that is also in any other part, a validation or hold-out image that is also trained on."""
    return [leak for modality in Modality for leak in StoredImages(folder, shards, modality).leaks()]


def find_saved_again(
    folder: Path, shards: Sequence[tuple[ShardInfo, str]], known: Sequence[Leak]
) -> list[Leak]:
    """Photos that look the same as one of a part that they must not be in, but are other files: of another quality,
    size or format. Each shard with the looks of its photos as hex; `known`: leaks that are found already."""
    photos = [(info, looks) for info, looks in shards if info.modality is Modality.PHOTO]
    part = np.repeat([_ORDER.index(info.part) for info, _ in photos], [info.count for info, _ in photos])
    looks = np.frombuffer(bytes.fromhex("".join(looks for _, looks in photos)), np.uint8).reshape(-1, VALUES)
    pairs = saved_again(looks, part)
    paths = [path for info, _ in photos for path in read_sources(folder / info.file)] if pairs else []
    found, before = [], {leak.what for leak in known}
    for first, again in pairs:
        if paths[again] not in before:
            where = f"{_ORDER[part[again]]}, and {_ORDER[part[first]]} as {paths[first]}"
            found.append(Leak(kind=NEAR, what=paths[again], where=where))
    return found


def told_near(leaks: Sequence[Leak]) -> list[str]:
    """A warning of the photos that are there twice but for how they were saved ([] = none)."""
    near = [leak for leak in leaks if leak.kind == NEAR]
    if not near:
        return []
    examples = "; ".join(f"{leak.what} is in {leak.where}" for leak in near[:FEW])
    more = f", and {len(near) - FEW:,} more" if len(near) > FEW else ""
    looks = "looks" if len(near) == 1 else "look"
    return [
        f"{counted(len(near), 'photo')} {looks} the same as one of another part, saved in another quality, size or format: "
        f"{examples}{more}. Recorded as leaks, all of them in the report; look at them, and leave the copies out to be "
        f"rid of them"
    ]


def find_repeats(folder: Path, shards: Sequence[ShardInfo], classes: Sequence[ClassInfo]) -> Repeats:
    """Images in two classes or twice in one, and sketches that are, byte for byte, photos."""
    warnings: list[str] = []
    notes: list[Note] = []
    stored = {modality: StoredImages(folder, shards, modality) for modality in Modality}
    for modality, images in stored.items():
        pairs = images.in_two_classes()
        names = [(classes[images.label[a]].name, classes[images.label[b]].name) for a, b in pairs]
        for (one, other), number in Counter(names).most_common(FEW):
            what = counted(number, modality.word)
            is_in = "is" if number == 1 else "are"
            warnings.append(
                f"{what} of {other!r} {is_in}, byte for byte, in {one!r} too: images in two classes"
            )
        if len(set(names)) > FEW:
            warnings.append(f"{counted(len(pairs), 'image')} in two classes in all, listed in the report")
        notes += [("two classes", images.source(b), f"is also {images.source(a)}") for a, b in pairs]
        if copies := images.copies():
            first = f"{images.source(copies[0][1])} of {images.source(copies[0][0])}"
            are, their = ("is a copy", "its") if len(copies) == 1 else ("are copies", "their")
            warnings.append(
                f"{counted(len(copies), modality.word)} {are}, byte for byte, of another one of {their} class (first: "
                f"{first}); --dedup leaves copies out"
            )
            notes += [("copy", images.source(b), f"is also {images.source(a)}") for a, b in copies]
    sketches, photos = stored[Modality.SKETCH], stored[Modality.PHOTO]
    same = np.flatnonzero(np.isin(sketches.keys, photos.keys))
    if len(same):
        warnings.append(
            f"{len(same):,} of {counted(len(sketches.keys), 'sketch')} are, byte for byte, photos of the set: was a "
            f"folder of photos given as sketch/?"
        )
        notes += [("sketch is a photo", sketches.source(int(i)), "byte for byte") for i in same]
    return Repeats(tuple(warnings), tuple(notes))


def refuse(leaks: Sequence[Leak], report: Path | None = None) -> None:
    """Raise the error that names the leaks (all of them are in `report`) and the ways out.

    Errors: DataError: always.
    """
    parts = []
    for kind, what in _KINDS.items():
        mine = [leak for leak in leaks if leak.kind == kind]
        if mine:
            shown = listed([leak.what for leak in mine], MOST_NAMED.get(kind, FEW))
            parts.append(f"{len(mine):,} {what}: {shown} ({mine[0].what} is in {mine[0].where})")
    drop = "--dedup to drop the training copies, or with " if all("image" in k.kind for k in leaks) else ""
    where = f" All are listed in {readable(str(report))}." if report and len(leaks) > FEW else ""
    raise DataError(f"{'; '.join(parts)}.{where} Run again with {drop}--allow-leak to keep them on record")
