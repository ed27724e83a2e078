"""CLIP Surgery against stored outputs of the reference program, on weights that anyone can regenerate."""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from zssbir_cli.errors import UsageError
from zssbir_cli.models.surgery import SurgeryTower, feature_surgery, resize_position, single_text_similarity

GOLDEN = Path(__file__).parent / "golden" / "surgery.npz"
NORMS = ("ln_pre.weight", "ln_post.weight", "ln_1.weight", "ln_2.weight")


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


def golden_visual() -> VisionTransformer:
    visual = VisionTransformer(64, 16, 128, 8, 2, 4.0, output_dim=32, act_layer=QuickGELU)
    state = {}
    for name, value in visual.state_dict().items():
        key = f"visual.{name}"
        drawn = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(tuple(value.shape)) * 0.08
        state[name] = torch.from_numpy(drawn.astype("float32")) + (1.0 if name.endswith(NORMS) else 0.0)
    visual.load_state_dict(state)
    return visual.eval()


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {k: torch.from_numpy(file[k]) for k in file}


@torch.no_grad()
def test_tokens_equal_the_reference(golden: dict[str, Tensor]) -> None:
    tokens = SurgeryTower(golden_visual(), 6)(golden["surgery_image"])
    assert tokens.shape == (3, 17, 32)
    assert (tokens - golden["surgery_tokens"]).abs().max() < 1e-5
    alone = SurgeryTower(golden_visual(), 6)(golden["surgery_image"][1:2])
    assert (alone - golden["surgery_tokens"][1:2]).abs().max() < 1e-5


@torch.no_grad()
def test_feature_surgery_equals_the_reference(golden: dict[str, Tensor]) -> None:
    unit = F.normalize(golden["surgery_tokens"], dim=-1)
    scores = feature_surgery(unit, golden["text"])
    assert (scores - golden["similarity_channel_norm"]).abs().max() < 1e-5
    per_image = feature_surgery(unit, golden["text"].expand(3, -1, -1))
    torch.testing.assert_close(per_image, scores)


@torch.no_grad()
def test_class_token_is_the_untouched_clip(golden: dict[str, Tensor]) -> None:
    visual = golden_visual()
    torch.testing.assert_close(
        SurgeryTower(visual, 6)(golden["surgery_image"])[:, 0],
        visual(golden["surgery_image"]),
        atol=1e-5,
        rtol=1e-5,
    )


@torch.no_grad()
@pytest.mark.parametrize("texts", [1, 2, 5])
def test_feature_surgery_is_its_formula(texts: int) -> None:
    gen = torch.Generator().manual_seed(texts)
    f = F.normalize(torch.randn(4, 10, 6, generator=gen, dtype=torch.float64), dim=-1)
    t = F.normalize(torch.randn(texts, 6, generator=gen, dtype=torch.float64), dim=-1)
    w = (2 * f[:, :1] @ t.T).softmax(-1)
    w = w / w.mean(-1, keepdim=True)
    each = f[:, :, None] * t * w[..., None]
    naive = (each - each.mean(2, keepdim=True)).sum(-1)
    torch.testing.assert_close(feature_surgery(f, t), naive)
    if texts == 1:
        assert naive.abs().max() == 0  # why one text needs the empty prompt
        assert single_text_similarity(f, t, t.flip(-1)[0]).abs().max() > 0


@torch.no_grad()
def test_other_sizes_interpolate_without_touching_the_parameter(golden: dict[str, Tensor]) -> None:
    visual = golden_visual()
    before = visual.positional_embedding.clone()
    assert SurgeryTower(visual)(torch.zeros(2, 3, 96, 32)).shape == (2, 1 + 6 * 2, 32)
    assert torch.equal(visual.positional_embedding, before)
    assert SurgeryTower(visual)(golden["surgery_image"]).shape == (3, 17, 32)
    ramp = torch.cat([torch.zeros(1, 1), torch.arange(4.0).repeat(4)[:, None]])
    wide = resize_position(ramp, (4, 4), (8, 8))[1:].view(8, 8)
    assert (wide.diff(dim=1) > 0).all()
    assert wide.diff(dim=0).abs().max() < 1e-5


@torch.no_grad()
def test_bf16_stays_close(golden: dict[str, Tensor]) -> None:
    tower = SurgeryTower(golden_visual().to(torch.bfloat16), 6)
    tokens = tower(golden["surgery_image"])
    assert tokens.dtype is torch.bfloat16
    cosine = F.cosine_similarity(tokens.float(), golden["surgery_tokens"], dim=-1)
    assert cosine.min() > 0.98


def test_refuses_what_it_cannot_operate_on() -> None:
    with pytest.raises(UsageError, match="8 blocks"):
        SurgeryTower(golden_visual(), 9)
    with pytest.raises(UsageError, match="plain open_clip ViT"):
        SurgeryTower(nn.Linear(2, 2), 1)
