"""Frozen towers: which one a name means, the same vectors as their libraries', and search, embed, eval without a run."""

import json
from pathlib import Path

import h5py
import numpy as np
import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from PIL import Image
from retrieval_helpers import make_run
from safetensors.torch import save_file
from timm.data import create_transform

from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.data.square import resize_photo
from zssbir_cli.embedding.weights import TowerWeights, choose_weights
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.evaluation.compare import compare_results
from zssbir_cli.models import towers
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.models.known import TOWERS, Tower
from zssbir_cli.models.towers import cached_tower, find_tower
from zssbir_cli.recipe.schema import ModelConfig
from zssbir_cli.types import Modality
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.eval import evaluate_run
from zssbir_cli.workflows.search import result_json, search_sketches

CPU = torch.device("cpu")

TAG = "test_vit.r160_in1k"


def picture(side: int, height: int | None = None) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (7, 7, 3), dtype=np.uint8))
    return coarse.resize((side, height or side), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds random weights of `TAG`, laid out as huggingface_hub does."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    place = tmp_path / "hub" / f"models--timm--{TAG}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc")
    file = place / "snapshots" / "abc" / "model.safetensors"
    file.parent.mkdir(parents=True)
    torch.manual_seed(5)
    save_file(timm.create_model("test_vit").state_dict(), file)
    return file


def test_a_tower_embeds_as_timm_does_with_its_own_preprocessing(hub: Path) -> None:
    spec = find_tower(TAG)
    assert (spec.data.size, spec.model.mean, spec.model.std) == (160, (0.5,) * 3, (0.5,) * 3)
    theirs = timm.create_model(
        "test_vit", num_classes=0, pretrained=True, pretrained_cfg_overlay={"file": str(hub)}
    )
    transform = create_transform(
        (3, 160, 160), interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1
    )
    with torch.no_grad():
        wanted = theirs.eval()(transform(picture(160))[None])
    found = spec.build().embed(pixels(picture(160)), Modality.PHOTO)
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1), rtol=0, atol=1e-6)


def test_resizing_is_bilinear_and_within_two_levels_of_bicubic_on_average() -> None:
    """One way of resizing for all weights: the price, on a smooth and detailed picture, is small."""
    ours = resize_photo(pixels(picture(500, 400))[0], 224).float()
    theirs = pixels(picture(500, 400).resize((224, 224), Image.Resampling.BICUBIC))[0].float()
    assert float((ours - theirs).abs().mean()) < 2


def small_clip(quick: bool) -> CLIP:
    torch.manual_seed(1)
    vision = CLIPVisionCfg(layers=2, width=64, head_width=32, patch_size=16, image_size=64)
    return CLIP(32, vision, CLIPTextCfg(width=32, heads=2, layers=1), quick_gelu=quick).eval()


@pytest.mark.parametrize("name", ["clip", "dfn"])
def test_a_clip_tower_embeds_as_open_clip_does(tmp_path: Path, name: str) -> None:
    """A small CLIP of the same kind, from open_clip's own file: activation, projection and normalisation agree."""
    tower, clip = TOWERS[name], small_clip(quick=True)
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    options = {**tower.options, "num_classes": 32, "embed_dim": 64, "depth": 2, "num_heads": 2}
    known = open_clip.get_pretrained_cfg(*tower.text)
    config = ModelConfig(backbone=tower.backbone, weights=str(tmp_path / "clip.safetensors"), options=options)
    encoder = build_encoder(config, 64).eval()
    transform = open_clip.image_transform(64, is_train=False, mean=known["mean"], std=known["std"])
    with torch.no_grad():
        wanted = clip.encode_image(transform(picture(64))[None])
        found = encoder(pixels(picture(64))).embedding
        other = small_clip(quick=False).encode_image(transform(picture(64))[None])
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert encoder.dim == 32
    assert float((other - wanted).abs().max()) > 1e-4  # the wrong activation would show


def test_any_clip_of_timm_takes_a_whole_open_clip_checkpoint(tmp_path: Path) -> None:
    """Its projection is kept, however wide it is."""
    torch.manual_seed(1)
    vision = CLIPVisionCfg(layers=10, width=256, head_width=64, patch_size=16, image_size=224)
    clip = CLIP(48, vision, CLIPTextCfg(width=32, heads=2, layers=1)).eval()
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    spec = find_tower(f"vit_xsmall_patch16_clip_224={tmp_path / 'clip.safetensors'}")
    image = pixels(picture(224))
    with torch.no_grad():
        found = spec.build().embed(image, Modality.PHOTO)
        mean, std = (torch.tensor(x)[:, None, None] for x in (spec.model.mean, spec.model.std))
        wanted = clip.encode_image((image.float() / 255 - mean) / std, normalize=True)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_clip_of_another_size_is_refused_in_one_line(tmp_path: Path) -> None:
    save_file(small_clip(True).state_dict(), tmp_path / "clip.safetensors")
    with pytest.raises(CheckpointError, match="the image side of this CLIP does not fit") as caught:
        find_tower(f"clip={tmp_path / 'clip.safetensors'}").build()
    assert "\n" not in str(caught.value)


def test_every_tower_is_known_to_both_libraries() -> None:
    for name, tower in TOWERS.items():
        if timm.is_model(tower.backbone.partition(".")[0]):  # DINOv3 came later than our oldest timm
            assert timm.models.is_model_pretrained(tower.backbone), name
        if tower.text:
            assert open_clip.get_pretrained_cfg(*tower.text), name
            mean = open_clip.get_pretrained_cfg(*tower.text)["mean"]
            assert timm.get_pretrained_cfg(tower.backbone).mean == pytest.approx(mean), name


def test_google_weights_are_known_by_their_classes(tmp_path: Path) -> None:
    model = timm.create_model("mobilenetv2_050", num_classes=1001, pad_type="same")
    torch.save(model.state_dict(), tmp_path / "mobilenetv2_050_mine.pth")
    spec = find_tower(str(tmp_path / "mobilenetv2_050_mine.pth"))
    assert (spec.model.backbone, spec.model.options, spec.model.mean) == (
        "mobilenetv2_050",
        {"pad_type": "same"},
        (0.5, 0.5, 0.5),
    )
    assert "1,001 classes" in spec.note
    assert find_tower(spec.name) == spec
    assert (
        find_tower(f"mobilenetv2_050.lamb_in1k={tmp_path / 'mobilenetv2_050_mine.pth'}").label == spec.label
    )
    with torch.no_grad():
        wanted = model.eval().forward_head(
            model.forward_features(pixels(picture(224)) / 127.5 - 1), pre_logits=True
        )
    found = spec.build().embed(pixels(picture(224)), Modality.PHOTO)
    torch.testing.assert_close(found, torch.nn.functional.normalize(wanted, dim=1), rtol=0, atol=1e-5)


def test_names_that_mean_nothing_say_what_would(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "mine.pth")
    for name, words in (
        ("sigllip", r"did you mean siglip or siglip2\?"),
        (
            "vit_base_patch16_224.nosuch",
            r"no weights 'nosuch' of vit_base_patch16_224; there are .*, dino, mae",
        ),
        ("vit_base_patch16_224.augreg_in1", r"did you mean vit_base_patch16_224\.augreg_in1k or"),
        (
            str(tmp_path / "mine.pth"),
            "its name does not begin with that of a timm model; write --model BACKBONE=",
        ),
        ("test_vit.yaml", "no such file here"),
    ):
        with pytest.raises(UsageError, match=words):
            find_tower(name)
    with pytest.raises(CheckpointError, match="no such weight file"):
        find_tower(f"test_vit={tmp_path / 'no.pth'}")


def test_search_without_a_run_and_the_file_finds_its_tower_again(
    tmp_path: Path,
    hub: Path,
    photo_gallery: tuple[Path, Path],
    drawing: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos, run = photo_gallery
    first = search_sketches([drawing], photos, model=TAG, k=3, workers=0)
    cache = tmp_path.parent / "zssbir-cache"
    assert first.gallery.path is not None
    assert cache in first.gallery.path.parents
    assert first.weights.startswith(f"model {TAG}, frozen, weights ")
    assert result_json(first)["weights"] == first.weights
    info = first.gallery.info
    assert (info.model, info.method, info.run, info.recipe) == (TAG, "frozen", "", "")
    stamp = first.gallery.path.stat().st_mtime_ns
    again = search_sketches([drawing], photos, model=TAG, k=3, workers=0)
    assert again.gallery.path.stat().st_mtime_ns == stamp
    kept = embed(model=TAG, photos=photos, out=tmp_path / "mine.h5", workers=0).files[0]
    with h5py.File(embed(run, photos=photos, out=tmp_path / "run.h5", workers=0).files[0]) as file:
        assert "model" not in file.attrs  # what a run makes, older versions read too
    monkeypatch.chdir(tmp_path)
    assert search_sketches([drawing], kept, k=3, workers=0).found == first.found
    assert read_embeddings(kept).info.model == TAG
    with pytest.raises(
        DataError, match=rf"made with the weights .* of model {TAG}, which .*one does not have"
    ):
        search_sketches([drawing], kept, run=run)
    save_file(timm.create_model("test_vit").state_dict(), hub)
    with pytest.raises(DataError, match="does not have; name them with --model"):
        search_sketches([drawing], kept)
    assert embed(model=TAG, photos=photos, out=kept, workers=0).folder.new == 12
    fresh = search_sketches([drawing], photos, model=TAG, k=3, workers=0)
    assert fresh.folder.new == 12  # other weights: nothing of the old file is used


def test_with_neither_run_nor_model_the_newest_run_then_what_is_cached(
    tmp_path: Path, hub: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    assert cached_tower() is None
    with pytest.raises(UsageError, match=r"no run with a checkpoint .*--model NAME .*zssbir train"):
        choose_weights(runs=runs)
    monkeypatch.setitem(towers.TOWERS, "tiny", Tower(TAG, "tiny"))
    assert choose_weights(runs=runs).facts == {"model": "tiny"}
    run = make_run(runs / "one", tiny_recipe)
    assert choose_weights(runs=runs).home == run
    assert choose_weights(model="tiny", runs=runs).facts == {"model": "tiny"}
    with pytest.raises(UsageError, match="give one of them"):
        choose_weights(run, "tiny", runs)


def test_a_recipe_stands_for_its_start(tmp_path: Path, tiny_recipe: Path) -> None:
    tiny_recipe.write_text(tiny_recipe.read_text().replace("backbone:", "projection: 8, backbone:"))
    spec = find_tower(str(tiny_recipe))
    seed_all(0)  # the recipe's seed
    start = build_encoder(ModelConfig(backbone="test_resnet", weights="none"), 32).eval()
    wanted = torch.nn.functional.normalize(start(pixels(picture(32))).embedding, dim=1)
    torch.testing.assert_close(spec.build().embed(pixels(picture(32)), Modality.PHOTO), wanted)
    assert "random" in spec.note
    one, two = (TowerWeights(find_tower(str(tiny_recipe))) for _ in range(2))
    assert one.sha256 == two.sha256
    tiny_recipe.write_text(tiny_recipe.read_text() + "\n")
    other = tmp_path / "other.yaml"
    other.write_text(tiny_recipe.read_text().replace("epochs: 2", "epochs: 2, seed: 1"))
    assert TowerWeights(find_tower(str(other))).sha256 != one.sha256


def test_a_frozen_row_says_so_and_compares(
    tmp_path: Path, hub: Path, tiny_demo: Path, tiny_recipe: Path
) -> None:
    runs = tmp_path / "runs"
    with pytest.raises(UsageError, match="no data set of its own; name one with --data"):
        evaluate_run(model=TAG, runs=runs)
    frozen = evaluate_run(model=TAG, runs=runs, data=tiny_demo, workers=0, report=False)
    assert frozen.result is not None
    assert frozen.result.parent.parent.parent == runs / "frozen"
    saved = json.loads(frozen.result.read_text())
    assert saved["model"] == TAG
    assert saved["method"] == saved["which"] == "frozen"
    assert saved["checkpoint"] == choose_weights(model=TAG).sha256
    assert saved["preprocessing"].startswith("160 px, bilinear, mean 0.5")
    assert "run" not in saved
    assert "recipe" not in saved
    lines = " ".join(frozen.evaluation.inputs.about.describe())
    assert "frozen: nothing was trained" in lines
    run = make_run(runs / "one", tiny_recipe)
    trained = evaluate_run(run, data=tiny_demo, workers=0, report=False)
    assert trained.result is not None
    compared = compare_results(frozen.result, trained.result)
    assert compared.queries == saved["queries"]
    assert compared.a.startswith(TAG)
    assert compared.b.startswith("tiny ")


def test_the_command_line_takes_one_of_run_and_model(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from zssbir_cli.cli.app import run

    photos, file = str(tmp_path), str(tmp_path / "g.h5")
    Path(file).touch()
    for line, words in (
        (
            ["search", "a.png", "--photos", photos, "--model", "clip", "--run", "x"],
            "--run has no effect with --model",
        ),
        (
            ["embed", "--photos", photos, "-M", "clip", "--checkpoint", "last"],
            "--checkpoint has no effect with --model",
        ),
        (["draw", "--photos", photos, "-M", "clip", "--runs", "r"], "--runs has no effect with --model"),
        (["export", "--model", "clip", "--checkpoint", "last"], "--checkpoint has no effect with --model"),
        (
            ["search", "a.png", "--photos", file, "--checkpoint", "last"],
            "--checkpoint has no effect with .*g.h5",
        ),
        (["draw", "--photos", file, "--checkpoint", "best"], "--checkpoint has no effect with .*g.h5"),
        (["eval", "--model", "clip"], "name one with --data DIR"),
        (["embed", "--model", "clip"], "name one with --data DIR"),
        (
            ["eval", "--embeddings", "a.npz", "--model", "clip"],
            "--model has no effect with --embeddings",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            run(line)
