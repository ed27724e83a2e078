"""Galleries and learning curves: what is drawn, and clear errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.viz.canvas import HIT, MISS, fitted, font, to_image
from zssbir_cli.viz.curves import save_curves
from zssbir_cli.viz.gallery import Found, GalleryRow, save_gallery

PHOTO = np.full((40, 60, 3), 90, np.uint8)
SKETCH = np.full((50, 50), 255, np.uint8)


def count(path: Path, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(Image.open(path)) == colour).all(2).sum())


def test_hits_and_misses_differ_in_colour_and_mark(tmp_path: Path) -> None:
    pictures = {}
    for hit in (True, False, None):
        row = GalleryRow(SKETCH, "cup", [Found(PHOTO, "cup", 0.5, hit)])
        pictures[hit] = save_gallery(tmp_path / f"{hit}.png", [row])
    assert count(pictures[True], HIT) > 500
    assert count(pictures[True], MISS) == 0
    assert count(pictures[False], MISS) > 500
    assert count(pictures[False], HIT) == 0
    assert count(pictures[None], HIT) == count(pictures[None], MISS) == 0
    hit, miss = (np.asarray(Image.open(pictures[h]).convert("L")).astype(int) for h in (True, False))
    assert (np.abs(hit - miss) > 120).sum() > 20  # tick and cross differ without colour, too


def test_gallery_grows_with_rows_and_takes_any_shape(tmp_path: Path) -> None:
    found = [Found(np.zeros((7, 300, 3), np.uint8), "a very long class name " * 5, -1.0, False)] * 3
    one = save_gallery(tmp_path / "one.png", [GalleryRow(PHOTO, "x", found[:1])])
    two = save_gallery(tmp_path / "two.png", [GalleryRow(SKETCH, "x", found), GalleryRow(SKETCH, "y", [])])
    (w1, h1), (w2, h2) = Image.open(one).size, Image.open(two).size
    assert w2 > w1
    assert h2 > h1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_long_text_is_cut_to_its_room() -> None:
    from PIL import ImageDraw

    draw, face = ImageDraw.Draw(Image.new("RGB", (10, 10))), font(12)
    short = fitted(draw, "hot_air_balloon and more", 60, face)
    assert short.endswith("…")
    assert draw.textlength(short, font=face) <= 60
    assert fitted(draw, "a\nb", 60, face) == "a b"


def test_bad_pictures_and_places_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        save_gallery(tmp_path / "g.png", [])
    with pytest.raises(UsageError, match="uint8"):
        to_image(np.zeros((3, 5, 5), np.float32), 10)
    (tmp_path / "file").write_text("")
    row = GalleryRow(SKETCH, "cup", [Found(PHOTO, "cup", 0.5, True)])
    with pytest.raises(DataError, match="cannot be written"):
        save_gallery(tmp_path / "file" / "g.png", [row])


def test_curves_have_a_panel_for_what_there_is(tmp_path: Path) -> None:
    losses = [{"step": i, "loss": 1 / (i + 1), "loss/triplet": 0.5, "lr": 1e-3} for i in range(20)]
    measured = [{"step": i, "val/mAP@all": 0.1 * i, "val/P@100": None} for i in range(4)]
    one = Image.open(save_curves(tmp_path / "a.png", losses)).size
    two = Image.open(save_curves(tmp_path / "b.png", losses + measured, levels={"untrained": 0.1})).size
    assert two[0] == one[0]
    assert two[1] > one[1]
    with pytest.raises(UsageError, match="no losses"):
        save_curves(tmp_path / "c.png", [{"step": 1, "lr": 0.1}, {"loss": 2.0}])
    assert not (tmp_path / "c.png").exists()
