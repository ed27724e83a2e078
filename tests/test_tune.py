"""`model.tune` and `model.lr_scale`: which weights a run changes, and how fast."""

import pytest
import torch

from zssbir_cli.engine.step import build_optimizer
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Batch
from zssbir_cli.methods.table import build_method
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.recipe.schema import ModelConfig, OptimConfig, Recipe


def trained(name: str, tune: str) -> set[str]:
    backbone = build_encoder(ModelConfig(backbone=name, weights="none", tune=tune), 64).backbone
    return {n for n, p in backbone.named_parameters() if p.requires_grad}


def test_norms_are_every_norm_layers_own_weights_and_nothing_else():
    for name in ("test_vit", "test_resnet", "test_convnext", "mobilenetv2_100"):
        backbone = build_encoder(ModelConfig(backbone=name, weights="none"), 64).backbone
        norms = {
            n
            for n, p in backbone.named_parameters()
            if p.ndim == 1 and (".norm" in n or ".bn" in n or "norm." in n or "bn" in n)
        }
        found = trained(name, "norms")
        assert norms <= found, name
        assert all(dict(backbone.named_parameters())[n].ndim == 1 for n in found), name


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenetv2_100", "blocks.5."),
        ("test_vit", "blocks.4."),
        ("test_convnext", "stages.2."),
        ("resnet18", "layer3."),
    ],
)
def test_the_last_two_blocks_bring_all_behind_them(name, first):
    backbone = build_encoder(ModelConfig(backbone=name, weights="none"), 64).backbone
    order = [n for n, _ in backbone.named_parameters()]
    begin = next(i for i, n in enumerate(order) if n.startswith(first))
    assert trained(name, "last:2") == set(order[begin:])


def test_too_many_blocks_and_no_norms_are_refused():
    with pytest.raises(UsageError, match="has 7 blocks"):
        trained("mobilenetv2_100", "last:8")
    with pytest.raises(UsageError, match="has no norm layers"):
        trained("vgg11", "norms")
    with pytest.raises(ValueError, match="tune"):
        ModelConfig(tune="last:0")


def recipe(**model: object) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "t",
            "method": {"name": "triplet", "contrast_weight": 1.0},
            "data": {"size": 32},
            "model": {"backbone": "test_resnet", "weights": "none", **model},
        }
    )


def batch() -> Batch:
    torch.manual_seed(1)
    return {
        "sketch": torch.randint(0, 256, (8, 1, 32, 32), dtype=torch.uint8),
        "photo": torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8),
        "label": torch.arange(8) // 2,
    }


@pytest.mark.parametrize("tune", ["all", "norms", "last:1", "none"])
def test_a_step_changes_what_is_tuned_and_leaves_the_rest_with_its_statistics(tune):
    torch.manual_seed(0)
    method = build_method(recipe(tune=tune, projection=8, freeze_batchnorm=False)).train()
    before = {n: v.clone() for n, v in method.state_dict().items()}
    optimizer = build_optimizer(method.param_groups(), OptimConfig(lr=1e-2))
    method(batch()).loss.backward()
    optimizer.step()
    frozen = {n for n, p in method.named_parameters() if not p.requires_grad}
    after = method.state_dict()
    for name, value in before.items():
        owner = name.rpartition(".")[0]
        if name in frozen or (f"{owner}.weight" in frozen and "running" in name):
            assert torch.equal(value, after[name]), name
    moved = {n for n, p in method.named_parameters() if not torch.equal(before[n], p)}
    assert moved <= {n for n, p in method.named_parameters() if p.requires_grad}
    assert "projection.weight" in moved
    assert any(n.startswith("encoder.") for n in moved) == (tune != "none")


def test_lr_scale_slows_the_backbone_and_not_the_projection():
    torch.manual_seed(0)
    method = build_method(recipe(lr_scale=0.1, projection=8))
    optimizer = build_optimizer(method.param_groups(), OptimConfig(lr=1e-2))
    scales = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    assert {scales[id(p)] for p in method.encoder.parameters()} == {0.1}
    assert {scales[id(p)] for p in method.projection.parameters()} == {1.0}


def test_nothing_to_train_says_so():
    method = build_method(recipe(tune="none"))
    with pytest.raises(UsageError, match="no trainable parameters"):
        build_optimizer(method.param_groups(), OptimConfig())
