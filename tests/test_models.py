"""Encoders over timm backbones, and weight loading that is never silently random."""

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.models.contours import contours
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.models.weights import load_weights, read_state
from zssbir_cli.recipe.schema import ModelConfig

TINY = "test_resnet"


def images(size: int, channels: int = 3) -> torch.Tensor:
    return torch.randint(0, 256, (2, channels, size, size), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("test_vit", 64, (4, 4)),
        ("test_resnet", 64, (2, 2)),
        ("vit_tiny_patch16_224", 96, (6, 6)),
        ("test_convnext", 64, (2, 2)),
    ],
)
def test_tokens_and_embedding_of_transformers_and_cnns(name: str, size: int, grid: tuple[int, int]) -> None:
    encoder = build_encoder(ModelConfig(backbone=name, weights="none"), size).eval()
    out = encoder(images(size))
    assert out.grid == grid
    assert out.tokens.shape == (2, grid[0] * grid[1], encoder.token_dim)
    assert out.embedding.shape == (2, encoder.dim)


def test_grey_images_equal_their_rgb_copy_and_normalisation_is_exact() -> None:
    encoder = build_encoder(
        ModelConfig(backbone=TINY, weights="none", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)), 32
    )
    encoder.eval()
    grey = images(32, 1)
    same = encoder(grey).embedding, encoder(grey.expand(-1, 3, -1, -1)).embedding
    assert torch.equal(*same)
    wanted = (grey / 255 - torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)) / torch.tensor(
        [0.2, 0.2, 0.1]
    ).view(1, 3, 1, 1)
    torch.testing.assert_close(encoder.normalise(grey), wanted)


def test_contours_make_photo_edges_and_drawn_lines_alike() -> None:
    step = torch.full((1, 3, 48, 48), 0.2)
    step[..., 24:] = 0.8  # an edge of a photo
    line = torch.ones(1, 3, 48, 48)
    line[..., 23:25] = 0.0  # a drawn line at the same place
    faint = 1 - (1 - line) * 0.5
    maps = [contours(x) for x in (step, line, faint)]
    for found in maps:
        assert found.shape == (1, 3, 48, 48)
        row = found[0, 0, 24]
        assert 22 <= int(row.argmax()) <= 26
        assert float(row.max()) > 2
        assert float(row[:10].max()) < 0.5
        assert float(found[0, 2].max()) < 0.1  # no horizontal contour
    assert float((maps[1] - maps[2]).abs().max()) < 0.5  # bold and faint alike
    assert float(contours(torch.full((1, 3, 16, 16), 0.7)).max()) < 1e-3


def test_batchnorm_is_frozen_with_weights_and_learns_without(tmp_path: Path) -> None:
    random = build_encoder(ModelConfig(backbone=TINY, weights="none"), 32)
    assert not random.freeze_batchnorm
    save_file(random.backbone.state_dict(), tmp_path / "w.safetensors")
    encoder = build_encoder(ModelConfig(backbone=TINY, weights=str(tmp_path / "w.safetensors")), 32).train()
    before = {k: v.clone() for k, v in encoder.state_dict().items() if "running" in k}
    encoder(images(32))
    assert all(torch.equal(v, encoder.state_dict()[k]) for k, v in before.items())


@pytest.mark.parametrize("wrap", ["plain", "module", "dino", "pth"])
def test_weights_load_through_wrappers(tmp_path: Path, wrap: str) -> None:
    source = build_encoder(ModelConfig(backbone=TINY, weights="none"), 32).backbone.state_dict()
    path = tmp_path / ("w.safetensors" if wrap == "plain" else "w.pth")
    if wrap == "plain":
        save_file(source, path)
    elif wrap == "module":
        torch.save({"state_dict": {f"module.backbone.{k}": v for k, v in source.items()}, "epoch": 3}, path)
    elif wrap == "dino":
        torch.save({"teacher": {f"backbone.{k}": v for k, v in source.items()}, "student": {}}, path)
    else:
        torch.save({**source, "fc.weight": torch.zeros(10, 3)}, path)  # a classifier may be left over
    loaded = build_encoder(ModelConfig(backbone=TINY, weights=str(path)), 32).backbone.state_dict()
    assert all(torch.equal(v, loaded[k]) for k, v in source.items())


def test_position_embeddings_are_resampled_to_another_size(tmp_path: Path) -> None:
    big = build_encoder(ModelConfig(backbone="test_vit", weights="none"), 96).backbone.state_dict()
    save_file(big, tmp_path / "w.safetensors")
    small = build_encoder(ModelConfig(backbone="test_vit", weights=str(tmp_path / "w.safetensors")), 64)
    assert small(images(64)).grid == (4, 4)


def test_weights_that_do_not_fit_are_an_error_that_says_why(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"something.weight": torch.zeros(3)}, path)
    with pytest.raises(
        CheckpointError, match=r"w\.pth: does not fit the model: .* missing .*something\.weight"
    ):
        build_encoder(ModelConfig(backbone=TINY, weights=str(path)), 32)
    path.write_bytes(b"not a weight file")
    with pytest.raises(CheckpointError, match="not a readable weight file"):
        read_state(path)
    with pytest.raises(CheckpointError, match="no such weight file"):
        read_state(tmp_path / "absent.pth")
    torch.save({}, path)
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read_state(path)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path, flag = tmp_path / "evil.pth", tmp_path / "ran"

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return (exec, (f"open({str(flag)!r}, 'w').close()",))  # type: ignore[return-value]

    torch.save({"w": Evil()}, path)
    with pytest.raises(CheckpointError, match="not a readable weight file"):
        read_state(path)
    assert not flag.exists()


def test_unknown_backbones_and_options_are_named() -> None:
    with pytest.raises(UsageError, match=r"'vit_bse_patch16_224' is not a timm model.*vit_base_patch16_224"):
        build_encoder(ModelConfig(backbone="vit_bse_patch16_224", weights="none"), 32)
    with pytest.raises(UsageError, match="surprise"):
        build_encoder(ModelConfig(backbone=TINY, weights="none", options={"surprise": 1}), 32)


@pytest.mark.parametrize(
    ("backbone", "size", "options", "wanted"),
    [
        (TINY, 32, {"drop_rate": "high"}, r"^model.options.drop_rate = 'high': test_resnet .* string to float: 'high'"),
        (TINY, 32, {"drop_rate": 5}, r"^model.options.drop_rate = 5: .*probability"),
        (TINY, 32, {"stem_type": "deep", "act_layer": "x"}, r"^model.options.act_layer = 'x': .*KeyError\('x'\)"),
        (TINY, 32, {"block": "x"}, r"^model.options.block = 'x': .*expansion"),
        (TINY, 32, {"global_pool": ""}, r"^model.options.global_pool = '': .*\[96, 1, 1\]"),
        (TINY, 32, {"num_classes": -1}, r"^model.options.num_classes = -1: "),
        ("test_vit", 64, {"patch_size": 0}, r"^model.options.patch_size = 0: .*division"),
        ("test_vit", 64, {"reg_tokens": -1}, r"^model.options.reg_tokens = -1: .*negative"),
        ("test_vit", 50, {}, r"^data.size = 50: test_vit .*divisible"),
        ("test_vit", 50, {"depth": 1}, r"^data.size = 50: "),
    ],
)  # fmt: skip
def test_options_and_sizes_that_a_backbone_does_not_take_are_named_by_their_keys(
    backbone: str, size: int, options: dict[str, int | str], wanted: str
) -> None:
    with pytest.raises(UsageError, match=wanted):
        build_encoder(ModelConfig(backbone=backbone, weights="none", options=options), size)


def test_a_rate_of_its_own_key_is_named_by_that_key() -> None:
    with pytest.raises(UsageError, match=r"^model.drop_path = 0.5: ghostnet_100 .*drop_path_rate"):
        build_encoder(ModelConfig(backbone="ghostnet_100", weights="none", drop_path=0.5), 32)


def test_pretrained_weights_that_do_not_fit_the_options_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    monkeypatch.setattr("zssbir_cli.models.backbone.timm_file", lambda name: tmp_path / "w.safetensors")
    model = {"backbone": "test_vit.r160_in1k", "weights": "pretrained"}
    with pytest.raises(
        CheckpointError, match=r"w.safetensors: these weights do not fit test_vit.*'embed_dim': 32"
    ):
        build_encoder(ModelConfig(**model, options={"embed_dim": 32}), 160)
    with pytest.raises(CheckpointError, match=r"'depth': 8.* lack blocks.6.* would stay random"):
        build_encoder(ModelConfig(**model, options={"depth": 8}), 160)
    with pytest.raises(CheckpointError, match=r"'num_classes': 5.* lack head.weight"):
        build_encoder(ModelConfig(**model, options={"num_classes": 5}), 160)
    with pytest.raises(UsageError, match=r"^model.options.depth = 'x'"):
        build_encoder(ModelConfig(**model, options={"depth": "x"}), 160)
    build_encoder(ModelConfig(**model, options={"dynamic_img_size": True}), 96)


def test_trying_an_encoder_out_changes_nothing_of_it() -> None:
    config = ModelConfig(backbone=TINY, weights="none")
    torch.manual_seed(0)
    tried, after = build_encoder(config, 32), torch.rand(1)
    torch.manual_seed(0)
    other = build_encoder(config, 32, load=False)
    assert torch.equal(after, torch.rand(1))
    assert all(m.training for m in tried.modules())
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in tried.state_dict().items())


def test_weights_of_a_deeper_network_are_refused(tmp_path: Path) -> None:
    deep = timm.create_model("test_vit", img_size=32, depth=9).state_dict()
    torch.save(deep, tmp_path / "deep.pth")
    with pytest.raises(CheckpointError, match=r"deep\.pth: .*blocks\..* larger network"):
        build_encoder(ModelConfig(backbone="test_vit", weights=str(tmp_path / "deep.pth")), 32)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 1\n", "a Git LFS pointer"),
        (b"<html><title>Quota exceeded</title></html>", "an HTML page"),
        (b"", "it is empty"),
    ],
)
def test_files_that_are_no_weights_are_called_what_they_are(
    tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=words):
        build_encoder(ModelConfig(backbone="test_resnet", weights=str(tmp_path / "w.pth")), 32)


def test_a_foreign_type_beside_the_weights_is_named_without_bad_advice(tmp_path: Path) -> None:
    weights = timm.create_model("test_resnet").state_dict()
    torch.save({"state_dict": weights, "best": np.float64(0.7)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="scalar") as caught:
        build_encoder(ModelConfig(backbone="test_resnet", weights=str(tmp_path / "w.pth")), 32)
    assert "weights_only" not in str(caught.value)
    assert "\n" not in str(caught.value)
    torch.save({"net": weights, "epoch": 3}, tmp_path / "w.pth")
    build_encoder(ModelConfig(backbone="test_resnet", weights=str(tmp_path / "w.pth")), 32)


def test_weights_that_are_not_numbers_are_refused_by_name() -> None:
    model = timm.create_model(TINY, num_classes=0)
    state = {k: v.clone() for k, v in model.state_dict().items()}
    name = next(k for k, v in state.items() if v.ndim == 4)
    state[name][0, 0, 0, 0] = float("nan")
    with pytest.raises(CheckpointError, match=rf"x\.pth: holds NaN or infinite weights \({name}\)"):
        load_weights(model, state, "x.pth")


def test_a_path_that_is_no_utf8_is_read(tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.safetensors"
    save_file({"a": torch.arange(3.0)}, tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").rename(path)
    assert torch.equal(read_state(path)["a"], torch.arange(3.0))
