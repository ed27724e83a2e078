"""Drawings as SVG and on nothing; hostile SVG files, which read no file and never end the process."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from zssbir_cli.errors import DataError
from zssbir_cli.inputs.folder import read_photo, sketch_of
from zssbir_cli.preparation.svg import harmless, rasterise

NS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 40 40"'
LINE = '<path d="M4 4L36 16" stroke="black" stroke-width="2"/>'
BOMB = '<!DOCTYPE svg [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


def drawn(path: Path) -> Tensor:
    return sketch_of(path.read_bytes(), path)


def svg(inside: str, before: str = "") -> str:
    return f"{before}<svg {NS}>{inside}</svg>"


HOSTILE = {
    "nested": svg("<g>" * 100_000 + LINE + "</g>" * 100_000),
    "nested a little": svg("<g>" * 1_000 + LINE + "</g>" * 1_000),
    "nested uses": svg(
        "<defs><g id='u0'>" + LINE + "</g>"
        + "".join(f"<g id='u{i + 1}'>" + f"<use href='#u{i}'/>" * 10 + "</g>" for i in range(200))
        + "</defs><use href='#u200'/>"
    ),
    "entities": svg("<text>&b;</text>", BOMB),
    "many": svg("<rect/>" * 300_000),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_bombs_are_refused_and_the_process_lives(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.svg").write_text(HOSTILE[name])
    code = (
        "import sys; from pathlib import Path; from zssbir_cli.preparation.svg import rasterise\n"
        "from zssbir_cli.errors import DataError\n"
        "try: rasterise(Path(sys.argv[1]).read_bytes())\nexcept DataError as e: print('refused', e)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "a.svg"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr[-300:]
    assert done.stdout.startswith(b"refused an SVG")


@pytest.mark.parametrize("attribute", ["href", "xlink:href"])
@pytest.mark.parametrize("place", ["{full}", "secret.png", "file://{full}", " {full}"])
def test_local_pictures_are_not_read(tmp_path: Path, attribute: str, place: str) -> None:
    Image.new("L", (20, 20), 0).save(tmp_path / "secret.png")
    link = place.format(full=tmp_path / "secret.png")
    (tmp_path / "a.svg").write_text(
        svg(f'{LINE}<image {attribute}="{link}" x="0" y="20" width="20" height="20"/>')
    )
    image = drawn(tmp_path / "a.svg")[0].numpy()
    assert (image[300:] == 255).all()
    assert (image[:300] < 128).any()


def test_what_a_drawing_needs_stays() -> None:
    inside = (
        '<style>path { stroke: black; fill: url(#g) }</style><defs><linearGradient id="g"><stop stop-color="red"/>'
        '</linearGradient><path id="p" d="M4 4L36 16"/></defs><use xlink:href="#p"/><text>a &lt; b</text>'
    )
    text = harmless(svg(inside, '<?xml version="1.0"?><!-- by hand -->').encode())
    assert all(part in text for part in ("url(#g)", 'xlink:href="#p"', "a &lt; b", "stroke: black"))
    assert np.frombuffer(rasterise(svg(inside).encode()), np.uint8)[:4].tobytes() == b"\x89PNG"
    assert "secret" not in harmless(
        svg('<style>@import url(secret.css); a { fill: url("secret.svg#x") }</style>').encode()
    )


def test_deep_but_honest_drawings_are_drawn() -> None:
    assert rasterise(svg("<g>" * 60 + LINE + "</g>" * 60).encode())
    with pytest.raises(DataError, match="levels"):
        rasterise(svg("<g>" * 120 + LINE + "</g>" * 120).encode())


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 40 20"><path d="M4 4L36 16" stroke="{}" stroke-width="2"/></svg>'


@pytest.mark.parametrize("color", ["black", "white", "#888"])
def test_svg_sketches_are_dark_on_white(tmp_path: Path, color: str) -> None:
    (tmp_path / "a.svg").write_text(SVG.format(color))
    image = drawn(tmp_path / "a.svg")
    assert image.shape == (1, 256, 512)
    assert image[0, 0, -1] == 255
    assert image[0, 128, 256] < 180


@pytest.mark.parametrize("text", ["", "<svg", "<svg xmlns='x'/>", "\x00\xff<svg >", "<html></html>"])
def test_broken_svg_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.svg").write_text(text)
    with pytest.raises(DataError, match=r"a\.svg"):
        drawn(tmp_path / "a.svg")


def test_svg_of_extreme_shape_is_small() -> None:
    thin = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 100000"><path d="M0 0L1 9" stroke="black"/></svg>'
    assert len(rasterise(thin.encode())) < 10_000


@pytest.mark.parametrize("use", ["filter='url(#f)'", "style='filter:url(#f)'", "class='f'"])
def test_effects_of_filters_are_left_out(use: str) -> None:
    """Noise of a billion octaves never ends; an element whose filter is missing would not be drawn."""
    noise = "<feTurbulence baseFrequency='0.05' numOctaves='1000000000'/>"
    effect = (
        f"<style>.f {{ fill: none; filter: url(#f) }}</style><defs><filter id='f'>{noise}</filter></defs>"
    )
    assert rasterise(svg(effect + LINE.replace("/>", f" {use}/>")).encode()) == rasterise(svg(LINE).encode())


@pytest.mark.parametrize("far", ["1e9", "1E+12", "1e18", "-1e30", "1" + "0" * 12, "123456789"])
def test_places_beyond_all_drawings_are_refused(far: str) -> None:
    """On some of them resvg panics, on others it ends the process, or never returns."""
    path = (
        f"<path d='M10 10 L90 90 C1 2 3 4 -{far.lstrip('-')} 6 A5 5 0 0 1 8 8 Z' stroke='black' fill='none'/>"
    )
    with pytest.raises(DataError, match=r"numbers beyond all drawings \(d\)"):
        rasterise(svg(path).encode())


def test_ordinary_numbers_are_no_places_beyond_all_drawings() -> None:
    line = "<path id='x123456789' d='M4.123456789 4.0e1L36.00000001,1e-07' stroke='#12345678' stroke-width='1e0'/>"
    assert len(rasterise(svg(line).encode())) > 100
    assert len(rasterise(svg(LINE).replace("0 0 40 40", "0 0 40px 40px").encode())) > 100
    with pytest.raises(DataError, match="an SVG whose viewBox is too small"):
        rasterise(svg(LINE).replace("0 0 40 40", "0 0 1e-9 1e-9").encode())


def test_transparent_sketch_and_unreadable_photo(tmp_path: Path) -> None:
    image = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (5, 5, 15, 7))
    image.save(tmp_path / "t.png")
    sketch = drawn(tmp_path / "t.png")
    assert (int(sketch[0, 0, 0]), int(sketch[0, 6, 10])) == (255, 0)
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"b\.jpg: not an image"):
        read_photo(tmp_path / "b.jpg")
