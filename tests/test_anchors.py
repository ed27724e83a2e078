"""Heads of fixed anchors: their loss, whose names and photos they know, the text side against open_clip, resuming."""

import json
from importlib.util import find_spec
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.engine.checkpoint import read_weights
from zssbir_cli.engine.report import Report, Silent
from zssbir_cli.engine.runs import run_folders
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.table import build_method
from zssbir_cli.methods.triplet import method as triplet
from zssbir_cli.methods.triplet.anchors import MeanAnchors, TextAnchors
from zssbir_cli.methods.triplet.method import Triplet
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.models.text_tower import load_text_side
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.setup import Setup, TrainProbe, training_classes
from zssbir_cli.workflows.train import train

HEAD = ("method.text_weight=1", "method.text_scale=20")


class Names:
    """A probe that knows class names."""

    def __init__(self, names: dict[int, str]) -> None:
        self.names = names

    def class_names(self) -> dict[int, str]:
        return self.names


def test_the_loss_is_the_cross_entropy_of_the_names() -> None:
    anchors = TextAnchors(5)
    texts = normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    anchors.directions, anchors.labels = texts, torch.tensor([2, 7, 9])
    z = normalize(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    found = float(anchors(z, torch.tensor([9, 2, 7, 7]), 10.0))
    terms = []
    for row, own in zip(z, (2, 0, 1, 1), strict=True):
        scores = torch.tensor([10 * float(row @ t) for t in texts])
        terms.append(float(torch.logsumexp(scores, 0) - scores[own]))
    assert found == pytest.approx(sum(terms) / 4, rel=1e-5)


def test_only_names_of_training_classes_reach_the_text_side(tiny_demo: Path, tiny_recipe: Path) -> None:
    prepared, asked = PreparedSet.open(tiny_demo), list[str]()

    def encode(texts: list[str]) -> torch.Tensor:
        asked.extend(texts)
        return torch.randn(len(texts), 64)

    recipe = load_recipe(tiny_recipe, [*HEAD, "model.backbone=test_vit"])
    encoder = build_encoder(recipe.model, 32)
    method = Triplet(encoder, recipe.method, 0, lambda: encode)
    names = training_classes(prepared)
    for _ in range(2):
        method.before_epoch(0, Names(names))
    seen = [c.name for c in prepared.manifest.classes_of(Role.SEEN)]
    assert sorted(names.values()) == sorted(seen)
    assert len(asked) == len(seen) < len(prepared.classes)
    assert sorted(asked) == sorted(f"a photo of a {n.replace('_', ' ')}." for n in seen)
    for label, row in zip(method.anchors.labels.tolist(), method.anchors.directions, strict=True):
        assert prepared.classes[label] in seen
        assert float(row.norm()) == pytest.approx(1, abs=1e-5)


def test_the_text_side_is_open_clips(tiny_clip: tuple[open_clip.CLIP, Path]) -> None:
    clip, file = tiny_clip
    words = ["a photo of a cat.", "red"]
    with torch.no_grad():
        wanted = clip.encode_text(open_clip.get_tokenizer("tiny-clip")(words))
    torch.testing.assert_close(load_text_side("test_vit", file)(words), wanted)
    with pytest.raises(CheckpointError, match="not the weights of tiny-clip"):
        load_text_side("test_vit", Path(__file__))
    with pytest.raises(UsageError, match=r"test_resnet has no text side; .*clip"):
        load_text_side("test_resnet")


@pytest.mark.skipif(find_spec("transformers") is not None, reason="transformers is installed")
def test_siglips_words_need_an_extra(tmp_path: Path) -> None:
    (tmp_path / "clip.safetensors").write_bytes(b"")
    with pytest.raises(UsageError, match=r"ViT-B-16-SigLIP needs the text extra.*\.\[text\]"):
        load_text_side("vit_base_patch16_siglip_224.webli", tmp_path / "clip.safetensors")


def test_anchors_are_the_towers_own_words(
    tiny_clip: tuple[open_clip.CLIP, Path], tiny_recipe: Path, tmp_path: Path
) -> None:
    clip, file = tiny_clip
    save_file(
        build_encoder(load_recipe(tiny_recipe, ["model.backbone=test_vit"]).model, 32).backbone.state_dict(),
        tmp_path / "v.safetensors",
    )
    keys = [
        *HEAD,
        "model.backbone=test_vit",
        f"method.text_file={file}",
        f"model.weights={tmp_path / 'v.safetensors'}",
    ]
    keys += ["model.options={num_classes: 16}"]
    with pytest.raises(
        CheckpointError, match=r"2 of \d+ tensors are missing \(head\.weight"
    ):  # the projection is not in this file
        build_method(load_recipe(tiny_recipe, keys))
    config = load_recipe(tiny_recipe, [k for k in keys if "weights" not in k]).model
    save_file(build_encoder(config, 32).backbone.state_dict(), tmp_path / "v.safetensors")
    method = build_method(load_recipe(tiny_recipe, keys))
    method.before_epoch(0, Names({3: "hot-air_balloon", 1: "cat"}))
    with torch.no_grad():
        tokens = open_clip.get_tokenizer("tiny-clip")(["a photo of a cat.", "a photo of a hot air balloon."])
        wanted = normalize(clip.encode_text(tokens), dim=1)
    torch.testing.assert_close(method.anchors.directions, wanted)
    assert method.anchors.labels.tolist() == [1, 3]


def test_refused_without_a_text_side_and_with_a_projection(tiny_recipe: Path) -> None:
    for keys, words in (
        (
            ["model.backbone=vit_base_patch14_dinov2.lvd142m", "model.weights=pretrained"],
            "dinov2.lvd142m has no text side",
        ),
        (["model.projection=8"], "set model.projection to 0"),
    ):
        with pytest.raises(UsageError, match=words):
            build_method(load_recipe(tiny_recipe, [*HEAD, *keys]))


def test_overfits_one_batch_and_pulls_towards_the_names(tiny_recipe: Path) -> None:
    torch.manual_seed(0)
    keys = ["method.triplet_weight=0", "method.contrast_weight=0", "model.backbone=test_vit"]
    method = build_method(load_recipe(tiny_recipe, [*HEAD, *keys])).train()
    method.before_epoch(0, Names({0: "a", 1: "b", 2: "c", 3: "d"}))
    draw = lambda c: torch.randint(0, 256, (8, c, 32, 32), dtype=torch.uint8)  # noqa: E731
    batch = {"sketch": draw(1), "photo": draw(3), "label": torch.arange(8) // 2}
    optimizer = torch.optim.Adam((p for p in method.parameters() if p.requires_grad), 1e-3)
    first = float(method(batch).logs["loss/text"])
    for _ in range(40):
        loss = method(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
    method.eval()
    for name, modality in (("sketch", Modality.SKETCH), ("photo", Modality.PHOTO)):
        nearest = (method.embed(batch[name], modality) @ method.anchors.directions.T).argmax(1)
        assert (nearest == batch["label"]).all()


class StopsInTheSecondEpoch(Silent):
    """Ends training without a word, as a kill does."""

    def report(self, report: Report) -> None:
        if report.step > 6:
            raise KeyboardInterrupt


def test_resumes_with_the_anchors_of_its_checkpoint_and_retrieval_needs_none(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from zssbir_cli.embedding.weights import load_run

    recipe = load_recipe(tiny_recipe, [*HEAD, "train.validate_every=0"])
    straight = train(recipe, runs=tmp_path / "a", device="cpu").run
    assert "text anchors: random directions" in caplog.text
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "b", device="cpu", hooks=StopsInTheSecondEpoch())
    (cut,) = run_folders(tmp_path / "b")

    def never(*_: object) -> None:
        raise AssertionError("the anchors were made again")

    monkeypatch.setattr(TextAnchors, "fill", never)
    train(runs=tmp_path / "b", resume=cut, device="cpu")
    states = [read_weights(run / "checkpoints" / "last") for run in (straight, cut)]
    assert torch.equal(states[0]["anchors.directions"], states[1]["anchors.directions"])
    one, two = (load_run(run, torch.device("cpu"))[1].retrieval_state() for run in (straight, cut))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    assert not [name for name in one if name.startswith("anchors")]


def test_means_are_of_the_classes_photos() -> None:
    photos = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    anchors = MeanAnchors(4)
    anchors.fill([7, 2], photos, torch.tensor([2, 7, 2, 7, 7]))
    unit = photos / photos.norm(dim=1, keepdim=True)
    wanted = [unit[[0, 2]].mean(0), unit[[1, 3, 4]].mean(0)]
    assert anchors.labels.tolist() == [2, 7]
    for found, mean in zip(anchors.directions, wanted, strict=True):
        assert torch.allclose(found, mean / mean.norm(), atol=1e-6)


def test_a_class_that_the_sample_of_photos_misses_has_a_mean(
    tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triplet, "MOST_PHOTOS", 5)  # of 34 classes
    setup = Setup.build(load_recipe(tiny_recipe, ["method.class_weight=1"]), torch.device("cpu"))
    method = build_method(setup.recipe)
    method.before_epoch(0, TrainProbe(setup))
    assert len(method.means.labels) == 34
    assert torch.allclose(method.means.directions.norm(dim=1), torch.ones(34))


def test_the_head_of_means_trains_and_resumes_with_the_means_of_before_training(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(tiny_recipe, ["method.class_weight=1", "train.validate_every=0"])
    straight = train(recipe, runs=tmp_path / "a", device="cpu").run
    rows = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert any("loss/class" in row for row in rows)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, runs=tmp_path / "b", device="cpu", hooks=StopsInTheSecondEpoch())
    (cut,) = run_folders(tmp_path / "b")
    monkeypatch.setattr(MeanAnchors, "fill", None)  # filling again would fail
    train(runs=tmp_path / "b", resume=cut, device="cpu")
    states = [read_weights(run / "checkpoints" / "last") for run in (straight, cut)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    best = read_weights(straight / "checkpoints" / "best")
    assert not [name for name in best if name.startswith("means.")]


def test_a_probe_gives_the_labels_of_the_images_it_embeds(tiny_recipe: Path) -> None:
    setup = Setup.build(load_recipe(tiny_recipe), torch.device("cpu"))
    images, probe = setup.prepared.images(Part.TRAIN, Modality.PHOTO), TrainProbe(setup)
    sums = probe.features(Modality.PHOTO, lambda x: x.float().sum((1, 2, 3))[:, None], 30)[:, 0]
    whole = EvalImages(images, setup.recipe.data.size)
    of_sum = {float(whole[i].float().sum()): int(images.labels[i]) for i in range(len(images))}
    assert probe.labels(Modality.PHOTO, 30).tolist() == [of_sum[float(s)] for s in sums]
