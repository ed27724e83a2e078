"""Which images a protocol takes as queries and gallery, and which published numbers go with it."""

import numpy as np
import pytest

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.protocols import PROTOCOLS, Stock, build_task, restrict
from zssbir_cli.evaluation.published import SIZES, published
from zssbir_cli.types import Modality, Part

S, P = Modality.SKETCH, Modality.PHOTO


def stock(holdout: bool = True) -> Stock:
    """20 seen classes (0-19), 5 validation (20-24), 10 unseen (25-34); 4 sketches, 6 photos each."""
    seen, val, unseen = np.arange(20), np.arange(20, 25), np.arange(25, 35)
    out = {
        (Part.TRAIN, S): np.repeat(seen, 4), (Part.TRAIN, P): np.repeat(seen, 6),
        (Part.VAL, S): np.repeat(val, 4), (Part.VAL, P): np.repeat(val, 6),
        (Part.TEST, S): np.repeat(unseen, 4), (Part.TEST, P): np.repeat(unseen, 6),
    }  # fmt: skip
    if holdout:
        out[Part.HOLDOUT, S] = np.repeat(seen, 2)
    return out


def sizes(name: str, holdout: bool = True) -> tuple[int, int]:
    task = build_task(name, stock(holdout))
    return sum(len(c.index) for c in task.queries), sum(len(c.index) for c in task.gallery)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zs", (40, 60)),
        ("val", (20, 30)),
        ("gzs-sem-pcyc", (40 + 8, 60 + 12)),
        ("gzs-ocean", (40 + 2 * 2, 60 + 2 * 6)),
        ("gzs-dr-clip", (40 + 4 * 2, 60 + 4 * 6)),
        ("gzs-distractors", (40, 60 + 120)),
        ("gzs-distractors-equal", (40, 60 + 60)),
    ],
)
def test_sizes_of_the_protocols(name: str, expected: tuple[int, int]) -> None:
    assert sizes(name) == expected


def test_zero_shot_protocols_hold_no_training_image_and_only_unseen_classes() -> None:
    for name in ("zs", "val"):
        task = build_task(name, stock())
        wanted = Part.TEST if name == "zs" else Part.VAL
        assert {c.part for c in (*task.queries, *task.gallery)} == {wanted}


def test_seen_queries_come_from_the_holdout_or_are_marked() -> None:
    assert build_task("gzs-ocean", stock()).queries[1].part is Part.HOLDOUT
    task = build_task("gzs-ocean", stock(holdout=False))
    assert task.queries[1].part is Part.TRAIN
    assert any("seen queries were training images" in n for n in task.notes)


def test_the_same_seed_draws_the_same_and_another_one_does_not() -> None:
    a, b, c = (build_task("gzs-sem-pcyc", stock(), seed).gallery[1].index.tolist() for seed in (1, 1, 2))
    assert a == b != c


def test_unknown_protocol_and_missing_parts() -> None:
    with pytest.raises(UsageError, match="--split test: one of zs, val"):
        build_task("test", stock())
    with pytest.raises(DataError, match="unseen classes"):
        build_task("zs", {(Part.TRAIN, S): np.zeros(3, int)})
    with pytest.raises(DataError, match="no photos of seen"):
        build_task("gzs-distractors", {k: v for k, v in stock().items() if k[0] is Part.TEST})


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_subsets_keep_only_their_classes(name: str) -> None:
    labels = stock()
    task = restrict(build_task(name, labels), labels, [1, 21, 22, 26, 27], 3, 0)
    for choice in (*task.queries, *task.gallery):
        found = np.asarray(labels[choice.part, choice.modality])[choice.index]
        assert set(found.tolist()) <= {1, 21, 22, 26, 27}
        assert np.bincount(found, minlength=35).max() <= 3


def test_published_numbers_only_for_the_full_split_zero_shot() -> None:
    rows = published("sketchy-21", "zs", *SIZES["sketchy-21"])
    assert {(r.method, r.measure, r.convention) for r in rows} == {
        ("SAKE", "mAP@200", "voc"), ("SAKE", "P@200", ""), ("ZSE-SBIR", "mAP@200", "voc"), ("ZSE-SBIR", "P@200", ""),
        ("CLIP-AT", "mAP@200", "hits"), ("CLIP-AT", "P@200", ""),
    }  # fmt: skip
    assert not published("sketchy-21", "gzs-ocean", *SIZES["sketchy-21"])
    assert not published("sketchy-21", "zs", 12_694, 10_461)
    assert not published("demo", "zs", 300, 400)
