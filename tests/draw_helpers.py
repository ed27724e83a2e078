"""The drawing page in a real browser, and what went wrong on it."""

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")
playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
expect.set_options(timeout=30_000)

from zssbir_cli.web.live import LiveGallery  # noqa: E402
from zssbir_cli.web.server import build_app  # noqa: E402

CHROMIUM = next(
    (p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run"]  # fmt: skip


@contextmanager
def serving(live: LiveGallery) -> Iterator[str]:
    """The address of a server that runs meanwhile."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(build_app(live, k=6), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


class Watched:
    """A page, with what went wrong on it and whom it asked."""

    def __init__(self, page: "playwright.Page", address: str) -> None:
        self.page, self.problems, self.hosts = page, list[str](), set[str]()
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.problems.append(str(e)))
        page.on(
            "request",
            lambda r: None if r.url.startswith((address, "blob:", "data:")) else self.hosts.add(r.url),
        )
        page.goto(address)

    def hits(self) -> list[str]:
        return self.page.locator("#hits .name").all_text_contents()

    def wait_for_hits(self, count: int) -> None:
        expect(self.page.locator("#hits li")).to_have_count(count, timeout=20_000)
        expect(self.page.locator("#hits")).to_have_attribute("aria-busy", "false", timeout=30_000)

    def stroke(self, *points: tuple[float, float]) -> None:
        """Draw a line through points in shares of the paper."""
        box = self.page.locator("#canvas").bounding_box()
        at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
        self.page.mouse.move(*at[0])
        self.page.mouse.down()
        for place in at[1:]:
            self.page.mouse.move(*place, steps=5)
        self.page.mouse.up()
