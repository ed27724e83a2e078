"""PuXIM as a method: its terms, its data, and that CLIP leaves no trace in it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from puxim_helpers import MARKERS, tiny_clip, tiny_set
from pydantic import ValidationError

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.scores import read_scores, write_scores
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.methods.base import Batch
from zssbir_cli.methods.puxim import data as puxim_data
from zssbir_cli.methods.puxim import vxl
from zssbir_cli.methods.puxim.config import PuximConfig, VxlConfig
from zssbir_cli.methods.puxim.losses import keep_mask, reconstruction_loss, triplet_loss
from zssbir_cli.methods.puxim.method import Puxim, add_stem
from zssbir_cli.methods.triplet.method import batch_triplet
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.recipe.schema import DataConfig, ModelConfig, Recipe, TrainConfig
from zssbir_cli.types import Modality, Part

VIT = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
SMALL = {"decoder_layers": 1, "decoder_heads": 2, "decoder_ff": 32, "decoder_dropout": 0.0}
MODEL = ModelConfig(backbone="vit_tiny_patch16_224", weights="none", options=VIT)


@pytest.fixture
def prepared(tmp_path: Path) -> PreparedSet:
    return tiny_set(tmp_path / "set")


@pytest.fixture
def small_clip(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The VxL sampler uses a tiny CLIP; the list counts how often it was loaded."""
    loaded: list[int] = []
    monkeypatch.setattr(vxl, "load_vxl", lambda config, device: loaded.append(1) or tiny_clip())
    monkeypatch.setattr(vxl, "weights_file", lambda model, weights: Path(__file__))
    return loaded


def method(model: ModelConfig = MODEL, projection: int = 0, scorer: Any = None, **options: Any) -> Puxim:
    torch.manual_seed(0)
    return Puxim(PuximConfig(**{**SMALL, **options}), build_encoder(model, 64), projection, scorer)


def batch(n: int = 4, size: int = 64) -> Batch:
    gen = torch.Generator().manual_seed(0)
    out: Batch = {
        "sketch": torch.randint(256, (n, 1, size, size), dtype=torch.uint8, generator=gen),
        "photo": torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=gen),
        "negative": torch.randint(256, (n, 3, size, size), dtype=torch.uint8, generator=gen),
    }
    for name in ("photo", "negative"):
        out[f"{name}_scores"] = torch.rand(n, 4, 4, generator=gen)
        out[f"{name}_label"] = torch.randint(3, (n,), generator=gen)
    return out


def recipe(prepared: PreparedSet, config: PuximConfig, **data: Any) -> Recipe:
    settings = DataConfig(root=str(prepared.root), size=64, **data)
    return Recipe(
        name="t",
        method=config,
        data=settings,
        model=MODEL,
        train=TrainConfig(batch_size=6, steps_per_epoch=3),
    )


def test_total_is_the_weighted_sum_of_its_terms() -> None:
    m, b = method().double(), batch()
    m.encoder.normalise = lambda x: ((x.double() - 127.5) / 127.5).expand(-1, 3, -1, -1)  # type: ignore[method-assign]
    loss, logs = m(b)
    f = m.encoder(torch.cat([b["sketch"].expand(-1, 3, -1, -1), b["photo"], b["negative"]]))
    keep = keep_mask(torch.cat([b["photo_scores"], b["negative_scores"]]).flatten(1), 0.7)
    assert keep.sum(1).tolist() == [16 - 12] * 8
    triplet = triplet_loss(*f.embedding.chunk(3), 1.0)
    reconstruction = reconstruction_loss(f.tokens[4:], keep)
    tokens = torch.cat([f.embedding[:, None], f.tokens], 1)
    seen = torch.cat([keep.new_ones(8, 1), keep], 1)
    logits = m.decoder(tokens[[0, 1, 2, 3] * 2], tokens[4:], seen)
    interaction = torch.nn.functional.cross_entropy(logits, torch.tensor([1] * 4 + [0] * 4))
    torch.testing.assert_close(logs["loss/triplet"], triplet.detach())
    torch.testing.assert_close(logs["loss/reconstruction"], reconstruction.detach())
    torch.testing.assert_close(logs["loss/interaction"], interaction.detach())
    torch.testing.assert_close(loss, triplet + 0.05 * reconstruction + 0.1 * interaction)


@pytest.mark.parametrize("off", ["triplet", "reconstruction", "interaction"])
def test_each_term_can_be_switched_off(off: str) -> None:
    m = method(**{off: 0.0})
    loss, logs = m(batch())
    loss.backward()
    assert f"loss/{off}" not in logs
    assert loss.isfinite()
    assert (m.decoder is None) == (off == "interaction")


def test_every_parameter_learns_and_one_batch_is_learnt() -> None:
    m, b = method(margin=0.5), batch()
    first = m(b).loss
    first.backward()
    assert [n for n, p in m.named_parameters() if p.grad is None or not p.grad.any()] == []
    optimizer = torch.optim.AdamW(m.parameters(), 1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        loss, logs = m(b)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * first.item()
    assert float(logs["match_accuracy"]) == 1


def test_masked_tokens_of_a_photo_fade() -> None:
    m, b = method(triplet=0.0, interaction=0.0, reconstruction=1.0), batch()
    optimizer = torch.optim.AdamW(m.parameters(), 3e-3)
    keep = keep_mask(b["photo_scores"].flatten(1), 0.7)
    for _ in range(60):
        optimizer.zero_grad()
        m(b).loss.backward()
        optimizer.step()
    energy = m.encoder(b["photo"]).tokens.square().mean(-1)
    assert energy[~keep].mean() < 0.9 * energy[keep].mean()  # the final norm sets a floor


def test_without_masks_nothing_is_hidden() -> None:
    m, b = method(masks="none", reconstruction=0.0, distance="cosine", margin=0.2), batch()
    b = {k: v for k, v in b.items() if "scores" not in k}
    assert m(b).loss.isfinite()
    with pytest.raises(ValidationError, match="nothing to reconstruct"):
        PuximConfig(masks="none")
    with pytest.raises(ValidationError, match="all terms are off"):
        PuximConfig(triplet=0, reconstruction=0, interaction=0)
    with pytest.raises(ValidationError, match=r"no \{\}"):
        VxlConfig(prompt="a photo")


def test_negatives_of_the_batch_need_no_third_photo() -> None:
    m = method(negatives="batch", distance="cosine", contrast=1.0)
    b = {k: v for k, v in batch(6).items() if not k.startswith("negative")}
    b["photo_label"] = torch.tensor([0, 1, 0, 2, 2, 1])
    loss, logs = m(b)
    loss.backward()
    assert set(logs) == {f"loss/{n}" for n in ("triplet", "contrast", "reconstruction", "interaction")} | {
        "match_accuracy"
    }
    f = m.encoder(torch.cat([b["sketch"].expand(-1, 3, -1, -1), b["photo"]]))
    z = torch.nn.functional.normalize(f.embedding, dim=1)
    torch.testing.assert_close(
        logs["loss/triplet"], batch_triplet(z[:6], z[6:], b["photo_label"], 1.0).detach()
    )
    with pytest.raises(ValidationError, match="needs distance: cosine"):
        PuximConfig(negatives="batch")


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenetv3_small_050"])
def test_a_cnn_works(backbone: str) -> None:
    m = method(ModelConfig(backbone=backbone, weights="none"), decoder_width=16, projection=8)
    m(batch()).loss.backward()
    assert all(p.grad is not None for p in m.parameters() if p.requires_grad)
    assert m.embed(batch()["photo"], Modality.PHOTO).shape == (4, 8)


def test_stem_is_averaged_and_the_rest_untouched() -> None:
    encoder = build_encoder(MODEL, 64)
    x = torch.rand(2, 3, 64, 64)
    before = encoder.backbone.patch_embed(x)
    add_stem(encoder.backbone, 32)
    stem = encoder.backbone.patch_embed.stem(x).flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder.backbone.patch_embed(x), (before + stem) / 2)
    assert encoder(batch()["photo"]).tokens.shape == (4, 16, 32)
    with pytest.raises(UsageError, match=r"method\.stem"):
        add_stem(build_encoder(ModelConfig(backbone="resnet18", weights="none"), 64).backbone, 512)


def test_clip_leaves_no_trace(prepared: PreparedSet, small_clip: list[int]) -> None:
    config = PuximConfig(masks="online", **SMALL)
    m = method(scorer=vxl.LazyScorer(config.vxl, str(prepared.root)), masks="online")
    names, count = set(m.state_dict()), sum(p.numel() for p in m.parameters())
    m.train()
    m(batch()).loss.backward()
    assert small_clip == [1]
    assert set(m.state_dict()) == names
    assert sum(p.numel() for p in m.parameters()) == count
    assert not any("clip" in n or "tower" in n for n in names)
    assert not any(n.startswith("decoder") for n in m.retrieval_state())


def test_online_and_cached_masks_agree(prepared: PreparedSet, small_clip: list[int]) -> None:
    cached = recipe(prepared, PuximConfig(**SMALL))
    train_data = puxim_data.build(cached, prepared)
    items = [train_data.items[(0, i, tuple(row))] for i, row in enumerate(train_data.plan.batches(0)[0])]
    b = torch.utils.data.default_collate(items)
    online = method(scorer=vxl.LazyScorer(cached.method.vxl, str(prepared.root)), masks="online")
    fresh = online._scorer(b["photo"], b["photo_label"])
    # CLIP sees the photo at its own size in both; here the training size is another one, so small differences
    assert torch.corrcoef(torch.stack([fresh.flatten(), b["photo_scores"].flatten()]))[0, 1] > 0.99


def test_scores_are_computed_once_and_resumed(
    prepared: PreparedSet, small_clip: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zssbir_cli.data.scores.CHUNK", 8)
    monkeypatch.setattr(vxl.ScoreCache.__init__, "__defaults__", (8,))
    real, calls = vxl.score_photos, []

    def dies(*args: Any) -> Any:
        calls.append(args[2])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(vxl, "score_photos", dies)
    with pytest.raises(KeyboardInterrupt):
        vxl.ensure_scores(VxlConfig(), prepared)
    scores = vxl.ensure_scores(VxlConfig(), prepared)
    assert [r.start for r in calls] == [0, 8, 16, 16, 24]  # the first two chunks were not done again
    again = vxl.ensure_scores(VxlConfig(), prepared)
    assert len(small_clip) == 2  # not loaded when the file is there
    assert (again.grid, len(again)) == ((4, 4), 30)
    np.testing.assert_array_equal(again.read(17), scores.read(17))
    whole = vxl.score_photos(
        vxl.class_scorer(tiny_clip(), VxlConfig(), prepared),
        prepared.images(Part.TRAIN, Modality.PHOTO),
        range(30),
        torch.device("cpu"),
    )
    np.testing.assert_allclose(np.stack([again.read(i) for i in range(30)]), whole, atol=2e-3)
    other = vxl.ensure_scores(VxlConfig(prompt="a {}"), prepared)
    assert other.path != again.path
    names = {p.name for p in prepared.root.glob("masks*")}
    assert names == {again.path.name, other.path.name}


def marker_scores(prepared: PreparedSet) -> Path:
    """Scores whose peak is the white square of each photo."""
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    maps = np.zeros((len(photos), 4, 4), np.float16)
    for i in range(len(photos)):
        maps[i].flat[i % MARKERS] = 1
    return write_scores(prepared.root / "mine.h5", maps, data=prepared.identity, facts={"by": "test"})


def test_photo_mask_and_label_move_together(prepared: PreparedSet) -> None:
    path = marker_scores(prepared)
    config = PuximConfig(masks=str(path), **SMALL)
    train_data = puxim_data.build(recipe(prepared, config, flip=True, crop_scale=0.4), prepared)
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    sketches = prepared.images(Part.TRAIN, Modality.SKETCH)
    moved, compared = 0, 0
    for epoch in range(20):
        for position, row in enumerate(train_data.plan.batches(epoch)[0]):
            assert sketches.labels[row[0]] == photos.labels[row[1]] != photos.labels[row[2]]
            item = train_data.items[(epoch, position, tuple(row))]
            for name, photo in (("photo", row[1]), ("negative", row[2])):
                assert int(item[f"{name}_label"]) == photos.labels[photo]
                light = torch.nn.functional.adaptive_avg_pool2d(item[name].float() / 255, 4).mean(0)
                scores = item[f"{name}_scores"]
                if light.max() > 0.5 and scores.max() > 0.5:  # the square is in the view
                    compared += 1
                    moved += int(light.argmax()) != photo % MARKERS
                    assert torch.corrcoef(torch.stack([light.flatten(), scores.flatten()]))[0, 1] > 0.75
    assert compared > 100
    assert moved > 50


def test_scores_of_another_set_are_refused(prepared: PreparedSet, tmp_path: Path) -> None:
    other = tiny_set(tmp_path / "other", photos=4)
    config = PuximConfig(masks=str(marker_scores(other)), **SMALL)
    with pytest.raises(DataError, match="made for data set"):
        puxim_data.build(recipe(prepared, config), prepared)
    with pytest.raises(DataError, match=r"nope\.h5 is missing"):
        puxim_data.build(recipe(prepared, PuximConfig(masks="nope.h5", **SMALL)), prepared)
    assert len(read_scores(marker_scores(prepared), data=prepared.identity, count=30)) == 30


def test_unseen_classes_are_not_named_to_the_model(prepared: PreparedSet) -> None:
    scorer = vxl.class_scorer(
        tiny_clip(), VxlConfig(against="classes"), prepared
    )  # `owl` is no word it knows
    assert scorer.labels == [0, 1, 2]
    assert scorer(torch.zeros(2, 3, 40, 40, dtype=torch.uint8), torch.tensor([0, 2])).shape == (2, 4, 4)
