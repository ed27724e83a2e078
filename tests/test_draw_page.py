"""The drawing page in a real browser: strokes, results, undo, upload, keyboard, phone width; no foreign requests."""

import re
from pathlib import Path

import pytest
from draw_helpers import Watched, expect, needs_chromium, playwright, serving

from zssbir_cli.web.live import LiveGallery

pytestmark = needs_chromium


def test_draw_undo_redo_clear(watched: Watched) -> None:
    page = watched.page
    watched.stroke((0.2, 0.2), (0.8, 0.2), (0.8, 0.8), (0.2, 0.8), (0.2, 0.2))
    watched.wait_for_hits(6)
    assert page.locator("#hint").is_hidden()
    square = watched.hits()
    watched.stroke((0.1, 0.9), (0.9, 0.1))
    page.wait_for_timeout(400)
    page.click("#undo")
    expect(page.locator("#hits .name")).to_have_text(square)
    page.keyboard.press("Control+y")
    page.keyboard.press("Control+z")
    page.click("#clear")
    watched.wait_for_hits(0)
    assert page.locator("#hint").is_visible()
    page.click("#undo")  # the clearing
    expect(page.locator("#hits .name")).to_have_text(square)
    page.click("#undo")
    watched.wait_for_hits(0)
    assert page.locator("#undo").is_disabled()


def test_the_gallery_answers_before_the_stroke_ends(watched: Watched) -> None:
    page = watched.page
    box = page.locator("#canvas").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 250, box["y"] + 250, steps=10)
    expect(page.locator("#hits li")).to_have_count(6, timeout=20_000)  # the pen is still down
    page.mouse.up()


def test_a_photo_is_shown_large_and_leads_to_others(watched: Watched) -> None:
    page = watched.page
    watched.stroke((0.2, 0.2), (0.8, 0.8))
    watched.wait_for_hits(6)
    first = page.locator("#hits button").first
    name = first.locator(".name").get_attribute("title")
    first.click()
    assert page.locator("#viewer-name").inner_text() == name
    expect(page.locator("#viewer-image")).to_have_js_property("complete", True)
    assert page.locator("#viewer-image").evaluate("e => e.naturalWidth") > 0
    assert re.search("&v=[0-9a-f]{12}", page.locator("#viewer-image").get_attribute("src"))
    assert page.locator("#viewer-mask").is_hidden()
    page.click("#viewer-like")
    expect(page.locator(f"#hits .name[title='{name}']")).to_have_count(0)


@pytest.mark.parametrize("width", [1200, 390])
def test_what_the_masks_keep_is_shown_with_the_photo(
    browser: "playwright.Browser", masked: LiveGallery, width: int
) -> None:
    with serving(masked) as address:
        context = browser.new_context(viewport={"width": width, "height": 844})
        watched = Watched(context.new_page(), address)
        watched.stroke((0.2, 0.2), (0.8, 0.8))
        watched.wait_for_hits(6)
        watched.page.locator("#hits button").first.click()
        image = watched.page.locator("#viewer-mask-image")
        expect(image).to_be_visible()
        expect(image).to_have_js_property("naturalWidth", 64)
        assert "What the masks keep" in watched.page.locator("#viewer").inner_text()
        assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not watched.problems
        context.close()


def test_an_uploaded_drawing_and_a_photo_are_searched(
    watched: Watched, photo_gallery: tuple[Path, Path], tmp_path: Path
) -> None:
    folder = photo_gallery[0]
    from PIL import Image, ImageDraw

    image = Image.new("L", (300, 200), 230)
    ImageDraw.Draw(image).ellipse((60, 20, 240, 180), outline=30, width=6)
    image.save(tmp_path / "paper.png")
    watched.page.set_input_files("#open-drawing", tmp_path / "paper.png")
    watched.wait_for_hits(6)
    photo = sorted(folder.rglob("*.jpg"))[0]
    watched.page.set_input_files("#open-photo", photo)
    name = photo.relative_to(folder).as_posix()
    expect(watched.page.locator("#hits .name").first).to_have_attribute("title", name)


def test_with_the_keyboard_alone(watched: Watched) -> None:
    page = watched.page
    for _ in range(3):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "canvas":
            break
    assert page.evaluate("document.activeElement.id") == "canvas"
    page.keyboard.press("Space")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        for _ in range(8):
            page.keyboard.press(key)
    page.keyboard.press("Space")
    watched.wait_for_hits(6)
    assert "photos; the best is" in page.locator("#status").inner_text()
    page.locator("#hits button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#viewer").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_at_a_phones_width(browser: "playwright.Browser", address: str, scheme: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme=scheme)
    watched = Watched(context.new_page(), address)
    watched.stroke((0.2, 0.5), (0.8, 0.5))
    watched.wait_for_hits(6)
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert watched.page.locator("#hits img").first.bounding_box()["y"] < 844 - 100, "results are in sight"
    for button in watched.page.locator("button:visible, .button:visible").all():
        box = button.bounding_box()
        assert box["height"] >= 40, button.inner_text()
    assert not watched.problems
    context.close()
