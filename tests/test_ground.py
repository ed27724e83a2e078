"""A drawing on any ground comes out as on white."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from prepare_helpers import encode

from zssbir_cli.data.images import decode_sketch
from zssbir_cli.data.square import square_sketch
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.preparation.clean import drawing as pixels_of
from zssbir_cli.preparation.colour import drawing_of
from zssbir_cli.preparation.ground import on_white
from zssbir_cli.types import Modality

Float = np.ndarray
SIDE = 256


def drawing() -> np.ndarray:
    """A house with a tree: dark grey strokes on white, some long and straight."""
    page = np.full((SIDE, SIDE), 255, np.uint8)
    for a, b in (((60, 220), (60, 120)), ((60, 120), (110, 70)), ((110, 70), (160, 120)), ((160, 120), (160, 220)),
                 ((60, 220), (160, 220)), ((200, 220), (200, 150)), ((95, 220), (95, 180)), ((95, 180), (125, 180))):  # fmt: skip
        cv2.line(page, a, b, (40,), 3, cv2.LINE_AA)
    cv2.circle(page, (200, 120), 32, (40,), 3, cv2.LINE_AA)
    cv2.circle(page, (110, 140), 8, (40,), -1, cv2.LINE_AA)
    return page


def paper(a: Float, level: float) -> Float:
    return 25 + a / 255 * (level - 25)


def noise(a: Float, sigma: float) -> Float:
    return np.asarray(a + np.random.default_rng(0).normal(0, sigma, a.shape))


def jpeg(a: Float, quality: int) -> Float:
    data = cv2.imencode(".jpg", np.clip(a, 0, 255).astype(np.uint8), [1, quality])[1]
    return np.asarray(cv2.imdecode(data, 0)).astype(float)


def ruled(a: Float, both: bool) -> Float:
    sheet = np.full_like(a, 240.0)
    sheet[9::16] = 190
    if both:
        sheet[:, 9::16] = 190
    return np.minimum(sheet, a / 255 * 240)


def strip(a: Float, *, frame: bool) -> Float:
    out = paper(a, 225)
    out[:, :14] = 30
    if frame:
        out[:14] = out[-14:] = 30
        out[:, -14:] = 30
    return out


def radius(a: Float) -> Float:
    y, x = np.mgrid[-1 : 1 : SIDE * 1j, -1 : 1 : SIDE * 1j]
    return np.asarray((x**2 + y**2) / 2)


GROUNDS: dict[str, Callable[[Float], Float]] = {
    "white": lambda a: a,
    "inverted": lambda a: 255 - a,
    "grey": lambda a: paper(a, 200),
    "dark grey": lambda a: paper(a, 130),
    "grain": lambda a: noise(paper(a, 215), 4),
    "lined": lambda a: ruled(a, False),
    "grid": lambda a: ruled(a, True),
    "gradient": lambda a: a / 255 * np.linspace(90, 235, SIDE)[None],
    "shadow": lambda a: jpeg(paper(a, 230) * np.where(np.arange(SIDE) < 130, 0.5, 1)[None], 80),
    "vignette": lambda a: jpeg(noise(paper(a, 225) * (1 - 0.6 * radius(a)), 4), 60),
    "strip": lambda a: strip(a, frame=False),
    "frame": lambda a: strip(a, frame=True),
    "faint": lambda a: 200 - (255 - a) / 255 * 25,
    "pencil": lambda a: jpeg(noise(235 - (255 - a) / 255 * 50, 2.5), 85),
    "chalk": lambda a: noise(50 + (255 - a) / 255 * 150, 9),
    "uneven board": lambda a: np.linspace(30, 110, SIDE)[:, None] + (255 - a) / 255 * 120,
}


def network_input(page: np.ndarray) -> np.ndarray:
    return square_sketch(torch.from_numpy(np.ascontiguousarray(page))[None], 64)[0].numpy().astype(float)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two drawings' network inputs."""
    return float(
        np.corrcoef(*(cv2.GaussianBlur(network_input(x), (0, 0), 1.5).ravel() for x in (a, b)))[0, 1]
    )


@pytest.mark.parametrize("ground", GROUNDS)
def test_any_ground_becomes_white(ground: str) -> None:
    page = np.clip(np.rint(GROUNDS[ground](drawing().astype(float))), 0, 255).astype(np.uint8)
    out, _ = on_white(page)
    assert agreement(out, drawing()) > 0.97
    assert np.median(out) == 255


def on_table(page: Float, table: Float | float, turn: float = 7) -> Float:
    """A sheet that lies askew on something, in view all around."""
    matrix = cv2.getRotationMatrix2D((SIDE / 2, SIDE / 2), turn, 0.75)
    sheet = cv2.warpAffine(np.full_like(page, 1.0), matrix, (SIDE, SIDE)) > 0.5
    return np.where(sheet, cv2.warpAffine(page, matrix, (SIDE, SIDE), borderValue=255), table)


WOOD = 120 + 15 * np.sin(np.linspace(0, 60, SIDE))[:, None] + np.zeros((SIDE, SIDE))


@pytest.mark.parametrize(
    "table", [0.0, 40.0, 95.0, 150.0, WOOD], ids=["black", "dark", "brown", "grey", "wood"]
)
@pytest.mark.parametrize("level", [255, 235])
def test_a_sheet_on_a_table_is_cut_out(table: Float | float, level: float) -> None:
    page = drawing().astype(float)
    seen = noise(on_table(paper(page, level) if level < 255 else page, table), 0 if level == 255 else 3)
    out, note = on_white(np.clip(np.rint(seen), 0, 255).astype(np.uint8))
    assert "edges cut off" in note
    assert agreement(out, on_table(page, 255).astype(np.uint8)) > 0.95


@pytest.mark.parametrize(
    "ground",
    [
        lambda a: a / 255 * np.linspace(40, 245, SIDE)[None],
        lambda a: a / 255 * np.maximum(240 - 190 * radius(a), 30),
    ],
    ids=["gradient", "vignette"],
)
def test_a_dark_part_of_the_sheet_is_no_table(ground: Callable[[Float], Float]) -> None:
    page = np.clip(np.rint(ground(drawing().astype(float))), 0, 255).astype(np.uint8)
    out, _ = on_white(page)
    assert agreement(out, drawing()) > 0.95


@pytest.mark.parametrize("shape", ["cross", "lobes"])
def test_a_filled_white_shape_on_black_is_no_sheet(shape: str) -> None:
    page = np.zeros((SIDE, SIDE), np.uint8)
    low, high = SIDE // 8, SIDE - SIDE // 8
    if shape == "cross":
        page[low:high, SIDE // 3 : 2 * SIDE // 3] = page[SIDE // 3 : 2 * SIDE // 3, low:high] = 255
    else:
        for at in (SIDE // 3, 2 * SIDE // 3):
            cv2.circle(page, (at, SIDE // 2), SIDE // 4, 255, -1)
    out, note = on_white(page)
    assert note == "light on dark: inverted"
    assert np.array_equal(out, 255 - page)


def test_a_filled_shape_in_a_corner_is_no_table() -> None:
    page = drawing().astype(float)
    cv2.circle(page, (0, 0), SIDE // 4, 10, -1)
    out, note = on_white(np.clip(np.rint(noise(paper(page, 220), 3)), 0, 255).astype(np.uint8))
    assert "edges cut off" not in note
    assert np.median(out[: SIDE // 8, : SIDE // 8]) < 128


def test_a_stroke_into_a_corner_is_no_table() -> None:
    page = drawing().astype(float)
    cv2.line(page, (0, 0), (SIDE // 3, SIDE // 3), (10,), 8)
    out, note = on_white(np.clip(np.rint(noise(paper(page, 200), 3)), 0, 255).astype(np.uint8))
    assert "edges cut off" not in note
    assert out[2, 2] < 100


def test_strokes_close_to_a_dark_strip_stay() -> None:
    page = drawing().astype(float)
    deep = SIDE // 14
    page[: deep + 4] = 255
    page[deep + 4 : deep + 7, SIDE // 4 : SIDE // 2] = 0
    seen = paper(page, 220)
    seen[:deep] = 25
    out, note = on_white(np.rint(seen).astype(np.uint8))
    assert "edges cut off" in note
    assert out[deep + 5, SIDE // 3] < 50
    assert out[: deep - 1].min() == 255


def test_faint_strokes_on_white_become_dark() -> None:
    faint = np.rint(255 - (255 - drawing().astype(float)) * 0.15).astype(np.uint8)
    out = pixels_of(encode(Image.fromarray(faint), "PNG"))
    assert out.min() < 30
    assert agreement(out, drawing()) > 0.97
    assert (
        "faint strokes made dark"
        in clean(encode(Image.fromarray(faint), "PNG"), Modality.SKETCH, CleanOptions()).note
    )
    dot = np.full((100, 100), 255, np.uint8)
    dot[50, 50] = 200  # no stroke, but there all the same
    assert pixels_of(encode(Image.fromarray(dot), "PNG")).min() == 200


def framed(a: Float, level: float = 255) -> Float:
    """A thin printed frame in the margin of the sheet."""
    out = cv2.copyMakeBorder(paper(a, level), 26, 26, 26, 26, cv2.BORDER_CONSTANT, value=level)
    cv2.rectangle(out, (9, 9), (out.shape[1] - 10, len(out) - 10), 40, 2)
    return out


@pytest.mark.parametrize(
    "ground",
    [
        lambda a: a,
        lambda a: 255 - a,
        lambda a: jpeg(a, 75),
        lambda a: jpeg(noise(a / 255 * 205, 3), 80),
        lambda a: paper(a, 150),
    ],
)
def test_a_frame_in_the_margin_is_taken_away(ground: Callable[[Float], Float]) -> None:
    page = np.clip(np.rint(ground(framed(drawing().astype(float)))), 0, 255).astype(np.uint8)
    out, note = on_white(page)
    assert "frame removed" in note
    assert agreement(out, drawing()) > 0.97


def test_rectangles_that_are_drawn_stay() -> None:
    """A television with its screen, a cupboard whose doors touch its sides, an empty frame, and a square with a mark beside it."""
    page = np.full((SIDE, SIDE), 255, np.uint8)
    cv2.rectangle(page, (10, 10), (245, 245), (30,), 2)
    screen, cupboard, beside = page.copy(), page.copy(), page.copy()
    cv2.rectangle(screen, (40, 40), (215, 180), (30,), 2)
    for x in (90, 170):
        cv2.line(cupboard, (x, 10), (x, 245), (30,), 2)
    cv2.circle(beside, (120, 120), 40, (30,), 2)
    cv2.line(beside, (1, 1), (5, 5), (30,), 2)
    for kept in (page, screen, cupboard, beside):
        assert on_white(kept)[0] is kept


@pytest.mark.parametrize("thick", [8, 14, 30])
def test_a_black_frame_at_the_edge_of_white_paper_is_no_dark_ground(thick: int) -> None:
    page = cv2.copyMakeBorder(drawing(), thick, thick, thick, thick, cv2.BORDER_CONSTANT, value=0)
    assert agreement(on_white(page)[0], drawing()) > 0.97


@pytest.mark.parametrize("side", [16, 24, 32, 48, 64])
def test_small_drawings_on_white_keep_their_bits(side: int) -> None:
    """Strokes are mostly soft edge there; the zigzag fills the sheet to its border."""
    scribble = drawing()
    for x in range(0, SIDE, 24):
        cv2.line(scribble, (x, 250), (x + 12, 5), (0,), 4, cv2.LINE_AA)
    for page in (drawing(), scribble):
        small = np.asarray(Image.fromarray(page).resize((side, side), Image.Resampling.BICUBIC))
        assert on_white(small)[0] is small


def test_a_drawing_on_white_keeps_its_bits() -> None:
    filled = np.full((SIDE, SIDE), 255, np.uint8)
    filled[20:236, 20:236] = 0
    for page in (drawing(), filled):
        out, note = on_white(page)
        assert out is page
        assert note == ""
        raw = encode(Image.fromarray(page), "PNG")
        assert clean(raw, Modality.SKETCH, CleanOptions()).data == raw
        assert np.array_equal(on_white(255 - page)[0], page)


COLOURS = {
    "blue on yellow": ((40, 60, 170), (240, 225, 110)), "yellow on white": ((255, 235, 90), (255, 255, 255)),
    "red on green": ((205, 60, 60), (80, 120, 90)), "white on green": ((225, 225, 215), (50, 95, 70)),
    "green on red": ((70, 150, 90), (200, 95, 90)),
}  # fmt: skip


@pytest.mark.parametrize("colours", COLOURS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_strokes_and_paper_of_any_colours(colours: str, kind: str) -> None:
    ink, ground = (np.array(c, float) for c in COLOURS[colours])
    share = drawing()[..., None] / 255.0
    page = np.clip(np.rint(noise(share * ground + (1 - share) * ink, 2)), 0, 255).astype(np.uint8)
    raw = encode(Image.fromarray(page), kind)
    result = clean(raw, Modality.SKETCH, CleanOptions())
    out = decode_sketch(np.frombuffer(result.data or b"", np.uint8))[0].numpy()
    assert agreement(out, drawing()) > 0.97
    assert np.array_equal(pixels_of(raw), out)


def test_a_coloured_drawing_that_luminance_shows_keeps_its_bits() -> None:
    page = np.dstack([np.where(drawing() < 128, 200, 255), drawing(), drawing()]).astype(np.uint8)
    for kind in ("PNG", "JPEG"):
        raw = encode(Image.fromarray(page), kind)
        result = clean(raw, Modality.SKETCH, CleanOptions())
        assert (result.data, result.note) == (raw, "")
        assert np.array_equal(pixels_of(raw), decode_sketch(np.frombuffer(raw, np.uint8))[0].numpy())


@pytest.mark.parametrize("level", [0, 128, 200, 255])
def test_a_blank_page_is_left_out_with_its_reason(level: int) -> None:
    raw = encode(Image.new("L", (96, 96), level), "PNG")
    assert clean(raw, Modality.SKETCH, CleanOptions()).note == "blank: no ink found"
    assert clean(raw, Modality.PHOTO, CleanOptions()).data == raw


def test_prepare_tells_and_stores_what_was_done() -> None:
    raw = encode(Image.fromarray(np.clip(GROUNDS["gradient"](drawing()), 0, 255).astype(np.uint8)), "PNG")
    result = clean(raw, Modality.SKETCH, CleanOptions())
    assert result.note == "ground made white"
    stored = decode_sketch(np.frombuffer(result.data or b"", np.uint8))[0].numpy()
    assert agreement(stored, drawing()) > 0.97


def test_sets_of_older_versions_are_inverted_when_they_are_read() -> None:
    raw = np.frombuffer(encode(Image.fromarray(255 - drawing()), "PNG"), np.uint8)
    assert np.array_equal(decode_sketch(raw, on_white=False)[0].numpy(), drawing())
    assert np.array_equal(decode_sketch(raw)[0].numpy(), 255 - drawing())


SIDES = st.sampled_from([1, 2, 3, 5, 15, 23, 24, 25, 32, 96, 97, 128, 300, 2048])


@cases(150)
@given(SIDES, SIDES, st.integers(0, 255), st.integers(0, 255), st.integers(0, 1 << 30))
@example(32, 2048, 250, 20, 0)
@example(31, 3, 10, 240, 9)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_drawings_of_any_shape(height: int, width: int, level: int, ink: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    page = np.full((height, min(width, 100_000 // height)), level, np.uint8)
    for _ in range(int(rng.integers(4))):
        top, left = int(rng.integers(height)), int(rng.integers(page.shape[1]))
        page[top : top + int(rng.integers(1, 40)), left : left + int(rng.integers(1, 40))] = ink
    if seed % 3 == 0:
        page = np.clip(noise(page, 20), 0, 255).astype(np.uint8)
    assert on_white(page)[0].shape == page.shape
    assert drawing_of(np.dstack([page, 255 - page, np.full_like(page, 255)]))[0].shape == page.shape


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_dark_drawing_of_nine_pixels_has_no_inside() -> None:
    page = np.array([[60, 100, 100], [60, 100, 100], [0, 0, 0]], np.uint8)
    assert on_white(page)[0].shape == (3, 3)
