"""Which file of a downloaded or repacked benchmark is what: from its path alone.

Accepted for each data set: the original layout, the `_ready` one of the repacks, and plain
`sketch(es)/<class>/*` with `photo(s)/<class>/*` or `images/<class>/*`; at any depth.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from zssbir_cli.preparation.layout import MODALITY_OF_FOLDER
from zssbir_cli.types import Modality


class Kind(StrEnum):
    """Where in a benchmark an image belongs. EXTEND is Sketchy's second set of photos (Liu et al. 2017)."""

    SKETCH = "sketch"
    PHOTO = "photo"
    EXTEND = "extend"

    @property
    def modality(self) -> Modality:
        return Modality.SKETCH if self is Kind.SKETCH else Modality.PHOTO


# The path under which the published lists name an image, by kind.
PUBLISHED: dict[str, dict[Kind, str]] = {
    "sketchy": {
        Kind.SKETCH: "256x256/sketch/tx_000000000000_ready",
        Kind.PHOTO: "256x256/photo/tx_000000000000_ready",
        Kind.EXTEND: "EXTEND_image_sketchy_ready",
    },
    "tuberlin": {Kind.SKETCH: "png_ready", Kind.PHOTO: "ImageResized_ready"},
    "quickdraw": {Kind.SKETCH: "sketches", Kind.PHOTO: "images"},
}

DATASETS = tuple(PUBLISHED)
_GENERAL = {folder: Kind[modality.name] for folder, modality in MODALITY_OF_FOLDER.items()}
_OWN: dict[str, tuple[tuple[str, Kind], ...]] = {
    "sketchy": ((r"extend(_image)?(_sketchy)?(_ready)?", Kind.EXTEND), (r"ambiguity", Kind.EXTEND)),
    "tuberlin": ((r"(sketches_)?png(_ready)?", Kind.SKETCH), (r"imageresized(_ready)?", Kind.PHOTO)),
    "quickdraw": ((r"quickdraw_sketches(_final)?", Kind.SKETCH), (r"quickdraw_images(_final)?", Kind.PHOTO)),
}
_TX = re.compile(r"tx_(\d{12})(_ready)?")


@dataclass(frozen=True)
class Match:
    """A file of a benchmark: its kind, the class folder's name, its name, and whether it is a `_ready` file."""

    kind: Kind
    folder: str
    file: str
    ready: bool


def match(dataset: str, path: str) -> Match | str:
    """What a path (with `/` or `\\`) is, or why it is ignored ("" = it lies elsewhere).

    >>> match("sketchy", "Sketchy/EXTEND_image_sketchy_ready/cup/ext_1.jpg").kind
    <Kind.EXTEND: 'extend'>
    """
    parts = path.replace("\\", "/").split("/")
    if len(parts) < 3:
        return ""
    marker, at = parts[-3], -3
    tx = _TX.fullmatch(marker.lower())
    if tx and len(parts) >= 4:
        if set(tx.group(1)) != {"0"}:
            return "augmented copies (tx_...) of the originals"
        marker, at = parts[-4], -4
    kind = _kind(dataset, marker.lower())
    if kind is None or (tx and kind is Kind.EXTEND):
        return ""
    return Match(kind, parts[-2], parts[-1], "_ready" in parts[-3].lower() or "_ready" in parts[at].lower())


def _kind(dataset: str, marker: str) -> Kind | None:
    for pattern, kind in _OWN[dataset]:
        if re.fullmatch(pattern, marker):
            return kind
    return _GENERAL.get(marker)


_MARKS = {
    "sketchy": r"tx_\d{12}(_ready)?|extend_image_sketchy(_ready)?",
    "tuberlin": r"(sketches_)?png_ready|imageresized(_ready)?",
    "quickdraw": r"quickdraw_(sketches|images)(_final)?",
}


def recognise(paths: Iterable[str]) -> str | None:
    """The benchmark that has folders of these names, None when there is none."""
    folders = {folder.lower() for path in paths for folder in path.split("/")[:-1]}
    for dataset, marks in _MARKS.items():
        if any(re.fullmatch(marks, folder) for folder in folders):
            return dataset
    return None


def published_path(dataset: str, kind: Kind, name: str, file: str) -> str:
    """The path of an image in the published lists."""
    return f"{PUBLISHED[dataset][kind]}/{name}/{file}"
