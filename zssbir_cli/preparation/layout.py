"""The layout of a user's own data: `sketch/<class>/*` and `photo/<class>/*`, in folders or archives."""

import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import PurePosixPath

from zssbir_cli.errors import DataError
from zssbir_cli.names import class_key, counted, listed, readable, side_by_side
from zssbir_cli.preparation.kinds import JUNK, is_picture_name, may_be_picture
from zssbir_cli.preparation.masks import MASK_FOLDERS, MaskFiles
from zssbir_cli.preparation.sources import ARCHIVE_SUFFIXES, Source
from zssbir_cli.types import Modality, Part, Role

MODALITY_OF_FOLDER = {
    "sketch": Modality.SKETCH,
    "sketches": Modality.SKETCH,
    "photo": Modality.PHOTO,
    "photos": Modality.PHOTO,
    "image": Modality.PHOTO,
    "images": Modality.PHOTO,
}
_OTHER = {Modality.SKETCH: Modality.PHOTO, Modality.PHOTO: Modality.SKETCH}
PART_OF_ROLE = {Role.SEEN: Part.TRAIN, Role.VAL: Part.VAL, Role.UNSEEN: Part.TEST}
SPLIT_FOLDERS = {"train", "training", "val", "valid", "validation", "test", "testing"}
OF_PROGRAMS = JUNK | {".ipynb_checkpoints", ".git", ".cache", ".thumbnails", ".appledouble", ".trashes"}
"""Hidden folders that are nobody's class."""
FEW_REMARKS = 3
FOLDERS_ABOVE = 2
"""At most this many folders may lie above sketch/ and photo/."""

OUTSIDE = "outside of sketch/ and photo/"
LOOSE = "directly in sketch/ or photo/, not in a class folder"
DEEPER = "deeper than <class>/<file>"


@dataclass
class ClassFiles:
    """The images of a user's data: for each class and modality, entry numbers per source.

    `names`: class key -> the name shown. `left_out`: what is not in `entries`, with the reason. `strip`: for
    each source, how much of its paths to leave out of the stored ones. `masks`: (source, entry) of a photo ->
    entry of its object mask. `lone`: names of the classes of which only one modality is there.
    """

    names: dict[str, str] = field(default_factory=dict)
    entries: dict[str, dict[Modality, list["array[int]"]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    strip: list[int] = field(default_factory=list)
    masks: dict[tuple[int, int], int] = field(default_factory=dict)
    lone: dict[Modality, list[str]] = field(default_factory=dict)

    def without_lone(self) -> "ClassFiles":
        """Only the classes with both sketches and photos; the others are named in `left_out`."""
        whole = {key: of for key, of in self.entries.items() if len(of) == 2}
        names = {key: self.names[key] for key in whole}
        told = [f"{_having(self.lone[m])} no {other.plural}" for m, other in _OTHER.items() if m in self.lone]
        return replace(self, names=names, entries=whole, left_out=[*self.left_out, *told], lone={})

    def told_lone(self) -> list[str]:
        """A sentence for each modality that some classes lack, where these classes are kept."""
        what = {
            Modality.SKETCH: "no photos: their sketches are queries that no photo answers",
            Modality.PHOTO: "no sketches: their photos are in the gallery, relevant to no query",
        }
        return [f"{_having(names)} {what[modality]}" for modality, names in self.lone.items()]


def find_images(sources: Sequence[Source]) -> ClassFiles:
    """Sort the files of scanned sources into classes, those of one modality included.

    Errors: DataError: no class has both sketches and photos, or folders side by side whose names are one class.
    """
    files, passed, spellings, masks = ClassFiles(), _PassedOver(), _Spellings(), MaskFiles()
    above: list[set[str]] = [set() for _ in sources]
    for number, source in enumerate(sources):
        for entry, path in enumerate(source.listing.paths):
            place = _place_of_folder(path.rpartition("/")[0])
            if isinstance(place, str) or not may_be_picture(path):
                passed.add(path, place if isinstance(place, str) else "")
                continue
            modality, folder, top = place
            if modality is None:
                masks.add(number, entry, path)
                continue
            above[number].add(path[:top])
            of_class = files.entries.setdefault(spellings.key(modality, folder), {})
            if modality not in of_class:
                of_class[modality] = [array("i") for _ in sources]
            of_class[modality][number].append(entry)
    files.names = spellings.shown()
    files.strip = [len(next(iter(tops))) if len(tops) == 1 else 0 for tops in above]
    files.warnings = _own_split(set().union(*above))
    if not any(len(of) == 2 for of in files.entries.values()):
        raise DataError(_nothing_found(sources, files, passed))
    files.masks = masks.pair(_photos(files, sources))
    files.left_out = [*passed.told(), *masks.left_out(), *passed_over(sources)]
    for modality in Modality:
        if lone := sorted(files.names[key] for key, of in files.entries.items() if [*of] == [modality]):
            files.lone[modality] = lone
    return files


def passed_over(sources: Sequence[Source]) -> list[str]:
    """A sentence for each kind of thing that lies in the sources and is not listed."""
    hidden = sorted(
        folder
        for source in sources
        for folder in source.listing.hidden
        if (place := PurePosixPath(folder.lower())).parent.name in MODALITY_OF_FOLDER
        and place.name not in OF_PROGRAMS
    )
    told = [remark for source in sources for remark in source.listing.remarks]
    if len(told) > FEW_REMARKS:
        told = [*told[:FEW_REMARKS], f"{len(told) - FEW_REMARKS:,} more like these"]
    if hidden:
        told.append(
            f"{counted(len(hidden), 'hidden folder')} in sketch/ or photo/ (first: {readable(hidden[0])})"
        )
    return told


def _photos(files: ClassFiles, sources: Sequence[Source]) -> Iterator[tuple[int, int, str]]:
    """(source number, entry, path) of all photos."""
    for of_class in files.entries.values():
        for number, entries in enumerate(of_class.get(Modality.PHOTO, ())):
            for entry in entries:
                yield number, entry, sources[number].listing.paths[entry]


@lru_cache(1024)
def _place_of_folder(folder: str) -> tuple[Modality | None, str, int] | str:
    """(modality, None for masks; class folder; length of what lies above) of a folder's files, or why they are
    passed over."""
    parts = folder.split("/")
    if len(parts) >= 2 and len(parts) <= FOLDERS_ABOVE + 2:
        kind = parts[-2].lower()
        if kind in MODALITY_OF_FOLDER or kind in MASK_FOLDERS:
            return MODALITY_OF_FOLDER.get(kind), parts[-1], sum(len(p) + 1 for p in parts[:-2])
    if parts[-1].lower() in MODALITY_OF_FOLDER:
        return LOOSE
    return DEEPER if any(p.lower() in MODALITY_OF_FOLDER for p in parts) else OUTSIDE


class _Spellings:
    """The class folders' names: one class in each modality is one folder name."""

    def __init__(self) -> None:
        self._folders: dict[tuple[str, Modality], set[str]] = {}
        self._keys: dict[str, str] = {}

    def key(self, modality: Modality, folder: str) -> str:
        """The key of a class folder."""
        key = self._keys.get(folder)
        if key is None:
            key = self._keys[folder] = class_key(readable(folder))
        self._folders.setdefault((key, modality), set()).add(folder)
        return key

    def shown(self) -> dict[str, str]:
        """A name for each key: as the photos' folder spells it.

        Errors: DataError: folders of one modality have one key.
        """
        clashes = [
            f"{modality.plural} of {side_by_side(names)}"
            for (_, modality), names in sorted(self._folders.items())
            if len(names) > 1
        ]
        if clashes:
            raise DataError(
                f"class folders that differ only in case, spaces, punctuation or Unicode form: "
                f"{'; '.join(clashes[:5])}{f'; and {len(clashes) - 5} more' if len(clashes) > 5 else ''}. "
                f"Rename them, or merge them where they are one class"
            )
        names: dict[str, str] = {}
        for (key, _), folders in sorted(self._folders.items()):  # photos come after sketches
            names[key] = readable(unicodedata.normalize("NFC", next(iter(folders))))
        return names


class _PassedOver:
    """Files that are not taken, by reason."""

    def __init__(self) -> None:
        self._count: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], str] = {}

    def add(self, path: str, where: str) -> None:
        """Note a file that lies `where` ("" = in a class folder, but it is no image)."""
        suffix = "" if is_picture_name(path) else _suffix(path)
        self._count[where, suffix] += 1
        self._first.setdefault((where, suffix), path)

    def told(self, *, everything: bool = False) -> list[str]:
        """A sentence for each reason; files outside of sketch/ and photo/ that are no images are left out unless
        `everything`."""
        return [
            self._sentence(where, suffix, count)
            for (where, suffix), count in sorted(self._count.items())
            if everything
            or not (where == OUTSIDE and suffix and suffix not in (*ARCHIVE_SUFFIXES, ".ndjson"))
        ]

    def _sentence(self, where: str, suffix: str, count: int) -> str:
        first = readable(self._first[where, suffix])
        kind = {"": "image", "no suffix": "file without a suffix"}.get(suffix, f"{suffix} file")
        what = f"{counted(count, kind)}{f' {where}' if where else ' in class folders'} (first: {first})"
        if suffix in ARCHIVE_SUFFIXES:
            return f"{what}: unpack what lies inside, or give it to prepare as a source of its own"
        if suffix == ".ndjson":
            return f"{what}: QuickDraw's strokes, not images; draw each as a PNG in sketch/<class>/ first"
        return f"{what}: not images that zssbir reads" if suffix else what


def _suffix(path: str) -> str:
    name = path.rpartition("/")[2].lower()
    archive = next((s for s in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True) if name.endswith(s)), "")
    return archive or readable(PurePosixPath(name).suffix) or "no suffix"


def _own_split(above: set[str]) -> list[str]:
    """A warning when the data come in train and test folders, which are not looked at."""
    tops = {part.lower() for path in above for part in path.split("/")} & SPLIT_FOLDERS
    if not tops:
        return []
    return [
        f"the images of {'/, '.join(sorted(tops))}/ are taken together; --unseen alone decides which classes are "
        f"unseen (--unseen @FILE takes a list of names)"
    ]


def _having(names: Sequence[str]) -> str:
    one = len(names) == 1
    return f"{'class' if one else 'classes'} {listed(names)} {'has' if one else 'have'}"


def _nothing_found(sources: Sequence[Source], files: ClassFiles, passed: _PassedOver) -> str:
    """What was found instead of classes with sketches and photos, and what to do."""
    where = ", ".join(readable(str(s.path)) for s in sources)
    if not any(len(s.listing.paths) for s in sources):
        return f"{where}: no files; expected sketch/<class>/* and photo/<class>/*"
    sides = []
    for modality in Modality:
        names = sorted(files.names[key] for key, of in files.entries.items() if modality in of)
        kind = modality.plural
        sides.append(
            f"{kind} of {counted(len(names), 'class')} ({listed(names, 3)})" if names else f"no {kind}"
        )
    found = "; ".join([" and ".join(sides), *passed.told(everything=True)[:8]])
    return (
        f"{where}: no class has both sketches and photos; found {found}. "
        f"Expected sketch/<class>/<image> and photo/<class>/<image> (also sketches/, photos/, images/), at most "
        f"{FOLDERS_ABOVE} folders down"
    )
