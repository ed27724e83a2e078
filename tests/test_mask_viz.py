"""`zssbir mask-viz`: works with nothing at hand, on a prepared set, on own pictures, and with a run's encoder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from puxim_helpers import tiny_clip, tiny_set

from zssbir_cli.data.square import resize_photo
from zssbir_cli.embedding.own import learnt_from
from zssbir_cli.engine import checkpoint
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.schema import DataConfig, ModelConfig, Recipe
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.masks import COLUMNS, MaskPicture, panels, save_masks
from zssbir_cli.workflows import mask_viz as masks
from zssbir_cli.workflows.mask_viz import MaskRequest, components, mask_viz


def picture(height: int = 40, width: int = 80, title: str = "cat") -> MaskPicture:
    scores = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    keep = scores > 0.7
    photo = np.full((height, width, 3), 90, np.uint8)
    return MaskPicture(photo, title, "note", scores, keep, scores, 1 - scores)


def test_panels_keep_the_aspect_ratio_and_show_the_mask() -> None:
    shown = panels(picture(), 200)
    assert {p.shape for p in shown} == {(100, 200, 3)}
    kept = shown[2]
    assert (kept[90, 190] == 90).all()  # the last cell is kept: the photo itself
    assert (kept[10, 10] > 200).all()  # the first is masked
    assert (shown[4][10, 10] == shown[4][10, 60]).all()
    assert not (shown[1][50, 10] == shown[1][50, 190]).all()


def test_sheet_and_page(tmp_path: Path) -> None:
    rows = [picture(), picture(90, 60, "<b>dog & co")]
    sheet, page = save_masks(rows, tmp_path, "a < b")
    with Image.open(sheet) as image:
        assert image.width > 1200
    text = page.read_text("utf-8")
    assert "a &lt; b" in text
    assert text.count("<img") == 2 * len(COLUMNS)
    assert "&lt;b&gt;dog &amp; co" in text
    assert "<b>dog" not in text
    assert not re.search(r"https?://|<script", text)


def test_components_point_to_what_is_kept() -> None:
    keep = torch.tensor([True, True, False, False, False])
    tokens = torch.tensor([[5.0, 0, 1], [4.0, 1, 0], [0.0, 0, 1], [0, 1, 0], [0, 0, 0.5]])
    plain, normalised = components(tokens, keep)
    assert plain[keep].min() > plain[~keep].max()
    assert normalised.shape == (5,)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(masks, "load_surgery_clip", lambda *a, **k: tiny_clip())
    return tmp_path


def test_prepared_set_is_found(here: Path) -> None:
    tiny_set(here / "data" / "tiny")
    found = mask_viz(MaskRequest(count=2))
    assert [r["class"] for r in found.rows] == ["cat", "dog"]
    assert sorted(p.name for p in (here / "mask-viz").iterdir()) == ["masks.html", "masks.png"]
    row = found.rows[0]
    assert np.shape(row["scores"]) == (4, 4)
    assert (row["kept"], row["tokens"]) == (16 - 12, 16)
    named = mask_viz(MaskRequest(classes=["hot-air_balloon"], texts=["cat", "dog"], out=here / "o", count=1))
    assert [(r["class"], r["text"]) for r in named.rows] == [("hot-air_balloon", t) for t in ("cat", "dog")]
    assert named.rows[0]["scores"] != named.rows[1]["scores"]
    with pytest.raises(UsageError, match=r"--classes lion: no such class"):
        mask_viz(MaskRequest(classes=["lion"]))


def test_own_pictures(here: Path) -> None:
    folder = here / "pets" / "cat"
    folder.mkdir(parents=True)
    Image.new("RGB", (90, 50), "red").save(folder / "a.JPG", "JPEG")
    Image.new("RGBA", (40, 60), (0, 0, 255, 80)).save(folder / "b.png")
    found = mask_viz(MaskRequest(images=[here / "pets"]))
    assert [r["text"] for r in found.rows] == ["cat", "cat"]  # the folder's name
    (folder / "c.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"c\.jpg: not an image"):
        mask_viz(MaskRequest(images=[folder]))
    (here / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        mask_viz(MaskRequest(images=[here / "empty"]))
    with pytest.raises(DataError, match="cannot be read"):
        mask_viz(MaskRequest(images=[here / "nope.jpg"]))


def test_without_anything_it_draws_as_typed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "zssbir_cli", "mask-viz", "--json", "--count", "2"]
    result = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.*")) == [
        "mask-viz/masks.html",
        "mask-viz/masks.png",
    ]
    assert [p["class"] for p in answer["photos"]] == ["teapot", "sailboat"]
    assert 0 <= answer["photos"][0]["iou"] <= 1


def test_a_runs_encoder_is_shown_by_default(here: Path) -> None:
    """The latest run decides data set, mask ratio and tokens; its folder gets the pictures."""
    prepared = tiny_set(here / "elsewhere")
    model = ModelConfig(
        backbone="vit_tiny_patch16_224", weights="none", options={"embed_dim": 24, "depth": 1, "num_heads": 2}
    )
    config = PuximConfig(mask_ratio=0.5, interaction=0)
    recipe = Recipe(name="r", method=config, data=DataConfig(root=str(prepared.root), size=32), model=model)
    run = here / "runs" / "one"
    method = build_method(recipe).eval()
    encoder = method.encoder
    facts = {
        "step": 1,
        "epoch": 1,
        "recipe": recipe.model_dump(mode="json"),
        "metrics": {},
        "precision": "fp32",
    }
    data = learnt_from(prepared.manifest).as_json()
    checkpoint.save(run / "checkpoints" / "best", method.retrieval_state(), None, {**facts, "data": data})
    found = mask_viz(MaskRequest(count=3))
    assert sorted(p.name for p in (run / "masks").iterdir()) == ["masks.html", "masks.png"]
    assert "tokens of one" in found.heading
    assert "lowest 50%" in found.heading
    row = found.rows[0]
    assert (row["tokens"], row["kept"]) == (4, 1)  # 2 x 2 patches of the encoder, int(0.5 * 4) + 1 masked
    tokens = encoder(
        resize_photo(load_image(prepared.images(Part.TRAIN, Modality.PHOTO), 0), 32)[None]
    ).tokens[0]
    energy = tokens.square().mean(1)
    expected = sorted([row["energy_kept"], row["energy_masked"]])
    assert min(energy).item() - 1e-4 <= expected[0] <= expected[1] <= max(energy).item() + 1e-4
