"""Contact sheets, fonts, curves and pages: what is drawn, that it fits, and clear errors."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from viz_helpers import HOSTILE

from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.viz import fonts
from zssbir_cli.viz.canvas import HIT, MISS, to_image
from zssbir_cli.viz.curves import Level, _lines, _telling, save_curves
from zssbir_cli.viz.fonts import drawable, fitted, shortened, text_width, wrapped
from zssbir_cli.viz.page import Table, link, render
from zssbir_cli.viz.sheet import Row, Tile, save_sheet

PHOTO = np.full((40, 60, 3), 90, np.uint8)
SKETCH = np.full((50, 50), 255, np.uint8)


def count(path: Path, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(Image.open(path)) == colour).all(2).sum())


def sheet(path: Path, *rows: Row) -> Path:
    return save_sheet(path, rows, title="title")


@pytest.mark.parametrize("text", ["2019/Italy/lago di Como/raw", "e\u0301" * 20, "a", ""])
@pytest.mark.parametrize("room", [1, 7, 12, 60])
def test_a_long_path_loses_its_middle(text: str, room: int) -> None:
    short = shortened(text, lambda part: len(part) <= room)
    assert len(short) <= room
    if len(text) <= room:
        assert short == text
    else:
        head, tail = short.split("…")
        assert text.startswith(head)
        assert text.endswith(tail)
        assert not tail.startswith("\u0301")
        assert text[len(head) : len(head) + 1] != "\u0301"


def test_hits_and_misses_differ_in_colour_and_mark(tmp_path: Path) -> None:
    pictures = {}
    for mark in ("hit", "miss", ""):
        row = Row([[Tile(SKETCH, "cup", mark="query")], [Tile(PHOTO, "cup", "0.500", 1, mark)]])
        pictures[mark] = sheet(tmp_path / f"{mark}x.png", row)
    assert count(pictures["hit"], HIT) > 500
    assert count(pictures["miss"], MISS) > 500
    assert count(pictures[""], HIT) == count(pictures[""], MISS) == 0
    hit, miss = (np.asarray(Image.open(pictures[h]).convert("L")).astype(int) for h in ("hit", "miss"))
    assert (np.abs(hit - miss) > 120).sum() > 20  # tick and cross differ without colour, too


def test_a_sheet_fits_what_it_shows(tmp_path: Path) -> None:
    tiles = [Tile(np.zeros((7, 300, 3), np.uint8), "a very long class name " * 5, "-1.000", 1)] * 23
    sizes = {
        n: Image.open(sheet(tmp_path / f"{n}.png", Row([tiles[:1], tiles[:n]]))).size for n in (4, 8, 10, 23)
    }
    assert sizes[4][0] < sizes[8][0] < sizes[10][0] == sizes[23][0]
    assert sizes[4][1] == sizes[10][1] < sizes[23][1]  # 23 photos take three lines
    right = np.asarray(Image.open(tmp_path / "8.png"))[:, -24:]
    assert (right[:, :4] != 255).any()  # the last photo ends at the margin
    assert (right[:, 5:] == 255).all()
    missing = sheet(tmp_path / "none.png", Row([[Tile(SKETCH)], [Tile(None, "gone")]], "row", "note"))
    assert Image.open(missing).size[0] > 0


def test_long_text_is_cut_to_its_room() -> None:
    for text in ("hot air balloon and more", "ÄÖÜ" * 9, "e\u0301" * 40, "写" * 30, "word " * 20):
        short = fitted(text, 60, 12)
        assert short.endswith("…")
        assert text_width(short, 12) <= 60
        lines = wrapped(text, 60, 12, lines=3)
        assert len(lines) <= 3
        assert all(text_width(line, 12) <= 60 for line in lines)
    assert fitted("a\nb", 60, 12) == "a b"
    assert fitted("hot_air.png", 200, 12) == "hot_air.png"


def test_no_character_is_drawn_as_a_box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_system_fonts", tuple)
    fonts._font_of.cache_clear()
    try:
        assert drawable("Bär, Ωμέγα, Мяч") == "Bär, Ωμέγα, Мяч"
        assert drawable("写真", "class 7") == "class 7"
        assert drawable("写真 2") == "… 2"
        assert drawable("か") == "ka"
        assert drawable("cat \U0001f9ed\ufe0f") == "cat compass"
        for name in HOSTILE:
            shown = drawable(name, "spare")
            assert shown
            assert all(fonts._font_of(c) == "" for c in shown if not c.isspace())
    finally:
        fonts._font_of.cache_clear()


def test_a_font_of_the_system_is_used_where_dejavu_has_no_glyph(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    stix = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf")
    only = "\u1d81"  # a letter that DejaVu Sans lacks
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (stix,))
    fonts._font_of.cache_clear()
    try:
        assert drawable(only) == only
        assert [path for _, path in fonts._runs(f"a{only}b")] == ["", stix, ""]
        assert fonts.families([only]) == ["DejaVu Sans", "STIXGeneral"]
    finally:
        fonts._font_of.cache_clear()


def test_bad_pictures_and_places_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one"):
        sheet(tmp_path / "g.png")
    with pytest.raises(UsageError, match="uint8"):
        to_image(np.zeros((3, 5, 5), np.float32), 10)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        sheet(tmp_path / "file" / "g.png", Row([[Tile(PHOTO)]]))


def test_curves_have_a_panel_for_what_there_is(tmp_path: Path) -> None:
    losses = [{"step": i, "loss": 1 / (i + 1), "loss/triplet": 0.5, "lr": 1e-3} for i in range(20)]
    measured = [{"step": i, "val/mAP@all": 0.1 * i, "val/P@100": None} for i in range(4)]
    one = Image.open(save_curves(tmp_path / "a.png", losses, title="$x_{$ 写真")).size
    level = Level("untrained", "mAP@all", 0.1)
    two = Image.open(save_curves(tmp_path / "b.png", losses + measured, levels=[level])).size
    assert two[0] == one[0]
    assert two[1] > one[1]
    with pytest.raises(UsageError, match="no losses"):
        save_curves(tmp_path / "c.png", [{"step": 1, "lr": 0.1}, {"loss": 2.0}])
    assert not (tmp_path / "c.png").exists()


def test_no_curve_lies_on_the_edge(tmp_path: Path) -> None:
    rows = [{"step": i, "val/mAP@all": 0.7 + 0.01 * i} for i in range(3)]
    pixels = np.asarray(Image.open(save_curves(tmp_path / "a.png", rows))).astype(int)
    line = np.abs(pixels - [0x0B, 0x6E, 0x99]).sum(2) < 30
    frame = np.flatnonzero((pixels.sum(2) < 400).sum(0) > 200)[0]  # the vertical axis
    top = np.flatnonzero(pixels[:, frame].sum(1) < 600)[0]
    highest = np.flatnonzero(line[:, frame : frame + 500].any(1))[0]
    assert highest > top + 8


def test_curves_that_coincide_are_one_line_and_constant_measures_go() -> None:
    rows = [{"step": i, "loss": 1 / (i + 1), "loss/contrast": 1 / (i + 1), "loss/x": 0.5} for i in range(5)]
    assert [x.names for x in _lines(rows, "loss")] == [["loss", "loss/contrast"], ["loss/x"]]
    rows = [{"step": i, "val/mAP@all": 0.1 * i, "val/P@100": 0.08} for i in range(5)]
    assert [x.names for x in _telling(_lines(rows, "val/"))] == [["mAP@all"]]
    assert _telling(_lines(rows[:1], "val/"))


def test_pages_escape_and_link(tmp_path: Path) -> None:
    tiles = [
        Tile(
            np.zeros((8, 8, 3), np.uint8), name, "0.5", i + 1, "hit", link(tmp_path / f"{i}", tmp_path / "p")
        )
        for i, name in enumerate(HOSTILE)
    ]
    queries = [
        {"heading": h, "note": h, "query": t, "results": tiles} for h, t in zip(HOSTILE, tiles, strict=True)
    ]
    text = render("search", title="<script>alert(1)</script>", about="a & b", queries=queries)
    assert "<script" not in text
    assert "a &amp; b" in text
    assert not re.search(r'(src|href)="(?!data:image/jpeg|\d)', text)
    assert all(alt for alt in re.findall(r'alt="([^"]*)"', text))
    page = tmp_path / "out" / "page.html"
    assert link(tmp_path / "été 写#?.jpg", page) == "../%C3%A9t%C3%A9%20%E5%86%99%23%3F.jpg"
    assert link(page.parent / "javascript:alert(1)", page) == "javascript%3Aalert%281%29"


def test_numbers_stand_on_the_right() -> None:
    table = Table(("name", "%", "range"), [("a", "1.5", "1 – 2"), ("b", "", "3 – 4")])
    assert table.numeric == [False, True, True]
