"""The generalised protocols from data set to numbers: who takes part, and every value, against loops written apart."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from retrieval_helpers import make_run

from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.data.manifest import read_manifest
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.eval import EvalOutcome, evaluate_run
from zssbir_cli.workflows.prepare import prepare_demo

K = 7
PROTOCOLS = ("gzs-sem-pcyc", "gzs-ocean", "gzs-dr-clip", "gzs-distractors", "gzs-distractors-equal")
RECIPE = """
name: tiny
method: {name: triplet, contrast_weight: 1.0}
data: {root: DATA, size: 32, workers: 0}
model: {backbone: test_resnet, weights: none}
"""


@pytest.fixture(scope="module", params=[1, 0], ids=["holdout", "no-holdout"])
def known(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, dict]:
    """A run, its data set (9 unseen, 4 validation classes, the others seen), and of each image, by modality and name,
    its part, class and vector."""
    root = tmp_path_factory.mktemp("generalised")
    chosen = Choices(unseen="9", val_classes=4, holdout=request.param, clean=CleanOptions(size=32), workers=1)
    data = prepare_demo(root / "data", choices=chosen, photos=3, sketches=2).root
    (root / "tiny.yaml").write_text(RECIPE.replace("DATA", str(data)), encoding="utf-8")
    run = make_run(root / "runs" / "one", root / "tiny.yaml")
    parts = [p for p in ("train", "holdout", "val", "test") if p != "holdout" or request.param]
    images = {}
    for file in embed(run, data=data, parts=parts, device="cpu", precision="fp32").files:
        stored = read_embeddings(file)
        for i, name in enumerate(stored.sources):
            image = (
                stored.info.part,
                stored.info.classes[stored.label[i]],
                stored.embedding[i].astype(float),
            )
            images[int(stored.modality[i]), name] = image
    return run, data, images


def result(known: tuple[Path, Path, dict], protocol: str, seed: int) -> EvalOutcome:
    run, data, _ = known
    return evaluate_run(
        run, data=data, split=protocol, seed=seed, k=[K], baselines=False, report=False, device="cpu", precision="fp32"
    )  # fmt: skip


def members(known: tuple[Path, Path, dict], protocol: str, seed: int = 0) -> tuple[list, list, EvalOutcome]:
    """(part, class, vector) of each query and of each photo, by the names in the result."""
    found = result(known, protocol, seed)
    sides = found.evaluation.inputs.query.sources, found.evaluation.inputs.gallery.sources
    assert all(len(set(names)) == len(names) for names in sides)
    queries, gallery = (
        [known[2][int(m), name] for name in names] for m, names in zip((Modality.SKETCH, Modality.PHOTO), sides, strict=True)
    )  # fmt: skip
    return queries, gallery, found


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_takes_part(known: tuple[Path, Path, dict], protocol: str) -> None:
    queries, gallery, _ = members(known, protocol)
    manifest = read_manifest(known[1])
    seen = {c.name for c in manifest.classes_of(Role.SEEN)}
    sketches, photos = (
        {part: Counter(c for (m, _), (p, c, _) in known[2].items() if m == modality and p == part) for part in Part}
        for modality in Modality
    )  # fmt: skip
    held = Part.HOLDOUT if sketches[Part.HOLDOUT] else Part.TRAIN
    in_part = [{p: Counter(c for q, c, _ in side if q == p) for p in Part} for side in (queries, gallery)]
    assert in_part[0][Part.TEST] == sketches[Part.TEST]
    assert in_part[1][Part.TEST] == photos[Part.TEST]
    assert {p for p, *_ in queries} <= {Part.TEST, held}
    assert {p for p, *_ in gallery} <= {Part.TEST, Part.TRAIN}
    more_queries, more_photos = in_part[0][held], in_part[1][Part.TRAIN]
    assert {*more_queries, *more_photos} <= seen
    unseen_sketches, unseen_photos = sketches[Part.TEST].total(), photos[Part.TEST].total()
    if protocol.startswith("gzs-distractors"):
        equal = protocol.endswith("equal")
        assert more_queries.total() == 0
        assert more_photos.total() == (unseen_photos if equal else photos[Part.TRAIN].total())
    elif protocol == "gzs-sem-pcyc":
        sizes = more_queries.total(), more_photos.total()
        assert sizes == (round(0.2 * unseen_sketches), round(0.2 * unseen_photos))
    else:
        added = round(0.2 * (9 if protocol == "gzs-ocean" else len(seen)))
        assert set(more_queries) == set(more_photos)
        assert len(more_queries) == added
        assert all(
            more_queries[c] == sketches[held][c] and more_photos[c] == photos[Part.TRAIN][c]
            for c in more_photos
        )


def naive(query: tuple, gallery: list) -> dict[str, float]:
    """Every measure of one query, by going through its ranking photo by photo; {} where nothing is relevant."""
    _, wanted, vector = query
    cosines = [float(v @ vector / np.linalg.norm(v) / np.linalg.norm(vector)) for _, _, v in gallery]
    ranking = [gallery[i][1] == wanted for i in sorted(range(len(gallery)), key=lambda i: -cosines[i])]
    relevant, hits, precisions = sum(ranking), 0, []
    if not relevant:
        return {}
    for rank, hit in enumerate(ranking, 1):
        hits += hit
        if hit:
            precisions.append((rank, hits / rank))
    near = [p for rank, p in precisions if rank <= K]
    best_later = [max(p for _, p in precisions[i:]) for i in range(relevant)]
    best_near = [max(near[i:]) for i in range(len(near))]
    all_plain = sum(p for _, p in precisions) / relevant
    return {
        "mAP@all voc": sum(best_later) / relevant, "mAP@all plain": all_plain, "mAP@all hits": all_plain,
        "mAP@all trec": all_plain, f"mAP@{K} voc": sum(best_near) / min(K, relevant),
        f"mAP@{K} plain": sum(near) / min(K, relevant), f"mAP@{K} hits": sum(near) / len(near) if near else 0.0,
        f"mAP@{K} trec": sum(near) / relevant, f"P@{K}": sum(ranking[:K]) / K,
        f"P@min({K},R)": sum(ranking[: min(K, relevant)]) / min(K, relevant), f"recall@{K}": sum(ranking[:K]) / relevant,
        "R-precision": sum(ranking[:relevant]) / relevant,
    }  # fmt: skip


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_value_is_that_of_a_plain_loop(
    known: tuple[Path, Path, dict], protocol: str, seed: int
) -> None:
    """Over all queries, over the seen and over the unseen ones, and the harmonic mean of these two means."""
    queries, gallery, found = members(known, protocol, seed)
    values = [naive(query, gallery) for query in queries]
    told = found.as_json()
    assert told["queries_counted"] == sum(map(bool, values))
    shown = {f"{m['name']} {m['convention']}".strip(): m["value"] for m in told["measures"]}
    assert shown.keys() == next(filter(None, values)).keys()
    for name, value in shown.items():
        assert value == pytest.approx(np.mean([v[name] for v in values if v]), abs=1e-6), name
    counted = {part == Part.TEST for v, (part, *_) in zip(values, queries, strict=True) if v}
    if counted != {True, False}:
        assert told["groups"] == {}
        missing = any("none of the seen queries has a relevant photo" in note for note in told["notes"])
        assert missing is (not protocol.startswith("gzs-distractors"))
        return
    for name in shown:
        unseen, seen = (
            np.mean(
                [
                    v[name]
                    for v, (part, *_) in zip(values, queries, strict=True)
                    if v and (part == Part.TEST) is right
                ]
            )
            for right in (True, False)
        )
        harmonic = 2 / (1 / seen + 1 / unseen) if seen and unseen else 0.0
        assert told["groups"]["seen"][name] == pytest.approx(seen, abs=1e-6), name
        assert told["groups"]["unseen"][name] == pytest.approx(unseen, abs=1e-6), name
        assert told["groups"]["harmonic"][name] == pytest.approx(harmonic, abs=1e-6), name
