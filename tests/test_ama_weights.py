"""AMA from checkpoints of DINO and of plain backbones, and what it refuses."""

import argparse
import logging
from pathlib import Path

import ama_helpers as helpers
import pytest
import torch
import torch.nn.functional as F

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.methods.ama.head import DinoHead


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
