"""Searching with words: a whole CLIP as one file, words alone or beside a drawing, and who has no text side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import normalize

from zssbir_cli.embedding.weights import TowerWeights
from zssbir_cli.errors import UsageError
from zssbir_cli.models import known, towers
from zssbir_cli.models.towers import Tower, find_tower
from zssbir_cli.workflows import search as workflow
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.load import load

SMALL = {"num_classes": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.fixture
def model(tiny_clip: tuple[torch.nn.Module, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    """The whole of a small CLIP as a weight file: its image side becomes a timm backbone, its text side reads."""
    backbone = "vit_base_patch16_clip_quickgelu_224"
    small = Tower(backbone, "small", SMALL, size=32, text=("tiny-clip", "none"))
    monkeypatch.setitem(towers.TOWERS, "small", small)
    return f"small={tiny_clip[1]}"


def test_words_alone_and_beside_a_drawing(
    model: str,
    tiny_clip: tuple[torch.nn.Module, Path],
    photo_gallery: tuple[Path, Path],
    drawing: Path,
    tmp_path: Path,
) -> None:
    clip, photos = tiny_clip[0], photo_gallery[0]
    with torch.no_grad():
        words = normalize(clip.encode_text(open_clip.get_tokenizer("tiny-clip")(["red"])), dim=1)
    alone = workflow.search_sketches([], photos, model=model, text="red", k=12, workers=0)
    rows = torch.from_numpy(np.array(alone.gallery.embedding))
    (found,) = alone.found
    assert [h.score for h in found.hits] == pytest.approx(sorted((rows @ words[0]).tolist())[::-1], abs=1e-5)
    assert (found.title, found.kind) == ('"red"', "text")
    retriever = load(model=model, device="cpu", workers=0)
    sketch = torch.from_numpy(retriever.embed([drawing], modality="sketch"))
    both = retriever.search([drawing], photos, text="red", k=12)
    wanted = rows @ normalize(sketch + words, dim=1)[0]
    assert [h.score for h in both.found[0].hits] == pytest.approx(sorted(wanted.tolist())[::-1], abs=1e-5)
    assert both.found[0].title == f'{drawing} + "red"'
    for name in ("r.html", "r.png", "r.csv", "r.json"):
        workflow.write_result(alone, tmp_path / name)
    assert (
        "&#34;red&#34;" in (tmp_path / "r.html").read_text() or '"red"' in (tmp_path / "r.html").read_text()
    )
    assert (tmp_path / "r.csv").read_text().splitlines()[1].startswith('"""red""",text,1,')
    saved = workflow.result_json(alone)["sketches"][0]
    assert (saved["sketch"], saved["text"]) == ("", "red")
    assert "text" not in workflow.result_json(retriever.search([drawing], photos))["sketches"][0]


def test_no_text_side_is_said_before_anything_is_embedded(
    photo_gallery: tuple[Path, Path], tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path / "cache"))
    photos, run = photo_gallery
    for weights, words in (
        ({"run": run}, "run one .* has no text side; .*--model clip"),
        ({"model": str(tiny_recipe)}, "tiny.yaml .test_resnet.* has no text side"),
    ):
        with pytest.raises(UsageError, match=words):
            workflow.search_sketches([], photos, text="red", workers=0, **weights)  # type: ignore[arg-type]
    assert not list(tmp_path.glob("cache/*.h5"))
    assert not (tmp_path / "cache").exists()
    file = embed(run, photos=photos, out=tmp_path / "g.h5", workers=0).files[0]
    with pytest.raises(UsageError, match="has no text side"):
        workflow.search_sketches([], file, text="red", workers=0)
    with pytest.raises(UsageError, match="or words with --text"):
        workflow.search_sketches([], photos, run=run, text=" ", workers=0)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_an_image_side_alone_takes_words_only_when_it_is_that_of_the_texts(
    model: str,
    tiny_clip: tuple[torch.nn.Module, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: torch.dtype,
) -> None:
    """A fine-tuned image side has left the space of the words; in the file of timm, or as halves, it is the same one."""
    monkeypatch.setattr("zssbir_cli.models.text_tower.clip_file", lambda model, tag: tiny_clip[1])
    state = find_tower(model).build().encoder.backbone.state_dict()
    save_file({k: v.to(stored) for k, v in state.items()}, tmp_path / "image.safetensors")
    same = load(model=f"small={tmp_path / 'image.safetensors'}", device="cpu", workers=0).embedder
    whole = load(model=model, device="cpu", workers=0).embedder
    assert torch.equal(same.embed_text("red"), whole.embed_text("red"))
    state["norm.weight"] = state["norm.weight"] * 1.01
    save_file(state, tmp_path / "tuned.safetensors")
    tuned = load(model=f"small={tmp_path / 'tuned.safetensors'}", device="cpu", workers=0).embedder
    with pytest.raises(UsageError, match=r"tuned.safetensors holds an image side alone, and not the one"):
        tuned.embed_text("red")


@pytest.mark.parametrize("changes", ["weights: none", "weights: pretrained, input: contours"])
def test_a_start_that_shares_no_space_with_texts_has_no_text_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: str
) -> None:
    monkeypatch.setitem(known.TOWERS, "tiny", Tower("test_vit.r160_in1k", "tiny", text=("tiny-clip", "none")))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"name: r\nmethod: {{name: triplet}}\nmodel: {{backbone: test_vit.r160_in1k, {changes}}}\n"
    )
    weights = TowerWeights(find_tower(str(recipe)))
    weights.__dict__["sha256"] = "0" * 64  # its weights are not on this machine
    assert not weights.text_is_here
    with pytest.raises(UsageError, match="has no text side"):
        weights.check_text()


def test_texts_of_other_dimensions_than_the_photos_are_refused(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headless = Tower("test_vit", "headless", text=("tiny-clip", "none"))
    monkeypatch.setitem(towers.TOWERS, "headless", headless)
    recipe = tmp_path / "headless.yaml"
    recipe.write_text(
        "name: h\nmethod: {name: triplet}\ndata: {size: 32}\nmodel: {backbone: test_vit, weights: none}\n"
    )
    embedder = load(model=str(recipe), device="cpu", workers=0).embedder
    monkeypatch.setattr(
        type(embedder.weights), "load_text", lambda self: lambda texts: torch.ones(len(texts), 16)
    )
    with pytest.raises(UsageError, match=r"photos in 64 dimensions and texts in 16; keep the projection"):
        embedder.embed_text("red")


def test_the_server_answers_words(model: str, photo_gallery: tuple[Path, Path], drawing: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("multipart")
    pytest.importorskip("httpx")
    from starlette.testclient import TestClient

    from zssbir_cli.embedding.gallery import open_gallery
    from zssbir_cli.web.live import LiveGallery
    from zssbir_cli.web.server import build_app

    for weights, text in (({"model": model}, True), ({"run": photo_gallery[1]}, False)):
        opened = open_gallery(photo_gallery[0], torch.device("cpu"), workers=0, **weights)  # type: ignore[arg-type]
        live = LiveGallery(opened)
        try:
            with TestClient(build_app(live, k=12)) as client:
                alone = client.post("/search", json={"text": "red"})
                if not text:
                    assert alone.status_code == 422
                    assert "no text side" in alone.json()["detail"]
                    continue
                wanted = workflow.search_gallery(opened, [], text="red", k=12).found[0].hits
                assert [h["source"] for h in alone.json()["hits"]] == [h.source for h in wanted]
                both = client.post("/search", data={"text": "red"}, files={"image": drawing.read_bytes()})
                wanted = workflow.search_gallery(opened, [drawing], text="red", k=12).found[0].hits
                found = [h["score"] for h in both.json()["hits"]]
                assert found == pytest.approx([h.score for h in wanted], abs=1e-3)
                like = client.post("/search", json={"text": "red", "like": 3}).json()["hits"]
                assert len(like) == 11
                assert client.post("/search", json={"text": 3}).status_code == 400
                assert client.post("/search", json={"text": "a" * 1001}).status_code == 400
        finally:
            live.close()


def test_bytes_that_are_no_text_reach_no_tokenizer(model: str) -> None:
    """Some tokenizers raise at a lone surrogate, which a shell's odd bytes and JSON's \\ud800 become."""
    embedder = load(model=model, device="cpu", workers=0).embedder
    seen: list[bytes] = []

    def encode(texts: Sequence[str]) -> torch.Tensor:
        seen.extend(text.encode() for text in texts)
        return torch.ones(1, 16)

    embedder.__dict__["_texts"] = encode
    embedder.embed_text("caf\udce9")
    assert seen == ["caf\ufffd".encode()]
