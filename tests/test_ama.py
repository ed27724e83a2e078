"""AMA's method: what it learns from, what it keeps, what it refuses."""

import argparse
import logging
from pathlib import Path

import ama_helpers as helpers
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.methods.ama.clustering import adapted_k, recluster
from zssbir_cli.methods.ama.data import UnpairedPlan
from zssbir_cli.methods.ama.head import DinoHead
from zssbir_cli.methods.ama.monitors import complaints, teacher_monitors
from zssbir_cli.methods.base import Position
from zssbir_cli.types import Modality


def at(epoch: int, step_in_epoch: int = 1, per_epoch: int = 3, epochs: int = 3) -> Position:
    return Position(epoch * per_epoch + step_in_epoch, per_epoch * epochs, epoch, epochs)


def ready(backbone: str = "test_vit", **changes):
    """Method with clusters, all losses on, and a batch."""
    method, data, probe = helpers.build(helpers.recipe(backbone, **changes))
    method.train()
    method.before_epoch(1, probe)
    method.train()
    method.before_step(at(2))
    return method, helpers.batch_of(data), probe


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_all_losses_run_and_every_trainable_parameter_learns(backbone):
    method, batch, _ = ready(backbone)
    output = method(batch)
    output.loss.backward()
    assert {k for k in output.logs if k.startswith("loss/")} == {
        "loss/distill_sketch", "loss/distill_photo", "loss/cluster_sketch", "loss/cluster_photo",
        "loss/guidance_sketch", "loss/guidance_photo", "loss/alignment",
    }  # fmt: skip
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(not p.requires_grad for n, p in method.named_parameters() if n.startswith("teacher"))


def test_total_is_the_published_sum():
    method, batch, _ = ready(method__distill_sketch=2.0, method__guidance=0.02, method__alignment=0.1)
    method.cluster_weight = 0.3
    out = method(batch)
    log = {k.removeprefix("loss/"): float(v) for k, v in out.logs.items()}
    expected = (
        2.0 * log["distill_sketch"] + log["distill_photo"]
        + 0.3 * (log["cluster_sketch"] + log["cluster_photo"])
        + 0.02 * (log["guidance_sketch"] + log["guidance_photo"]) + 0.1 * log["alignment"]
    )  # fmt: skip
    assert float(out.loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_schedule_of_the_published_method():
    r = helpers.recipe(method__cluster_start=20, method__cluster_full=100, method__pairing_start=40)
    method, _, probe = helpers.build(r)
    seen = {}
    for epoch in (0, 19, 20, 40, 60, 100, 199):
        method.before_step(Position(epoch * 10, 2000, epoch, 200))
        seen[epoch] = (round(method.cluster_weight, 4), method.pairing)
    assert seen == {
        0: (0, False), 19: (0, False), 20: (0, False), 40: (0.125, True), 60: (0.25, True), 100: (0.5, True),
        199: (0.5, True),
    }  # fmt: skip
    assert method.before_epoch(19, probe) == {}
    assert method.before_epoch(20, probe) != {}


def test_overfits_one_batch():
    """With targets that stand still (teacher and centre held) every term of the batch can be learnt."""
    method, batch, _ = ready(method__center_momentum=0.9999)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    totals = []
    for _ in range(50):
        output = method(batch)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        totals.append(float(output.loss.detach()))
    assert totals[-1] < 0.6 * totals[0]


def test_teacher_is_the_average_of_the_student_head_and_buffers_included():
    method, _, _ = ready("test_resnet")
    before = {k: v.clone() for k, v in method.state_dict().items()}
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
        method.student_head.mlp[0].bias.add_(1.0)
        for b in method.student.buffers():
            b.add_(3)
    method.after_step(at(0), torch.zeros(()))
    after = method.state_dict()
    name = "mlp.0.bias"
    torch.testing.assert_close(after[f"teacher_head.{name}"], before[f"teacher_head.{name}"] + 0.1)
    for key in after:
        if key.startswith("teacher.") and "running" in key:
            torch.testing.assert_close(after[key], after[key.replace("teacher.", "student.")])
        elif key.startswith("teacher.") and "num_batches" not in key:
            torch.testing.assert_close(after[key], before[key] + 0.1)


@pytest.mark.parametrize("centers", ["shared", "separate"])
def test_centers_follow_the_teacher(centers):
    method, batch, _ = ready(method__centers=centers)
    with torch.no_grad():
        views = {m: batch[f"{m}_global"].transpose(0, 1).flatten(0, 1) for m in ("sketch", "photo")}
        means = [method.teacher_head(method.teacher(v).embedding).mean(0) for v in views.values()]
        method(batch)
    expected = torch.stack(means) * 0.1
    if centers == "shared":
        expected = expected.mean(0, keepdim=True)
    torch.testing.assert_close(method.centers, expected, rtol=1e-4, atol=1e-6)


def test_retrieval_uses_the_teacher_alone():
    method, batch, _ = ready()
    images = batch["photo_global"][:, 0]
    with torch.no_grad():
        first = method.embed(images, Modality.PHOTO)
        for p in [*method.student.parameters(), *method.student_head.parameters()]:
            p.zero_()
        assert torch.equal(first, method.embed(images, Modality.PHOTO))
    torch.testing.assert_close(first.norm(dim=1), torch.ones(4))
    assert {k.split(".")[0] for k in method.retrieval_state()} == {"teacher"}


def test_permuting_training_labels_changes_no_number(tmp_path):
    r = helpers.recipe()
    one = helpers.run_fit(r, tmp_path / "one", helpers.FakePrepared(label_seed=1)).state_dict()
    other = helpers.run_fit(r, tmp_path / "other", helpers.FakePrepared(label_seed=2)).state_dict()
    labels = [helpers.FakePrepared(label_seed=s).sets[Modality.PHOTO].labels for s in (1, 2)]
    assert not np.array_equal(*labels)
    assert all(torch.equal(one[k], other[k]) for k in one)


def test_labels_are_never_asked_for():
    class Unlabelled(helpers.FakePrepared):
        def __init__(self) -> None:
            super().__init__()
            for images in self.sets.values():
                del images.labels

    method, data, probe = helpers.build(helpers.recipe(), Unlabelled())
    method.before_epoch(1, probe)
    method.before_step(at(1))
    assert torch.isfinite(method(helpers.batch_of(data)).loss)


def test_resumes_bit_for_bit_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    r = helpers.recipe(model__drop_path=0.2, train__checkpoint_every=1, optim__name="adamw", optim__lr=1e-3)
    whole = helpers.run_fit(r, tmp_path / "whole").state_dict()

    class Killed(Exception):
        pass

    original, count = helpers.AmaMethod.after_step, [0]

    def dies(self, progress, skipped):
        original(self, progress, skipped)
        count[0] += 1
        if count[0] == 6:  # the second step of epoch 1 is saved; the third is lost
            raise Killed

    monkeypatch.setattr(helpers.AmaMethod, "after_step", dies)
    with pytest.raises(Killed):
        helpers.run_fit(r, tmp_path / "cut")
    monkeypatch.setattr(helpers.AmaMethod, "after_step", original)
    resumed = helpers.run_fit(r, tmp_path / "cut", resume=True).state_dict()
    assert whole["clusters.photo.labels"].shape == (2, 33)
    assert whole["centers"].abs().sum() > 0
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []


def dino_checkpoint(path: Path, form: str, method) -> dict[str, torch.Tensor]:
    """A full DINO checkpoint with random values in the shapes of `method`, in either weight-norm spelling."""
    generator = torch.Generator().manual_seed(5)
    names = {"weight_g": "last_layer.weight_g", "weight_v": "last_layer.weight_v"}
    if form == "parametrised":
        names = {f"weight_{x}": f"last_layer.parametrizations.weight.original{i}" for i, x in enumerate("gv")}
    content: dict = {
        "epoch": 3,
        "args": argparse.Namespace(arch="vit"),
        "dino_loss": {"center": torch.full((1, 24), 0.5)},
    }
    expected = {}
    for network, prefix in (("student", "module."), ("teacher", "")):
        state = {}
        for key, value in getattr(method, network).backbone.state_dict().items():
            state[f"{prefix}backbone.{key}"] = torch.randn(value.shape, generator=generator)
            expected[f"{network}.backbone.{key}"] = state[f"{prefix}backbone.{key}"]
        for key, value in method.student_head.state_dict().items():
            state[f"{prefix}head.{names.get(key, key)}"] = torch.randn(value.shape, generator=generator)
            expected[f"{network}_head.{key}"] = state[f"{prefix}head.{names.get(key, key)}"]
        content[network] = state
    torch.save(content, path)
    return expected


@pytest.mark.parametrize("form", ["plain", "parametrised"])
def test_a_full_dino_checkpoint_fills_student_teacher_heads_and_centre(tmp_path, form):
    method, _, _ = helpers.build(helpers.recipe())
    expected = dino_checkpoint(tmp_path / "dino.pth", form, method)
    loaded, _, _ = helpers.build(helpers.recipe(model__weights=str(tmp_path / "dino.pth")))
    state = loaded.state_dict()
    assert all(torch.equal(state[k], v) for k, v in expected.items())
    assert {k for k in state if k.startswith(("student", "teacher"))} == set(expected)
    assert torch.equal(loaded.centers, torch.full((1, 24), 0.5))


def test_a_backbone_file_fills_both_encoders_and_says_that_heads_are_random(tmp_path, caplog):
    method, _, _ = helpers.build(helpers.recipe())
    torch.save(method.student.backbone.state_dict(), tmp_path / "vit.pth")
    with caplog.at_level(logging.WARNING):
        loaded, _, _ = helpers.build(helpers.recipe(model__weights=str(tmp_path / "vit.pth"), train__seed=9))
    assert "heads start random" in caplog.text
    for key, value in method.student.backbone.state_dict().items():
        assert torch.equal(loaded.student.backbone.state_dict()[key], value)
        assert torch.equal(loaded.teacher.backbone.state_dict()[key], value)
    for key, value in loaded.student_head.state_dict().items():
        assert torch.equal(loaded.teacher_head.state_dict()[key], value)


def test_a_head_of_another_size_is_refused(tmp_path):
    method, _, _ = helpers.build(helpers.recipe())
    dino_checkpoint(tmp_path / "dino.pth", "plain", method)
    r = helpers.recipe(model__weights=str(tmp_path / "dino.pth"), method__head__out_dim=30)
    with pytest.raises(CheckpointError, match=r"dino\.pth.*weight_g"):
        helpers.build(r)
    r = helpers.recipe(
        model__weights=str(tmp_path / "dino.pth"), method__head__out_dim=30, method__head_weights="none"
    )
    assert helpers.build(r)[0].centers.abs().sum() == 0


def test_a_checkpoint_with_one_head_is_refused(tmp_path):
    method, _, _ = helpers.build(helpers.recipe())
    dino_checkpoint(tmp_path / "dino.pth", "plain", method)
    content = torch.load(tmp_path / "dino.pth", weights_only=False)
    content["teacher"] = {k: v for k, v in content["teacher"].items() if not k.startswith("head.")}
    torch.save(content, tmp_path / "dino.pth")
    with pytest.raises(CheckpointError, match="only its student has a DINO head"):
        helpers.build(helpers.recipe(model__weights=str(tmp_path / "dino.pth")))


def test_a_missing_file_and_a_strangers_file_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match="no such weight file"):
        helpers.build(helpers.recipe(model__weights=str(tmp_path / "none.pth")))
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="does not fit"):
        helpers.build(helpers.recipe(model__weights=str(tmp_path / "other.pth")))


def test_settings_that_ama_does_not_use_are_refused():
    with pytest.raises(UsageError, match=r"data\.flip"):
        helpers.build(helpers.recipe(data__flip=True))
    with pytest.raises(UsageError, match=r"train\.ema"):
        helpers.build(helpers.recipe(train__ema=0.9))


def test_weight_norm_equals_pytorchs():
    r = helpers.recipe()
    head = DinoHead(10, r.method.head)
    linear = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(8, 24, bias=False))
    linear.parametrizations.weight.original0.data = torch.rand(24, 1)
    linear.parametrizations.weight.original1.data = torch.randn(24, 8)
    head.weight_g.data, head.weight_v.data = (p.data for p in linear.parametrizations.weight.parameters())
    x = torch.randn(5, 10)
    torch.testing.assert_close(head(x), linear(F.normalize(head.mlp(x), dim=1)))


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
        f"{n} of {k} clusters (sketch) hold no image: many features are the same" for n, k in ((2, 4), (4, 6))
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
    method, batch, probe = ready(method__cc_relative=False, method__cc_threshold=0.99)
    method(batch)
    with caplog.at_level(logging.WARNING):
        method.before_epoch(2, probe)
        method.before_epoch(3, probe)
    assert caplog.text.count("keeps no sketch image at level 0") == 1
    assert "cc_relative" in caplog.text
