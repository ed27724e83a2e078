"""Fixtures shared by all tests: one thread, no network, tiny prepared data sets."""

import os
import random
import shutil
import signal

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

if TYPE_CHECKING:
    from draw_helpers import Watched, playwright

    from zssbir_cli.web.live import LiveGallery


# A shell's background jobs ignore Ctrl-C, and so would all processes that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> None:
    """Whatever ran before in this process: pytest-xdist deals files out as processes get free."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings of frozen models stay out of the user's cache."""
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path_factory.getbasetemp() / "zssbir-cache"))


@pytest.fixture(scope="session")
def tiny_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared demo set: 52 classes at 32 px, 4 photos and 3 sketches each. Read only."""
    from demo_helpers import demo_set

    out = tmp_path_factory.mktemp("prepared") / "demo"
    return demo_set(out, photos=4, sketches=3)


TINY = """
name: tiny
method: {name: triplet, contrast_weight: 1.0}
data: {root: DATA, size: 32, workers: 0, flip: true, crop_scale: 0.6, sketch_jitter: 0.5, color_jitter: 0.5}
model: {backbone: test_resnet, weights: none}
optim: {lr: 1e-3}
train: {epochs: 2, steps_per_epoch: 5, batch_size: 6, precision: fp32}
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path, tiny_demo: Path) -> Path:
    """A recipe file that trains the triplet baseline on `tiny_demo` in a second."""
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY.replace("DATA", str(tiny_demo)))
    return path


@pytest.fixture(scope="session")
def photo_gallery(tmp_path_factory: pytest.TempPathFactory, tiny_demo: Path) -> tuple[Path, Path]:
    """A folder of twelve photos, and a run of random weights. Read only."""
    from PIL import Image
    from retrieval_helpers import make_run

    place = tmp_path_factory.mktemp("gallery")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = place / "photos" / "abc"[i % 3] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (5, 5, 3), dtype=np.uint8))
        coarse.resize((120, 80), Image.Resampling.NEAREST).save(path, quality=95)
    recipe = place / "tiny.yaml"
    recipe.write_text(TINY.replace("DATA", str(tiny_demo)))
    return place / "photos", make_run(place / "runs" / "one", recipe)


@pytest.fixture
def live(photo_gallery: tuple[Path, Path]) -> "Iterator[LiveGallery]":
    """That gallery, open for the drawing page."""
    from zssbir_cli.embedding.gallery import open_gallery
    from zssbir_cli.web.live import LiveGallery

    gallery = open_gallery(photo_gallery[0], torch.device("cpu"), run=photo_gallery[1], workers=0)
    live = LiveGallery(gallery)
    yield live
    live.close()


@pytest.fixture
def masked(tmp_path: Path) -> "Iterator[LiveGallery]":
    """Thirty training photos of a PuXIM run with stored masks (`masked_gallery`), open for the drawing page."""
    from puxim_helpers import masked_gallery

    from zssbir_cli.web.live import LiveGallery

    live = LiveGallery(masked_gallery(tmp_path))
    yield live
    live.close()


@pytest.fixture
def address(live: "LiveGallery") -> Iterator[str]:
    """A running server of the drawing page."""
    from draw_helpers import serving

    with serving(live) as address:
        yield address


@pytest.fixture(scope="module")
def browser() -> "Iterator[playwright.Browser]":
    """Headless Chromium."""
    from draw_helpers import ARGUMENTS, CHROMIUM, playwright

    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def watched(browser: "playwright.Browser", address: str) -> "Iterator[Watched]":
    """The drawing page, on which nothing may go wrong."""
    from draw_helpers import Watched

    context = browser.new_context(viewport={"width": 1200, "height": 900})
    found = Watched(context.new_page(), address)
    yield found
    context.close()
    assert not found.problems
    assert not found.hosts


TINY_CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[torch.nn.Module, Path]:
    """A small open_clip model, which the tower `tiny` (test_vit) has as its text side, and its file."""
    import json

    import open_clip
    from safetensors.torch import save_file

    from zssbir_cli.models import towers

    (tmp_path / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    open_clip.add_model_config(tmp_path / "tiny-clip.json")
    torch.manual_seed(2)
    clip = open_clip.create_model("tiny-clip").eval()
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    tower = towers.Tower("test_vit", "tiny", text=("tiny-clip", "none"))
    monkeypatch.setitem(towers.TOWERS, "tiny", tower)
    return clip, tmp_path / "clip.safetensors"


@pytest.fixture
def drawing(tmp_path: Path) -> Path:
    """A file with a drawn ellipse."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(image).ellipse((10, 15, 50, 45), outline=0, width=3)
    image.save(tmp_path / "s.png")
    return tmp_path / "s.png"


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/pics`, `tiny.yaml` and one trained run. Copy it; read only."""
    from demo_helpers import draw_split

    from zssbir_cli.recipe.loader import load_recipe
    from zssbir_cli.workflows.train import train

    root = tmp_path_factory.mktemp("trained")
    draw_split(root / "data" / "pics")
    recipe = TINY.replace("DATA", "data/pics").replace("epochs: 2", "epochs: 1")
    (root / "tiny.yaml").write_text(recipe, encoding="utf-8")
    old = Path.cwd()
    os.chdir(root)
    try:
        train(load_recipe(Path("tiny.yaml")), device="cpu")
    finally:
        os.chdir(old)
    return root


@pytest.fixture
def place(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `trained` to work in."""
    root = tmp_path / "work"
    shutil.copytree(trained, root, symlinks=True)
    record = next(root.glob("runs/2*/run.json"))
    record.write_text(record.read_text().replace(str(trained), str(root)))
    monkeypatch.chdir(root)
    return root
