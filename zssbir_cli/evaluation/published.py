"""Published numbers, each with its split, measure and convention; shown only beside results that compare.

Each names the paper whose tables it is from. Conventions are those of the published programs: SAKE and ZSE-SBIR evaluate
`voc`, CLIP-AT `hits` (torchmetrics). Methods whose convention is not known are left out. For k below the number of
relevant photos P@k is the same for all.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One number of a paper, in percent; `source`: the paper's arXiv number."""

    method: str
    year: int
    backbone: str
    split: str
    measure: str
    convention: str
    value: float
    source: str

    @property
    def title(self) -> str:
        """How it stands in a table."""
        return f"{self.measure}, {self.method} {self.year} ({self.source})"


SIZES = {
    "sketchy-25": (15_229, 17_101),
    "sketchy-21": (12_694, 12_553),
    "tuberlin-30": (2_400, 27_989),
    "quickdraw-30": (92_291, 54_151),
}
"""Test sketches and test photos of the splits; a result on another gallery does not compare."""

_MEASURES = {
    "sketchy-25": ("mAP@all", "P@100"),
    "sketchy-21": ("mAP@200", "P@200"),
    "tuberlin-30": ("mAP@all", "P@100"),
    "quickdraw-30": ("mAP@all", "P@200"),
}
_ROWS: tuple[tuple[str, int, str, str, str, tuple[tuple[float, float] | None, ...]], ...] = (
    ("SAKE", 2019, "CSE-ResNet50", "voc", "arXiv:1904.03208",
     ((54.7, 69.2), (49.7, 59.8), (47.5, 59.9), (13.0, 17.9))),
    ("ZSE-SBIR", 2023, "ViT-B/16", "voc", "arXiv:2303.14348",
     ((73.6, 80.8), (50.4, 60.2), (56.9, 63.7), (14.2, 20.2))),
    ("CLIP-AT", 2023, "CLIP ViT-B", "hits", "arXiv:2303.13440",
     (None, (72.3, 72.5), (65.1, 73.2), (20.2, 38.8))),
)  # fmt: skip


def published(split: str, protocol: str, queries: int, gallery: int) -> list[Published]:
    """Numbers that compare with a result: zero-shot, one of the four splits, its full queries and gallery."""
    if protocol != "zs" or SIZES.get(split) != (queries, gallery):
        return []
    place = list(_MEASURES).index(split)
    found = []
    for method, year, backbone, convention, source, values in _ROWS:
        if (pair := values[place]) is not None:
            for measure, value in zip(_MEASURES[split], pair, strict=True):
                rule = convention if measure.startswith("mAP") else ""
                found.append(Published(method, year, backbone, split, measure, rule, value, source))
    return found
