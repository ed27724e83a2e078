"""The named splits: unseen classes, papers that use them, published counts."""

from dataclasses import dataclass, field

from zssbir_cli.benchmarks import classes as c
from zssbir_cli.benchmarks.classes import MISSPELT
from zssbir_cli.errors import UsageError
from zssbir_cli.names import class_key, readable, suggestion


@dataclass(frozen=True)
class Counts:
    """Images of a split as published; None = not published."""

    train_sketches: int | None
    train_photos: int | None
    test_sketches: int | None
    test_photos: int | None


@dataclass(frozen=True)
class Split:
    """A named split of a data set. `holdout`: sketches per seen class that the papers keep out of training."""

    name: str
    dataset: str
    unseen: tuple[str, ...]
    seen: tuple[str, ...]
    papers: str
    holdout: int = 0
    published: Counts = field(default_factory=lambda: Counts(None, None, None, None))
    exact_train: bool = True  # the published training counts are exact, not rounded
    needs_lists: bool = False
    list_order: tuple[str, ...] = ()  # training classes in the order of the published lists (= their ids)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, sorted."""
        return tuple(sorted(self.unseen + self.seen))


def _rest(all_names: tuple[str, ...], unseen: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in all_names if name not in unseen)


SPLITS: dict[str, Split] = {
    split.name: split
    for split in (
        Split(
            "sketchy-25",
            "sketchy",
            c.SKETCHY_25_TEST,
            c.SKETCHY_25_TRAIN,
            "ZSIH (Shen et al. 2018), SAKE, TVT, ZSE-SBIR, TLT, SpLIP, PuXIM",
            50,
            Counts(55_252, 68_401, 15_229, 17_101),
            list_order=c.SKETCHY_25_TRAIN,
        ),
        Split(
            "sketchy-21",
            "sketchy",
            c.SKETCHY_21_TEST,
            _rest(c.SKETCHY, c.SKETCHY_21_TEST),
            "CVAE (Yelamarthi et al. 2018), SAKE, TVT, ZSE-SBIR, CLIP-AT, SketchFusion",
            50,
            Counts(57_587, 72_949, 12_694, 12_553),
        ),
        Split(
            "sketchy-25-sempcyc",
            "sketchy",
            c.SKETCHY_25_SEMPCYC_TEST,
            _rest(c.SKETCHY, c.SKETCHY_25_SEMPCYC_TEST),
            "SEM-PCYC (Dutta and Akata 2019) and its descendants",
            50,
        ),
        Split(
            "sketchy-ambiguity",
            "sketchy",
            c.SKETCHY_25_TEST,
            _rest(c.AMBIGUITY_50_TRAIN, c.SKETCHY_25_TEST),
            "PuXIM (high semantic ambiguity), without its nine test classes",
            50,
            Counts(None, 802, 15_229, 17_101),
            needs_lists=True,
            list_order=c.SKETCHY_25_TRAIN,
        ),
        Split(
            "tuberlin-30",
            "tuberlin",
            c.TUBERLIN_30_TEST,
            c.TUBERLIN_30_TRAIN,
            "ZSIH, SAKE, TVT, ZSE-SBIR, CLIP-AT, TLT, SpLIP, PuXIM",
            10,
            Counts(15_400, 176_500, 2_400, 27_989),
            list_order=c.TUBERLIN_30_TRAIN,
        ),
        Split(
            "tuberlin-30-sempcyc",
            "tuberlin",
            c.TUBERLIN_30_SEMPCYC_TEST,
            _rest(c.TUBERLIN, c.TUBERLIN_30_SEMPCYC_TEST),
            "SEM-PCYC, MA-ZS-SBIR",
            10,
        ),
        Split(
            "quickdraw-30",
            "quickdraw",
            c.QUICKDRAW_30_TEST,
            c.QUICKDRAW_30_TRAIN,
            "Doodle to Search (Dey et al. 2019), SAKE, TVT, ZSE-SBIR, TLT, SpLIP",
            0,
            Counts(236_000, 150_000, 92_291, 54_151),
            exact_train=False,
            list_order=c.QUICKDRAW_30_TRAIN,
        ),
    )
}
DEFAULT_SPLIT = {"sketchy": "sketchy-25", "tuberlin": "tuberlin-30", "quickdraw": "quickdraw-30"}
DATASETS = tuple(DEFAULT_SPLIT)
CLASSES = {"sketchy": c.SKETCHY, "tuberlin": c.TUBERLIN, "quickdraw": c.QUICKDRAW}


def get_split(dataset: str, name: str | None) -> Split:
    """A split of a data set by name (default: the one most papers use).

    Raises:
        UsageError: no such split, or a split of another data set.
    """
    name = name or DEFAULT_SPLIT[dataset]
    split = SPLITS.get(name)
    if split is None or split.dataset != dataset:
        own = ", ".join(s.name for s in SPLITS.values() if s.dataset == dataset)
        raise UsageError(
            f"--split {readable(name)}: {dataset} has the splits {own}{suggestion(name, SPLITS)}"
        )
    return split


def _key(name: str) -> str:
    """`names.class_key` without spaces: among these known names, `Hot Air Balloon` and `hotairballoon` can only
    be `hot-air_balloon`."""
    return class_key(readable(name)).replace(" ", "")


_BY_KEY = {d: {_key(n): n for n in names} | MISSPELT[d] for d, names in CLASSES.items()}


def repair(dataset: str, folder: str) -> str | None:
    """The class a folder's name stands for, known misspellings included; None for a stranger."""
    return _BY_KEY[dataset].get(_key(folder))


def source_of(name: str) -> str:
    """What to prepare so that data/`name` appears: a data set, a named split of one, or a folder."""
    split = SPLITS.get(name)
    if split is not None:
        return f"{split.dataset} --split {name}"
    return name if name in ("demo", *(s.dataset for s in SPLITS.values())) else f"PICTURES --name {name}"
