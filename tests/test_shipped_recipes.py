"""Every shipped recipe parses, builds and takes a training step (with a tiny backbone where its own is large)."""

from pathlib import Path

import pytest

from zssbir_cli.errors import UsageError
from zssbir_cli.recipe.loader import load_recipe, shipped_recipes
from zssbir_cli.workflows.train import train

SMALL = ("data.workers=0", "data.size=32", "model.weights=none", "train.epochs=1", "train.steps_per_epoch=2")
SMALL += ("train.batch_size=4", "train.precision=fp32", "train.validate_every=0")
BACKBONES = {"vit": "test_vit", "mobilenet": "test_resnet", "test_": "test_resnet"}


def tiny(path: Path, data: Path) -> tuple[str, ...]:
    """Overrides that make a recipe small enough for a test."""
    recipe = load_recipe(path)
    backbone = next(v for k, v in BACKBONES.items() if recipe.model.backbone.startswith(k))
    settings = [*SMALL, f"data.root={data}", f"model.backbone={backbone}", "model.options={}"]
    if recipe.method.name == "puxim" and recipe.method.masks == "cached":
        settings.append("method.vxl.model=offline")
    if recipe.method.name == "ama":
        settings += ["method.views.local_size=32", "method.head={out_dim: 16, hidden: 16, bottleneck: 8}"]
        settings += ["method.clusters.k=[3, 6]"]
    return tuple(settings)


@pytest.mark.parametrize("path", shipped_recipes(), ids=lambda p: p.stem)
def test_shipped_recipe_takes_a_step(path: Path, tiny_demo: Path, tmp_path: Path) -> None:
    outcome = train(load_recipe(path, tiny(path, tiny_demo)), runs=tmp_path / "runs", device="cpu")
    assert outcome.result.steps == 2
    assert (outcome.run / "checkpoints" / "best" / "model.safetensors").is_file()


def test_labels_do_not_choose_the_checkpoint_of_an_unsupervised_method(
    tiny_demo: Path, tmp_path: Path
) -> None:
    path = next(p for p in shipped_recipes() if p.stem == "ama-demo")
    recipe = load_recipe(path, (*tiny(path, tiny_demo), "train.validate_every=1"))
    with pytest.raises(UsageError, match="ama learns without labels"):
        train(recipe, runs=tmp_path / "runs", device="cpu")
    assert not (tmp_path / "runs").exists()
