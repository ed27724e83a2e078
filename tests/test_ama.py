"""AMA's method: what it learns from, what it keeps, what it refuses."""

import ama_helpers as helpers
import numpy as np
import pytest
import torch

from zssbir_cli.methods.base import Position
from zssbir_cli.types import Modality


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_all_losses_run_and_every_trainable_parameter_learns(backbone):
    method, batch, _ = helpers.ready(backbone)
    output = method(batch)
    output.loss.backward()
    assert {k for k in output.logs if k.startswith("loss/")} == {
        "loss/distill_sketch", "loss/distill_photo", "loss/cluster_sketch", "loss/cluster_photo",
        "loss/guidance_sketch", "loss/guidance_photo", "loss/alignment",
    }  # fmt: skip
    assert [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(not p.requires_grad for n, p in method.named_parameters() if n.startswith("teacher"))


def test_total_is_the_published_sum():
    method, batch, _ = helpers.ready(method__distill_sketch=2.0, method__guidance=0.02, method__alignment=0.1)
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
    method, batch, _ = helpers.ready(method__center_momentum=0.9999)
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
    method, _, _ = helpers.ready("test_resnet")
    before = {k: v.clone() for k, v in method.state_dict().items()}
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1.0)
        method.student_head.mlp[0].bias.add_(1.0)
        for b in method.student.buffers():
            b.add_(3)
    method.after_step(helpers.at(0), torch.zeros(()))
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
    method, batch, _ = helpers.ready(method__centers=centers)
    with torch.no_grad():
        views = {m: batch[f"{m}_global"].transpose(0, 1).flatten(0, 1) for m in ("sketch", "photo")}
        means = [method.teacher_head(method.teacher(v).embedding).mean(0) for v in views.values()]
        method(batch)
    expected = torch.stack(means) * 0.1
    if centers == "shared":
        expected = expected.mean(0, keepdim=True)
    torch.testing.assert_close(method.centers, expected, rtol=1e-4, atol=1e-6)


def test_retrieval_uses_the_teacher_alone():
    method, batch, _ = helpers.ready()
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
    method.before_step(helpers.at(1))
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
