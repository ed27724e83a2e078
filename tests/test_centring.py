"""`method.centre`: the modalities' means are those of the weights that retrieval uses."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.weights import load_run
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.models.centring import SAMPLE, Centring
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.train import train

CPU = torch.device("cpu")


def test_what_only_tells_the_modalities_apart_is_gone() -> None:
    g = torch.Generator().manual_seed(0)
    objects, offset = torch.randn(200, 8, generator=g), torch.zeros(8)
    offset[0] = 6.0
    centring = Centring(8)
    plain = centring(objects, Modality.SKETCH)
    torch.testing.assert_close(plain, functional.normalize(objects, dim=1))
    for modality, shift in ((Modality.SKETCH, offset), (Modality.PHOTO, -offset)):
        centring.set_mean(objects + shift, modality)
    sketch, photo = (
        centring(objects + s, m) for m, s in ((Modality.SKETCH, offset), (Modality.PHOTO, -offset))
    )
    hits = (sketch @ photo.T).argmax(1) == torch.arange(200)
    assert hits.float().mean() > 0.9
    raw = functional.normalize(objects + offset, dim=1) @ functional.normalize(objects - offset, dim=1).T
    assert (raw.argmax(1) == torch.arange(200)).float().mean() < 0.5
    torch.testing.assert_close(sketch.norm(dim=1), torch.ones(200))


@pytest.mark.parametrize("which", ["best", "last", "epoch-0001"])
def test_a_run_stores_the_means_of_its_blended_weights(tiny_recipe: Path, tmp_path: Path, which: str) -> None:
    """In every checkpoint; epoch 1 is not validated."""
    options = ["train.epochs=2", "train.validate_every=2", "train.keep_every=1"]
    recipe = load_recipe(tiny_recipe, ["method.centre=true", "train.blend=0.5", *options])
    outcome = train(recipe, runs=tmp_path / "runs", device="cpu")
    _, method, _ = load_run(outcome.run, CPU, which)
    prepared = PreparedSet.open(Path(recipe.data.root))
    for modality in Modality:
        images = prepared.images(Part.TRAIN, modality)
        assert len(images) < SAMPLE, "all of them are measured"
        pixels = torch.stack([EvalImages(images, recipe.data.size)[i] for i in range(len(images))])
        with torch.no_grad():
            raw = functional.normalize(method.projection(method.encoder(pixels).embedding), dim=1)
        mean = method.centring.get_buffer(modality.word)
        torch.testing.assert_close(mean, raw.mean(0), atol=1e-5, rtol=1e-4)
        wanted = functional.normalize(raw - raw.mean(0), dim=1)
        torch.testing.assert_close(method.embed(pixels, modality), wanted, atol=1e-4, rtol=1e-3)


def test_a_sample_is_spread_over_all_images(tiny_demo: Path) -> None:
    images = PreparedSet.open(tiny_demo).images(Part.TRAIN, Modality.PHOTO)
    some = EvalImages(images, 32, most=7)
    assert len(some) == 7
    step = len(images) / 7
    for i in range(7):
        assert torch.equal(some[i], EvalImages(images, 32)[int(i * step)])
