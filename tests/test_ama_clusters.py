"""AMA's clusters, its plan of unpaired rows, and its warnings of collapse."""

import logging

import ama_helpers as helpers
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zssbir_cli.errors import DataError
from zssbir_cli.methods.ama.clustering import adapted_k, recluster
from zssbir_cli.methods.ama.data import UnpairedPlan
from zssbir_cli.methods.ama.losses import complaints, teacher_monitors
from zssbir_cli.types import Modality


def test_clusters_shrink_with_the_data_and_say_so():
    assert adapted_k([250, 500, 1000], 100_000, 0.25) == (250, 500, 1000)
    assert adapted_k([250, 500, 1000], 2000, 0.25) == (125, 250, 500)
    assert adapted_k([250, 500, 1000], 13, 0.25) == (2, 3, 4)
    with pytest.raises(DataError, match="too few"):
        adapted_k([250, 500, 1000], 3, 0.25)
    method, _, _ = helpers.build(helpers.recipe(method__clusters__k=[4, 40]))
    said = []
    features = {m: F.normalize(torch.randn(30 + int(m), 64), dim=1) for m in Modality}
    values = recluster(
        {m: method._clusters(m) for m in Modality},
        features,
        helpers.recipe(method__clusters__k=[4, 40]).method.clusters,
        said.append,
    )
    assert "30 training images (sketch): 2, 15 clusters instead of 4, 40" in said[0]
    assert {"clusters/similarity_sketch_2", "clusters/similarity_photo_15"} <= set(values)


def test_clusters_without_an_image_are_logged():
    r = helpers.recipe(method__clusters__k=[4, 6])
    method, _, _ = helpers.build(r)
    said: list[str] = []
    few = F.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    features = {
        Modality.SKETCH: few[:2].repeat(15, 1),
        Modality.PHOTO: F.normalize(torch.randn(30, 64, generator=torch.Generator().manual_seed(1)), dim=1),
    }
    values = recluster({m: method._clusters(m) for m in Modality}, features, r.method.clusters, said.append)
    assert {k: values[f"clusters/empty_sketch_{k}"] for k in (4, 6)} == {4: 2, 6: 4}
    assert {k: values[f"clusters/empty_photo_{k}"] for k in (4, 6)} == {4: 0, 6: 0}
    assert said == [
        f"{n} of {k} clusters (sketch) hold no image: many features are identical"
        for n, k in ((2, 4), (4, 6))
    ]


def test_a_warm_start_continues_from_the_last_centroids():
    features = {
        m: F.normalize(torch.randn(60, 64, generator=torch.Generator().manual_seed(m)), dim=1)
        for m in Modality
    }
    found = {}
    for warm in (True, False):
        r = helpers.recipe(
            method__clusters__k=[3, 8], method__clusters__warm_start=warm, method__clusters__iterations=1
        )
        method, _, _ = helpers.build(r)
        clusters = {m: method._clusters(m) for m in Modality}
        runs = []
        for _ in range(2):
            recluster(clusters, features, r.method.clusters, print)
            runs.append(clusters[Modality.PHOTO].prototypes()[1])
        found[warm] = torch.allclose(*runs)  # one pass assigns and moves nothing
    assert found == {True: True, False: False}


def test_a_plan_visits_every_image_once_per_pass():
    plan = UnpairedPlan(sketches=10, photos=24, batch_size=4, steps_per_epoch=6, seed=3)
    first, second = plan.batches(0), plan.batches(1)
    assert sorted(first[..., 1].ravel()) == list(range(24))
    both = np.concatenate([first[..., 0].ravel(), second[..., 0].ravel()])
    for n in range(4):
        assert sorted(both[n * 10 : (n + 1) * 10]) == list(range(10))
    assert np.array_equal(first, plan.batches(0))
    assert not np.array_equal(first, UnpairedPlan(10, 24, 4, 6, 4).batches(0))


def test_monitors_tell_collapse_from_health():
    images, k = 16, 32
    healthy = F.one_hot(torch.arange(images) % k, k).float()[None].expand(2, -1, -1)
    uniform, single = torch.full((2, images, k), 1 / k), F.one_hot(torch.zeros(2, images).long(), k).float()
    features = F.normalize(torch.randn(2 * images, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    seen = {
        n: teacher_monitors(t, features)
        for n, t in (("healthy", healthy), ("uniform", uniform), ("single", single))
    }
    assert seen["healthy"]["spread"] == pytest.approx(1.0)
    assert seen["healthy"]["entropy"] == pytest.approx(0.0, abs=1e-5)
    assert seen["uniform"]["entropy"] == pytest.approx(1.0)
    for name in ("uniform", "single"):
        assert seen[name]["spread"] == pytest.approx(0.0, abs=1e-5)
        assert "same target" in complaints({"monitor/spread_photo": float(seen[name]["spread"])})[0]
    fine = {"monitor/spread_photo": 1.0, "monitor/rank_photo": 5.0, "clusters/kept_photo_0": 0.1}
    assert complaints(fine) == []
    line = torch.linspace(-1, 1, 32)[:, None] * torch.ones(1, 8) + torch.eye(8)[0] * 3
    assert float(teacher_monitors(healthy, line)["rank"]) < 2
    assert float(seen["healthy"]["rank"]) > 4


def test_no_anchor_kept_is_warned_about_once_per_level(caplog):
    method, batch, probe = helpers.ready(method__cc_relative=False, method__cc_threshold=0.99)
    method(batch)
    with caplog.at_level(logging.WARNING):
        method.before_epoch(2, probe)
        method.before_epoch(3, probe)
    assert caplog.text.count("keeps no sketch image at level 0") == 1
    assert "cc_relative" in caplog.text
