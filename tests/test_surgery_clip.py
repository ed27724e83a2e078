"""Prompts, class names, the offline CLIP, and scores of photos for their class names."""

import pytest
import torch
import torch.nn.functional as F
from puxim_helpers import NAMES, tiny_clip

from zssbir_cli.demo import CLASSES
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.models.clip_text import clean_class_name, encode_words, prompts
from zssbir_cli.models.offline_clip import WEIGHTS, WordTokenizer, load_offline_clip
from zssbir_cli.models.surgery import SurgeryTower, feature_surgery
from zssbir_cli.models.surgery_clip import ClassScorer, load_surgery_clip, similarity


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("car_(sedan)", "sedan car"),
        ("hot-air_balloon", "hot air balloon"),
        ("pickup_truck", "pickup truck"),
        ("crocodilian", "crocodile"),
        ("t-shirt", "t-shirt"),
        ("hot air balloon", "hot air balloon"),
        ("eiffel_tower", "eiffel tower"),
        ("ant", "ant"),
        ("_", "_"),
        ("Ωμέγα_x", "Ωμέγα x"),
    ],
)
def test_class_names_become_words(name: str, words: str) -> None:
    assert clean_class_name(name) == words


def test_the_user_has_the_last_word() -> None:
    assert clean_class_name("bat", {"bat": "baseball bat"}) == "baseball bat"
    assert clean_class_name("bat") == "bat animal"


def test_prompts() -> None:
    assert prompts("a photo of {}") == ("a photo of {}",)
    assert len(set(prompts("ensemble"))) == 85
    assert all(p.count("{}") == 1 for p in prompts("ensemble"))


def test_ensemble_is_the_mean_of_unit_embeddings() -> None:
    seen: list[str] = []

    def encode(texts: list[str]) -> torch.Tensor:
        seen.extend(texts)
        return torch.tensor([[float(len(t)), 1.0, 2.0] for t in texts])

    out = encode_words(encode, ["cat", ""], "ensemble")
    assert len(seen) == 170
    assert "a photo of the hard to see cat." in seen
    expected = F.normalize(
        F.normalize(torch.tensor([[float(len(t)), 1, 2] for t in seen[:85]])).mean(0), dim=0
    )
    torch.testing.assert_close(out[0], expected)


def test_scores_belong_to_each_photos_own_class() -> None:
    clip = tiny_clip()
    images = torch.randint(256, (5, 3, 48, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([2, 0, 1, 1, 0])
    tokens = clip.tokens(images)
    torch.testing.assert_close(tokens.norm(dim=-1), torch.ones(5, 17))
    for against in ("article", "empty", "classes"):
        scorer = ClassScorer(clip, NAMES[:3], prompt="a photo of {}", against=against)
        scores = scorer(images, labels)
        assert scores.shape == (5, 4, 4)
        for i in range(5):  # the batch does not matter
            torch.testing.assert_close(scorer(images[i : i + 1], labels[i : i + 1])[0], scores[i])
        other = scorer(images, (labels + 1) % 3)
        assert (other - scores).abs().max() > 1e-4
    text = clip.texts(["cat", "dog", "hot air balloon"], "a photo of {}")
    article = clip.texts(["a"], "a photo of {}")[0]
    naive = feature_surgery(tokens[:1], torch.stack([article, text[2]]))[..., 1]
    torch.testing.assert_close(similarity(tokens[:1], text, torch.tensor([2]), article, "article"), naive)


def test_stays_frozen_and_in_eval_mode() -> None:
    clip = tiny_clip()
    clip.train()
    assert not clip.training
    assert not any(m.training for m in clip.modules())
    assert not any(p.requires_grad for p in clip.parameters())


def test_unknown_words_models_and_sizes_are_clear_errors() -> None:
    with pytest.raises(UsageError, match=r"not learnt the word 'zebra'.*draws: horse, teapot,"):
        WordTokenizer(["a", "horse", "teapot"])(["zebra"])
    with pytest.raises(UsageError, match="not an open_clip model"):
        load_surgery_clip("ViT-Z", "openai")
    with pytest.raises(UsageError, match="neither a file nor a tag"):
        load_surgery_clip("ViT-B-16-quickgelu", "nope")
    with pytest.raises(UsageError, match="not a multiple"):
        load_surgery_clip("offline", "", size=65)


def test_without_network_or_weights_there_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    with pytest.raises(
        CheckpointError, match=r"openai.*the proxy 127.0.0.1:9 does not.*--vxl offline"
    ) as error:
        load_surgery_clip("ViT-B-16-quickgelu", "openai")
    assert "\n" not in str(error.value)


def test_offline_clip_is_small_and_knows_every_demo_class() -> None:
    assert WEIGHTS.stat().st_size < 6_000_000
    clip, words = load_offline_clip()
    assert words([f"a photo of {clean_class_name(c)}" for c in CLASSES]).shape == (len(CLASSES), 16)
    again, _ = load_offline_clip()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tower, other = SurgeryTower(clip.eval().visual, 2), SurgeryTower(again.eval().visual, 2)
        torch.testing.assert_close(tower(x), other(x))
        assert tower(x).shape == (2, 65, 64)


def test_a_damaged_offline_clip_is_a_clear_error(tmp_path: object) -> None:
    path = tmp_path / "offline_clip.safetensors"  # type: ignore[operator]
    path.write_bytes(WEIGHTS.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="install zssbir again"):
        load_offline_clip(path)
