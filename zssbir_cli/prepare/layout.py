"""The layout of a user's own data: `sketch/<class>/*` and `photo/<class>/*`, in a folder or an archive."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from zssbir_cli.data.manifest import ClassInfo
from zssbir_cli.errors import DataError
from zssbir_cli.prepare.kinds import may_be_picture
from zssbir_cli.prepare.plan import Items
from zssbir_cli.prepare.roles import class_key
from zssbir_cli.prepare.sources import Source
from zssbir_cli.types import Modality, Part, Role

MODALITY_OF_FOLDER = {
    "sketch": Modality.SKETCH,
    "sketches": Modality.SKETCH,
    "photo": Modality.PHOTO,
    "photos": Modality.PHOTO,
    "image": Modality.PHOTO,
    "images": Modality.PHOTO,
}
PART_OF_ROLE = {Role.SEEN: Part.TRAIN, Role.VAL: Part.VAL, Role.UNSEEN: Part.TEST}


@dataclass
class Found:
    """The images of a user's data: for each class and modality, source and entry numbers."""

    names: dict[str, str] = field(default_factory=dict)  # class key -> the name shown
    entries: dict[str, dict[Modality, list["array[int]"]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def find_images(sources: Sequence[Source]) -> Found:
    """Sort the files of scanned sources into classes.

    Raises:
        DataError: no class has both sketches and photos.
    """
    found, ignored = Found(), Counter[str]()
    for number, source in enumerate(sources):
        for entry, path in enumerate(source.listing.paths):
            place = _place(path)
            if isinstance(place, str):
                ignored[place] += 1
                continue
            modality, name, _ = place
            key = class_key(name)
            found.names.setdefault(key, name)
            of_class = found.entries.setdefault(key, {})
            if modality not in of_class:
                of_class[modality] = [array("i") for _ in sources]
            of_class[modality][number].append(entry)
    found.warnings += [f"{n} {why}" for why, n in sorted(ignored.items()) if why]
    _drop_one_sided(found)
    if not found.entries:
        where = ", ".join(str(s.path) for s in sources)
        raise DataError(
            f"{where}: no class has both sketches and photos; expected sketch/<class>/* and photo/<class>/* "
            f"(also sketches/, photos/, images/), at the top or one level below"
        )
    return found


def _place(path: str) -> tuple[Modality, str, int] | str:
    """(modality, class, length of the top folder) of a file, or why it is ignored ("" = silently)."""
    place = _place_of_folder(path.rpartition("/")[0])
    if isinstance(place, str) or may_be_picture(path):
        return place
    return "files in class folders are not images by their suffix; ignored"


@lru_cache(1024)
def _place_of_folder(folder: str) -> tuple[Modality, str, int] | str:
    parts = folder.split("/")
    for depth, name in enumerate(parts[:2]):
        modality = MODALITY_OF_FOLDER.get(name.lower())
        if modality is None:
            continue
        rest = parts[depth + 1 :]
        if not rest:
            return "files lie directly in sketch/ or photo/, not in a class folder; ignored"
        if len(rest) > 1:
            return "files lie deeper than <class>/<file>; ignored"
        return modality, rest[0], len(parts[0]) + 1 if depth else 0
    return ""


def _drop_one_sided(found: Found) -> None:
    """Leave out classes without sketches or without photos, with a warning."""
    for key in sorted(found.entries):
        if len(found.entries[key]) == 1:
            lacking = "photos" if Modality.SKETCH in found.entries[key] else "sketches"
            found.warnings.append(f"class {found.names[key]!r} has no {lacking}; left out")
            del found.entries[key], found.names[key]


def to_items(
    found: Found,
    sources: Sequence[Source],
    classes: Sequence[ClassInfo],
    *,
    holdout: int,
    subset: int | None,
    seed: int,
) -> Items:
    """Choose each image's part from its class's role.

    `holdout`: sketches per seen class that are kept out of training. `subset`: at most this many images per
    class and modality. Both draw by `seed`, independently of the order of files.
    """
    items, by_name = Items(), {c.name: c for c in classes}
    for key in sorted(found.entries):
        info = by_name[found.names[key]]
        for modality in Modality:
            rows = _by_path(sources, found.entries[key][modality])
            order = np.random.default_rng([seed, info.id, int(modality)]).permutation(len(rows))
            for place, i in enumerate(order[:subset]):
                path, source, entry = rows[i]
                held = info.role is Role.SEEN and modality is Modality.SKETCH and place < holdout
                part = Part.HOLDOUT if held else PART_OF_ROLE[info.role]
                size = sources[source].listing.sizes[entry]
                items.add(path, source, entry, info.id, part, modality, size)
    return items


def _by_path(sources: Sequence[Source], entries: Sequence["array[int]"]) -> list[tuple[str, int, int]]:
    """(path without the top folder, source, entry) of one class's images, sorted."""
    rows = []
    for number, source in enumerate(sources):
        for entry in entries[number]:
            path = source.listing.paths[entry]
            place = _place(path)
            assert not isinstance(place, str)
            rows.append((path[place[2] :], number, entry))
    return sorted(rows)
