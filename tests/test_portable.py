"""The main path without what only POSIX systems have."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

RECIPE = """
name: "tiny: first"
method: {name: triplet, triplet_weight: 0.0, contrast_weight: 1.0, classes_per_batch: 4}
data: {root: data/pics, size: 32, workers: 1}
model: {backbone: test_resnet, weights: none, projection: 16}
train: {epochs: 1, steps_per_epoch: 2, batch_size: 8, precision: fp32}
"""


def _pictures(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for number in range(6):
        corners = [tuple(int(v) for v in p) for p in draw.integers(4, 44, (4, 2))]
        for kind in ("sketch", "photo"):
            home = folder / "pics" / kind / f"class{number}"
            home.mkdir(parents=True)
            for copy in range(3):
                shifted = [(x + copy, y) for x, y in corners]
                image = Image.new("RGB", (48, 48), "white" if kind == "sketch" else (190, 200, 40 * number))
                ImageDraw.Draw(image).polygon(
                    shifted, outline="black", fill=None if kind == "sketch" else "red"
                )
                image.save(home / (f"{copy}.png" if kind == "sketch" else f"{copy}.jpg"))
    (folder / "photos").mkdir()
    for number in range(6):
        Image.open(folder / f"pics/photo/class{number}/0.jpg").save(folder / f"photos/{number}.jpg")
    Image.open(folder / "pics/sketch/class1/0.png").save(folder / "query.png")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells mapped files by /proc")
def test_the_main_path_needs_nothing_that_only_posix_systems_have(tmp_path: Path) -> None:
    _pictures(tmp_path)
    (tmp_path / "r.yaml").write_text(RECIPE)
    environment = os.environ | {"PYTHONWARNDEFAULTENCODING": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    worker = Path(__file__).with_name("portable_worker.py")
    done = subprocess.run(
        [sys.executable, str(worker), str(tmp_path)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout[-800:] + done.stderr[-3000:]
    assert (tmp_path / "found.html").is_file()
    assert next((tmp_path / "runs").glob("2*/eval/*.json"))
