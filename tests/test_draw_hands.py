"""The drawing page in many hands: pen, two fingers, keys alone, a bad network, long names; nothing drawn is lost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from draw_helpers import Watched, expect, needs_chromium, playwright, serving

from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.models import towers
from zssbir_cli.web.live import LiveGallery

pytestmark = needs_chromium
INK = "c => { const d = c.getContext('2d').getImageData(0, 0, 640, 640).data; let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i] < 128; return n; }"


def ink(page: "playwright.Page") -> int:
    """How many of the paper's pixels are dark."""
    return int(page.locator("#canvas").evaluate(INK))


def at(page: "playwright.Page", x: float, y: float) -> tuple[float, float]:
    """A place on the screen, from shares of the paper."""
    box = page.locator("#canvas").bounding_box()
    assert box
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def test_a_pen_draws_as_hard_as_it_is_pressed(watched: Watched) -> None:
    page, drawn = watched.page, []
    device = page.context.new_cdp_session(page)
    for force in (0.1, 1.0):
        for kind, x in (
            ("mousePressed", 0.2),
            ("mouseMoved", 0.5),
            ("mouseMoved", 0.8),
            ("mouseReleased", 0.8),
        ):
            place = dict(zip("xy", at(page, x, 0.5), strict=True))
            device.send("Input.dispatchMouseEvent", {"type": kind, "button": "left", "buttons": 1, "clickCount": 1,
                                                     "pointerType": "pen", "force": force, **place})  # fmt: skip
        drawn.append(ink(page))
        page.click("#clear")
    assert drawn[1] > 2 * drawn[0] > 0


def test_a_second_finger_adds_nothing(watched: Watched) -> None:
    page = watched.page
    device = page.context.new_cdp_session(page)

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [
            {**dict(zip("xy", at(page, *place), strict=True)), "id": i} for i, place in enumerate(places)
        ]
        device.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", (0.2, 0.2))
    touch("touchMove", (0.5, 0.2))
    touch("touchStart", (0.5, 0.2), (0.9, 0.9))
    touch("touchMove", (0.8, 0.2), (0.8, 0.8))
    touch("touchEnd")
    right = "c => { const d = c.getContext('2d').getImageData(0, 200, 640, 440).data; return d.every((v) => v === 255); }"
    assert ink(page) > 0
    assert page.locator("#canvas").evaluate(right)
    watched.stroke((0.2, 0.9), (0.8, 0.9))  # the fingers are forgotten
    assert not page.locator("#canvas").evaluate(right)


def test_the_keyboard_never_loses_its_place(watched: Watched) -> None:
    page = watched.page
    page.focus("#canvas")
    page.keyboard.press("ArrowUp")
    assert page.locator("#cross").is_visible()
    assert page.locator("#hand").inner_text() == "Pen up, 50 % across, 49 % down."
    page.keyboard.press("Space")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")  # lifts the pen
    drawn = ink(page)
    page.focus("#canvas")
    page.keyboard.press("ArrowDown")
    assert ink(page) == drawn
    watched.wait_for_hits(6)
    page.locator("#hits button").nth(2).focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.textContent") == "Close"
    page.focus("#viewer-like")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("photos like")
    assert page.evaluate("document.activeElement === document.querySelector('#hits button')")
    page.focus("#back")
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_contain_text("6 photos; the best is")
    page.focus("#undo")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "canvas"


def test_it_asks_again_until_the_server_is_back(watched: Watched) -> None:
    page, problems = watched.page, list(watched.problems)
    page.route("**/search*", lambda route: route.abort())
    watched.stroke((0.2, 0.2), (0.8, 0.8))
    expect(page.locator("#status.error")).to_contain_text("does not answer; trying again")
    page.unroute("**/search*")
    watched.wait_for_hits(6)
    assert not page.locator("#status.error").count()
    watched.problems[:] = problems  # Chromium writes failed requests to the console


def test_what_is_cleared_stays_cleared_when_a_slow_answer_comes(watched: Watched) -> None:
    page = watched.page
    held: list[Any] = []
    page.route("**/search*", lambda route: held.append(route))
    watched.stroke((0.2, 0.2), (0.8, 0.8))
    page.wait_for_function("document.querySelector('#hits').getAttribute('aria-busy') === 'true'")
    while not held:
        page.wait_for_timeout(20)
    page.click("#clear")
    with page.expect_response("**/search*"):
        held[0].continue_()
    page.wait_for_timeout(200)
    watched.wait_for_hits(0)
    assert page.locator("#status").inner_text() == "Matching photos appear as you draw."


def test_a_reload_keeps_the_drawing(watched: Watched) -> None:
    watched.stroke((0.2, 0.2), (0.8, 0.2), (0.8, 0.8))
    watched.wait_for_hits(6)
    drawn, hits = ink(watched.page), watched.hits()
    watched.page.reload()
    watched.wait_for_hits(6)
    assert ink(watched.page) == drawn
    assert watched.hits() == hits


def test_a_photo_that_is_gone_is_said_to_be(watched: Watched) -> None:
    watched.page.route("**/photo/*", lambda route: route.fulfill(status=404))
    watched.stroke((0.2, 0.2), (0.8, 0.8))
    watched.wait_for_hits(6)
    expect(watched.page.locator("#hits .gone")).to_have_count(6)
    assert "not there any more" in (
        watched.page.locator("#hits button").first.get_attribute("aria-label") or ""
    )
    watched.problems.clear()  # Chromium writes answers of 404 to the console


@pytest.mark.parametrize("width", [1200, 360])
def test_a_long_name_shows_its_end(browser: "playwright.Browser", address: str, width: int) -> None:
    names = [
        "a folder with a long name/a photo with a very long name 0815.jpg",
        "x <b>&\"'$% 4711.jpg",
        "שלום תמונה מאוד ארוכה 12.jpg",
    ]
    hits = [
        {"rank": i + 1, "score": 0.5, "id": i, "source": name, "class": ""} for i, name in enumerate(names)
    ]
    context = browser.new_context(viewport={"width": width, "height": 740})
    watched = Watched(context.new_page(), address)
    watched.page.route("**/search*", lambda route: route.fulfill(json={"hits": hits}))
    watched.stroke((0.2, 0.2), (0.8, 0.8))
    expect(watched.page.locator("#hits .name")).to_have_text(names)
    assert len(watched.page.locator("#status").inner_text()) < 80
    for tile in watched.page.locator("#hits button").all():
        around, end = tile.bounding_box(), tile.locator(".name span").last.bounding_box()
        assert around
        assert end
        assert around["x"] <= end["x"] < end["x"] + end["width"] <= around["x"] + around["width"]
        assert tile.locator(".name span").last.evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    assert watched.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not watched.problems
    context.close()


def test_words_are_asked_for_where_the_model_reads(
    browser: "playwright.Browser",
    tiny_clip: tuple[torch.nn.Module, Path],
    photo_gallery: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    watched: Watched,
) -> None:
    assert not watched.page.locator("#words").count()
    small = {"num_classes": 16, "embed_dim": 32, "depth": 1, "num_heads": 2}
    tower = towers.Tower(
        "vit_base_patch16_clip_quickgelu_224", "small", small, size=32, text=("tiny-clip", "none")
    )
    monkeypatch.setitem(towers.TOWERS, "small", tower)
    gallery = open_gallery(photo_gallery[0], torch.device("cpu"), model=f"small={tiny_clip[1]}", workers=0)
    live = LiveGallery(gallery)
    with serving(live) as address:
        context = browser.new_context(viewport={"width": 360, "height": 740})
        reading = Watched(context.new_page(), address)
        reading.page.fill("#words", "red")
        reading.wait_for_hits(6)
        alone = reading.hits()
        reading.stroke((0.2, 0.2), (0.8, 0.2), (0.5, 0.8))
        expect(reading.page.locator("#hits .score").first).not_to_have_text("")
        reading.page.fill("#words", "")
        reading.page.click("#clear")
        reading.wait_for_hits(0)
        assert len(alone) == 6
        assert reading.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not reading.problems
        context.close()
    live.close()
