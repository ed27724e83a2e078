"""`zssbir demo` from end to end, small: files, numbers, use of earlier work, refusals."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.retrieval.hog import hog
from zssbir_cli.workflows.demo import demo, draw

SMALL = (
    "model.backbone=test_resnet", "data.size=32", "data.workers=0", "train.epochs=2",
    "train.steps_per_epoch=2", "train.batch_size=8", "train.precision=fp32", "method.classes_per_batch=4",
)  # fmt: skip


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "here"
    draw(folder, photos=2, workers=1)
    demo(folder, folder / "data", device="cpu", overrides=SMALL)
    return folder


def test_demo_leaves_data_run_pictures_and_summary(out: Path) -> None:
    assert {p.name for p in out.iterdir()} == {
        "data", "pictures", "runs", "classes.png", "curves.png", "gallery.png", "summary.json",
        "demo.html", "masks",
    }  # fmt: skip
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["queries"], summary["photos"], len(summary["unseen"])) == (13, 26, 13)
    assert [s["name"] for s in summary["scores"]] == [
        "chance", "untrained network", "gradient histograms", "trained network",
    ]  # fmt: skip
    assert all(0 < s["map_all"] <= 1 for s in summary["scores"])
    assert summary["gain"] == pytest.approx(summary["scores"][3]["map_all"] / summary["scores"][1]["map_all"])
    assert (Path(summary["run"]) / "checkpoints" / "best").is_dir()
    record = json.loads((Path(summary["run"]) / "run.json").read_text())
    assert record["preprocessing"]["mean"] is None  # contours are not normalised


def test_the_page_tells_the_story(out: Path) -> None:
    page = (out / "demo.html").read_text("utf-8")
    for name in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert name.startswith("http://127.0.0.1:8765/") or (out / name).is_file(), name
    summary = json.loads((out / "summary.json").read_text())
    for score in summary["scores"]:
        assert f"{100 * score['map_all']:.1f}" in page
    assert all(name.replace("_", " ") in page for name in summary["unseen"])
    assert page.count("alt=") == 4


def test_a_second_demo_uses_the_finished_run(out: Path) -> None:
    before = json.loads((out / "summary.json").read_text())
    said: list[str] = []
    draw(out, photos=2, workers=1)
    again = demo(out, out / "data", device="cpu", overrides=SMALL, say=said.append)
    assert "already trained" in said[0]
    assert str(again.run) == before["run"] or again.run.samefile(before["run"])
    assert [s.map_all for s in again.scores] == [s["map_all"] for s in before["scores"]]


def test_other_options_and_foreign_folders_are_refused(out: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other files or options"):
        draw(out, photos=2, seed=1, workers=1)
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="other files"):
        draw(tmp_path, photos=2, workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_gradient_histograms_see_direction_not_brightness() -> None:
    x = np.tile(np.linspace(0, 200, 64), (64, 1))
    ramp = torch.tensor(np.stack([x, x * 0.5 + 20, x.T]), dtype=torch.float32)[:, None]
    found = hog(ramp)
    assert found.shape == (3, 7 * 7 * 4 * 9)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))
    assert float(found[0] @ found[1]) > 0.99
    assert float(found[0] @ found[2]) < 0.1
    blank = hog(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    assert torch.isfinite(blank).all()
