"""Who may use the server of the drawing page, what it says of itself, and clients that keep it waiting."""

import io
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("multipart")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

import uvicorn
from starlette.testclient import TestClient

from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.errors import UsageError
from zssbir_cli.web import guard
from zssbir_cli.web.live import LiveGallery
from zssbir_cli.web.server import build_app
from zssbir_cli.workflows.draw import open_server

LINE = [[0, 0], [4, 1]]


@pytest.fixture
def local(live: LiveGallery) -> Iterator[TestClient]:
    """A server for this machine only, as `zssbir draw` makes it."""
    app = build_app(live, hosts=["127.0.0.1", "localhost", "::1"], k=3)
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        yield client


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "127.0.0.1@evil.example"]
)
def test_a_foreign_name_that_leads_here_is_refused(local: TestClient, host: str) -> None:
    answer = local.get("/photo/0", headers={"Host": host})
    assert answer.status_code == 400
    assert "use the address" in answer.json()["detail"]


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "LOCALHOST:1", "[::1]:8765"])
def test_the_names_of_this_machine_are_answered(local: TestClient, host: str) -> None:
    own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert local.post("/search", json={"strokes": [LINE]}, headers=own).status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "http://evil.example"},
    ],
)
def test_pages_of_other_sites_get_nothing(local: TestClient, sent: dict[str, str]) -> None:
    assert local.get("/photo/0", headers=sent).status_code == 403
    assert local.post("/search", json={"strokes": [LINE]}, headers=sent).status_code == 403
    assert local.get("/static/draw.js", headers=sent).status_code == 403


def test_a_link_to_the_page_may_be_followed(local: TestClient) -> None:
    sent = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert local.get("/", headers=sent).status_code == 200
    assert local.post("/search", json={"strokes": [LINE]}, headers=sent).status_code == 403


BAD_PATHS = [
    "/photo/" + "9" * 5000,
    "/photo/²",
    "/photo/-1",
    "/photo/0%00",
    "/photo/1.0",
    "/static/%00",
    "/static/" + "a" * 5000,
]


@pytest.mark.parametrize("path", BAD_PATHS, ids=lambda p: p[:20])
def test_numbers_that_are_none_are_not_found(local: TestClient, path: str) -> None:
    assert local.get(path).status_code == 404


@pytest.mark.parametrize("size", ["²", "9" * 5000, "16.5", "", "15", "2049", "NaN"])
def test_sizes_that_are_none_are_refused(local: TestClient, size: str) -> None:
    assert local.get("/photo/0", params={"size": size}).status_code == 400


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (
            {"strokes": [LINE], "top": 3},
            "unknown field 'top'; there are image, photo, strokes, like, text, k",
        ),
        ({"strokes": [LINE], "like": 0}, "give one of strokes and like"),
        ({"strokes": [LINE], "min_score": 5}, "min_score must be a number from -1 to 1"),
        ({"strokes": [LINE], "min_score": True}, "min_score must be a number from -1 to 1"),
        ({"strokes": [[["1", "2"], ["3", "4"]]]}, "strokes must be lists of points"),
        ({"strokes": [[[True, 0], [0, 1]]]}, "strokes must be lists of points"),
        ({"strokes": [LINE, LINE[0]]}, "strokes must be lists of points"),
        ({"strokes": [[[0, 0, 1, 1], [1, 1, 1, 1]]]}, "strokes must be lists of points"),
    ],
)
def test_what_would_be_passed_over_is_refused(local: TestClient, body: dict[str, Any], why: str) -> None:
    answer = local.post("/search", json=body)
    assert 400 <= answer.status_code < 500
    assert why in answer.json()["detail"]
    assert local.post("/search?top=3", json={"strokes": [LINE]}).status_code == 400


def test_a_dot_is_a_drawing(local: TestClient) -> None:
    assert len(local.post("/search", json={"strokes": [[[7, 7]]]}).json()["hits"]) == 3


def test_a_photo_that_comes_back_is_shown_again(tmp_path: Path, photo_gallery: tuple[Path, Path]) -> None:
    shutil.copytree(photo_gallery[0], tmp_path / "photos")
    live = LiveGallery(
        open_gallery(tmp_path / "photos", torch.device("cpu"), run=photo_gallery[1], workers=0)
    )
    with TestClient(build_app(live)) as client:
        (tmp_path / "photos").rename(tmp_path / "away")
        assert client.get("/photo/0").status_code == 404
        (tmp_path / "away").rename(tmp_path / "photos")
        assert client.get("/photo/0").status_code == 200
    live.close()


def test_large_pictures_are_not_kept_in_memory(live: LiveGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    from zssbir_cli.web import server

    make = server.jpeg_of_gallery
    monkeypatch.setattr(server, "jpeg_of_gallery", lambda *a: made.append(a[2]) or make(*a))
    with TestClient(build_app(live)) as client:
        for size in (256, 512, 1024) * 3:
            assert client.get(f"/photo/0?size={size}").status_code == 200
    assert sorted(made) == [256, 512, 1024, 1024, 1024]


def test_large_pictures_are_decoded_one_at_a_time(live: LiveGallery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise they would take every thread, and a drawing would wait for all of them."""
    from zssbir_cli.web import queries

    lock, within, most = threading.Lock(), [0], [0]
    go = threading.Event()
    photo = queries.photo

    def slow(raw: bytes, size: int | None = None) -> Any:
        with lock:
            within[0] += 1
            most[0] = max(most[0], within[0])
        go.wait(10)
        with lock:
            within[0] -= 1
        return photo(raw, size)

    monkeypatch.setattr(queries, "photo", slow)
    out = io.BytesIO()
    Image.new("L", (4000, 3000), 9).save(out, "PNG")
    with TestClient(build_app(live)) as client, ThreadPoolExecutor(41) as pool:
        waiting = [pool.submit(client.post, "/search", files={"photo": out.getvalue()}) for _ in range(40)]
        while not within[0]:
            time.sleep(0.01)
        assert client.post("/search", json={"strokes": [LINE]}).status_code == 200
        assert not any(w.done() for w in waiting)
        go.set()
        assert {w.result().status_code for w in waiting} == {200}
    assert most[0] == 1


def fits(value: Any, schema: dict[str, Any], whole: dict[str, Any]) -> None:
    """Check a JSON value against the part of OpenAPI that we use."""
    if "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    kinds = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
    }
    assert isinstance(value, kinds[schema["type"]])
    if schema["type"] == "object":
        assert set(schema["required"]) <= set(value) <= set(schema["properties"])
        for name, part in value.items():
            fits(part, schema["properties"][name], whole)
    if schema["type"] == "array":
        for part in value:
            fits(part, schema["items"], whole)
    assert value in schema.get("enum", [value])


def test_answers_are_as_described(local: TestClient, masked: LiveGallery) -> None:
    whole = local.get("/openapi.json").json()

    def check(answer: Any, method: str, path: str) -> None:
        answers = whole["paths"][path][method]["responses"]
        described = answers.get(str(answer.status_code), answers["default"])
        if "$ref" in described:
            described = whole["components"]["responses"][described["$ref"].rpartition("/")[2]]
        content = described.get("content", {})
        kind = answer.headers.get("content-type", "")
        assert (kind in content) if content else not answer.content
        if kind == "application/json":
            fits(answer.json(), content[kind]["schema"], whole)

    for body in (
        {"strokes": [LINE]},
        {"strokes": [LINE], "min_score": 1},
        {"k": 0},
        {},
        [],
        {"like": 99},
        {"like": 0},
    ):
        check(local.post("/search", json=body), "post", "/search")
    check(local.post("/search", content=b"x"), "post", "/search")
    check(local.get("/healthz"), "get", "/healthz")
    check(local.get("/healthz", headers={"Host": "evil"}), "get", "/healthz")
    for path in ("/photo/0", "/photo/0?size=1", "/photo/99"):
        check(local.get(path), "get", "/photo/{id}")
        check(
            local.get(path.replace("?", "/mask?") if "?" in path else path + "/mask"),
            "get",
            "/photo/{id}/mask",
        )
    tag = local.get("/photo/0").headers["etag"]
    check(local.get("/photo/0", headers={"If-None-Match": tag}), "get", "/photo/{id}")
    with TestClient(build_app(masked, token="geheim")) as client:
        assert "security" not in whole
        whole = client.get("/openapi.json").json()
        assert whole["security"] == [{"header": []}, {"query": []}]
        check(client.get("/photo/0/mask?token=geheim"), "get", "/photo/{id}/mask")
        check(client.get("/photo/0/mask"), "get", "/photo/{id}/mask")
        check(client.post("/search?token=geheim", json={"like": 0}), "post", "/search")


WHOLE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("parts", [[b""], [WHOLE[:30]], [WHOLE, WHOLE[:5]]])
def test_a_connection_that_asks_nothing_is_closed(
    live: LiveGallery, monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    monkeypatch.setattr(guard, "HEAD_SECONDS", 0.5)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        build_app(live), http=guard.PromptProtocol, log_level="error", timeout_keep_alive=600
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    with socket.create_connection(listener.getsockname()) as silent:
        silent.settimeout(60)
        received = b""
        for sent in parts:
            silent.sendall(sent)
            while sent == WHOLE and not received.endswith(b"}"):
                received += silent.recv(65536)
        while part := silent.recv(65536):
            received += part
        assert received.count(b"200 OK") == parts.count(WHOLE)
    server.should_exit = True
    thread.join(10)
    listener.close()


def test_the_address_can_be_opened_elsewhere(photo_gallery: tuple[Path, Path]) -> None:
    server = open_server(
        photo_gallery[0], run=photo_gallery[1], host="0.0.0.0", port=0, workers=0, device="cpu"
    )
    try:
        found = re.fullmatch(r"http://([^:]+):\d+/\?token=[\w-]{20,}", server.address)
        assert found
        assert found[1] != "0.0.0.0"
    finally:
        server.close()


@pytest.mark.parametrize("token", ["a b", "ü", "a&b=c", "a#b"])
def test_a_token_is_part_of_an_address(photo_gallery: tuple[Path, Path], token: str) -> None:
    with pytest.raises(UsageError, match="--token: letters, digits"):
        open_server(photo_gallery[0], run=photo_gallery[1], token=token, port=0)


def test_a_host_that_is_not_ours_is_no_matter_of_ports(photo_gallery: tuple[Path, Path]) -> None:
    with pytest.raises(UsageError, match="choose another host"):
        open_server(photo_gallery[0], run=photo_gallery[1], host="192.0.2.7", port=0)
