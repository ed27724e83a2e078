"""`zssbir draw` as an HTTP server: what it answers, and that nothing hostile brings it down."""

import asyncio
import io
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("starlette")
pytest.importorskip("multipart")
pytest.importorskip("httpx")

from puxim_helpers import PUXIM, masked_gallery
from starlette.testclient import TestClient

from zssbir_cli.data.embeddings import write_embeddings
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.errors import DataError
from zssbir_cli.evaluation.masks import masks_of_gallery
from zssbir_cli.methods.puxim.method import Puxim
from zssbir_cli.types import Modality, Part
from zssbir_cli.web.live import LiveGallery, Query
from zssbir_cli.web.server import build_app

STAR = [(48, 6), (58, 38), (92, 38), (64, 58), (76, 92), (48, 70), (20, 92), (32, 58), (4, 38), (38, 38), (48, 6)]  # fmt: skip


def png(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind)
    return out.getvalue()


def star() -> bytes:
    image = Image.new("L", (96, 96), 255)
    ImageDraw.Draw(image).line(STAR, fill=0, width=3)
    return png(image)


@pytest.fixture
def client(live: LiveGallery) -> Iterator[TestClient]:
    with TestClient(build_app(live, k=5), raise_server_exceptions=True) as client:
        yield client


def test_a_drawing_finds_photos_best_first(client: TestClient, live: LiveGallery) -> None:
    answer = client.post("/search", files={"image": star()})
    assert answer.status_code == 200
    hits = answer.json()["hits"]
    assert [h["rank"] for h in hits] == [1, 2, 3, 4, 5]
    assert [h["score"] for h in hits] == sorted((h["score"] for h in hits), reverse=True)
    assert set(hits[0]) == {"rank", "score", "id", "source", "class"}
    assert hits[0]["source"] == live.stored.sources[hits[0]["id"]]


def test_strokes_find_what_the_same_drawing_finds(client: TestClient) -> None:
    drawn = client.post("/search", files={"image": star()}, data={"k": "3"}).json()["hits"]
    strokes = client.post("/search", json={"strokes": [STAR], "k": 3}).json()["hits"]
    assert len(strokes) == 3
    assert abs(drawn[0]["score"] - strokes[0]["score"]) < 0.1


def test_more_like_this_leaves_the_photo_itself_out(client: TestClient, live: LiveGallery) -> None:
    hits = client.post("/search", json={"like": 2, "k": live.photos}).json()["hits"]
    assert len(hits) == live.photos - 1
    assert 2 not in [h["id"] for h in hits]


def test_a_photo_as_query_finds_itself(client: TestClient) -> None:
    picture = client.get("/photo/1?size=2048")
    assert picture.headers["content-type"] == "image/jpeg"
    hits = client.post("/search", files={"photo": picture.content}).json()["hits"]
    assert hits[0]["id"] == 1
    assert hits[0]["score"] > 0.98


def test_a_least_score_is_kept_and_said(client: TestClient) -> None:
    answer = client.post("/search?min_score=1.0", files={"image": star()}).json()
    assert (answer["hits"], answer["note"]) == ([], "nothing above 1")


def test_photos_are_bounded_cached_and_only_the_gallerys(client: TestClient, live: LiveGallery) -> None:
    small = client.get("/photo/0?size=32")
    assert max(Image.open(io.BytesIO(small.content)).size) <= 32
    assert client.get("/photo/0?size=32", headers={"If-None-Match": small.headers["etag"]}).status_code == 304
    assert client.get(f"/photo/{live.photos}").status_code == 404
    for bad in ("1000000", "x", "-5", "²", "9" * 5000):
        assert client.get(f"/photo/0?size={bad}").status_code == 400
    for bad in (
        "/photo/../../etc/passwd",
        "/photo/%2e%2e%2fetc",
        "/static/../server.py",
        "/photo/-1",
        "/photo/²",
    ):
        assert client.get(bad).status_code == 404
    assert client.get("/photo/" + "9" * 5000).status_code == 404


def test_a_mask_fades_the_patches_that_the_run_drops(masked: LiveGallery) -> None:
    """One of the encoder's 2 x 2 patches is kept: the quarter of the photo with the white square."""
    with TestClient(build_app(masked)) as client:
        hits = client.post("/search", json={"like": 0, "k": 3}).json()["hits"]
        assert [h["mask"] for h in hits] == [True] * 3
        for number in (0, 7, 29):
            answer = client.get(f"/photo/{number}/mask?size=64")
            assert answer.headers["content-type"] == "image/jpeg"
            shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))
            black = shown.reshape(2, 32, 2, 32).min((1, 3)) < 100
            assert np.argwhere(black).tolist() == [[number % 16 // 8, number % 4 // 2]]
            assert client.get(f"/photo/{number}?size=64").content != answer.content
        assert client.get("/photo/0/mask?size=5000").status_code == 400
        assert client.get(f"/photo/{masked.photos}/mask").status_code == 404


def test_masks_share_the_network_and_keep_its_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    load = RunWeights.load
    monkeypatch.setattr(RunWeights, "load", lambda *a: loaded.append(1) or load(*a))
    gallery = masked_gallery(tmp_path)
    gallery.embedder.method  # noqa: B018 (loads it)
    loaded.clear()
    found = masks_of_gallery(gallery)
    assert found is not None
    assert found.grid == (2, 2)
    assert not loaded
    gallery.embedder.keep_ready()
    later = replace(gallery, embedder=Embedder(gallery.embedder.weights, gallery.embedder.device))
    assert not isinstance(later.embedder.method, Puxim)  # a ready network has no tokens
    again = masks_of_gallery(later)
    assert again is not None
    assert again.grid == (2, 2)
    assert len(loaded) == 1
    assert masks_of_gallery(later, again) is not None
    assert len(loaded) == 1


def test_without_stored_masks_there_is_none(client: TestClient) -> None:
    answer = client.get("/photo/0/mask")
    assert answer.status_code == 404
    assert "no masks stored" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"method": "{name: triplet}"}, 4),  # 4 x 4 patches of the sampler, int(0.7 * 16) + 1 of them masked
        ({"part": Part.TEST}, 0),
        ({"prompt": "a drawing of {}"}, 0),
        ({"method": PUXIM.replace("puxim,", "puxim, rule: random,")}, 0),
        ({"method": PUXIM.replace("puxim,", "puxim, masks: none, reconstruction: 0,")}, 0),
    ],
)
def test_which_masks_belong_to_a_gallery(tmp_path: Path, options: dict[str, Any], kept: int) -> None:
    """Those that the run was trained with; a run of another method shows any that lie there; no others."""
    found = masks_of_gallery(masked_gallery(tmp_path, **options))
    assert (0 if found is None else int(found.keep(0).sum())) == kept


def test_the_page_asks_no_other_host(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200
    assert "http://" not in page.text
    assert "https://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("draw.js", "draw.css"):
        assert client.get(f"/static/{name}").status_code == 200
        assert f"/static/{name}" in page.text


def test_the_api_describes_itself(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert set(paths) == {"/healthz", "/search", "/photo/{id}", "/photo/{id}/mask"}
    assert client.get("/healthz").json()["status"] == "ok"


def test_without_the_page_only_the_api_answers(live: LiveGallery) -> None:
    with TestClient(build_app(live, page=False)) as client:
        assert client.get("/").status_code == 404
        assert client.get("/healthz").status_code == 200


def test_a_token_is_asked_of_everything_but_health(live: LiveGallery) -> None:
    with TestClient(build_app(live, token="geheim")) as client:
        assert client.get("/healthz").status_code == 200
        for url in ("/", "/photo/0", "/photo/0/mask", "/photo/0?token=wrong", "/photo/0?token=%ff"):
            assert client.get(url).status_code == 401
        assert client.post("/search", files={"image": star()}).status_code == 401
        assert client.get("/?token=geheim").status_code == 200
        headers = {"Authorization": "Bearer geheim"}
        assert client.post("/search", files={"image": star()}, headers=headers).status_code == 200


def test_another_host_name_is_refused(live: LiveGallery) -> None:
    with TestClient(build_app(live, hosts=["127.0.0.1"]), base_url="http://evil.example") as client:
        assert client.get("/healthz").status_code == 400


BAD_JSON = [
    {}, [], {"strokes": 5}, {"strokes": [[["a", "b"]]]}, {"strokes": [[[1]]]}, {"strokes": [[{"x": 1}]]}, {"strokes": []},
    {"strokes": [[[1e400, 0], [1, 1]]]}, {"strokes": [[[None, 0]]]}, {"like": -1}, {"like": 10**30}, {"like": "x"},
    {"like": True}, {"like": 1.5}, {"like": {}}, {"image": "text"}, {"photo": 3}, {"strokes": [STAR], "k": 0},
    {"strokes": [STAR], "k": "many"}, {"strokes": [STAR], "min_score": "high"}, {"strokes": {"a": 1}},
    {"strokes": [[]] * 10}, {"strokes": [[[0, 0]] * 200_000]}, {"strokes": "abc"}, {"strokes": [[[1e308, -1e308], [0, 0]]]},
]  # fmt: skip


@pytest.mark.parametrize("value", BAD_JSON, ids=lambda v: json.dumps(v)[:40])
def test_malformed_json_is_a_4xx_in_one_line(client: TestClient, value: object) -> None:
    text = json.dumps(value, allow_nan=True)
    answer = client.post("/search", content=text, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert "\n" not in answer.json()["detail"]


def test_hostile_bodies_are_4xx(client: TestClient) -> None:
    rng = np.random.default_rng(0)
    bomb = png(Image.new("1", (20_000, 20_000)))
    pictures = [b"", b"x", rng.bytes(1000), star()[:-30], b"<svg" * 1000, b"\x1f\x8b" + rng.bytes(50), bomb,
                b"<svg xmlns='http://www.w3.org/2000/svg'>" + b"<g>" * 5000, png(Image.new("L", (64, 64), 255))]  # fmt: skip
    for raw in pictures:
        answer = client.post("/search", files={"image": raw})
        assert 400 <= answer.status_code < 500, raw[:20]
        assert str(Path.cwd()) not in answer.text
    for kind, body in (
        ("application/json", b"{" * 100_000),
        ("application/json", b"[" * 100_000 + b"]" * 100_000),
        ("multipart/form-data", star()),
        ("multipart/form-data; boundary=x", b"--x\r\nnonsense"),
        ("text/plain", b"hello"),
        ("application/json", b"\xff\xfe"),
    ):
        headers = {"content-type": kind.encode(), "content-length": "²".encode("latin-1")}
        answer = client.post("/search", content=body, headers=headers)
        assert 400 <= answer.status_code < 500, (kind, body[:20])
    assert client.get("/search").status_code == 405
    assert client.post("/search", files={"image": b"\0" * (21 << 20)}).status_code == 413


def test_fifty_at_once_are_all_answered(client: TestClient) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def ask(_: int) -> list[int]:
        answer = client.post("/search", files={"image": star()})
        return [h["id"] for h in answer.json()["hits"]] if answer.status_code == 200 else []

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert answers[0]
    assert all(a == answers[0] for a in answers)


def test_a_photo_that_is_gone_is_a_404(
    client: TestClient, photo_gallery: tuple[Path, Path], live: LiveGallery
) -> None:
    folder = photo_gallery[0]
    name = live.stored.sources[3]
    (folder / name).rename(folder.parent / "away")
    try:
        assert client.get("/photo/3?size=77").status_code == 404
    finally:
        (folder.parent / "away").rename(folder / name)


def test_a_renewed_gallery_is_used_without_a_restart(
    live: LiveGallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zssbir_cli.web import live as module

    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    path = live.stored.path
    assert path is not None
    before = live.stored
    with TestClient(build_app(live)) as client:
        v = client.post("/search", files={"image": star()}).json()["version"]
        assert "max-age" in client.get(f"/photo/0?v={v}").headers["cache-control"]
        os.utime(path)
        assert client.post("/search", files={"image": star()}).json()["version"] != v
        assert client.get(f"/photo/0?v={v}").headers["cache-control"] == "private, no-cache"
    assert live.stored is not before
    assert live.problem == ""


def test_photos_keep_their_ids_when_the_gallery_is_renewed(
    live: LiveGallery,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A page that shows an earlier answer gets the photos that it asks for, not others that lie in their place now."""
    from zssbir_cli.web import live as module

    monkeypatch.setattr(module, "CHECK_SECONDS", 0.0)
    old = live.stored
    path = tmp_path / "own.h5"
    object.__setattr__(old, "path", path)  # renewed beside the shared one
    with TestClient(build_app(live, k=50)) as client:

        def renew(rows: list[int], names: list[str]) -> dict[str, int]:
            label, kind = np.full(len(rows), -1), np.full(len(rows), int(Modality.PHOTO))
            write_embeddings(path, np.array(old.embedding)[rows], label, kind, names, old.info)
            hits = client.post("/search", files={"image": star()}).json()["hits"]
            assert live.problem == ""
            assert sorted(h["source"] for h in hits) == sorted(names)
            return {h["source"]: h["id"] for h in hits}

        first = {name: i for i, name in enumerate(old.sources)}
        picture = client.get("/photo/3").content
        names = [name for name in old.sources if name != old.sources[5]]
        second = renew([0, *(first[n] for n in names)], ["a/0 new.jpg", *names])
        assert second == {n: first[n] for n in names} | {"a/0 new.jpg": 12}
        assert client.get("/photo/3").content == picture
        assert client.get("/photo/5").status_code == 404
        assert client.post("/search", json={"like": 5}).status_code == 404
        assert client.post("/search", json={"like": 13}).status_code == 400
        like = client.post("/search", json={"like": 12, "k": 1}).json()["hits"]
        assert [(h["source"], h["id"]) for h in like] == [(old.sources[0], 0)]
        third = renew([0, 5], [old.sources[0], old.sources[5]])
        assert third == {old.sources[0]: 0, old.sources[5]: 13}  # 5 was gone, and is not what it was
        path.write_bytes(path.read_bytes()[:-9])
        assert client.post("/search", files={"image": star()}).status_code == 200
        assert "see the server's log" in client.get("/healthz").json()["problem"]
        assert "own.h5 was cut short" in capsys.readouterr().err


def test_a_wrong_query_is_no_fault_of_those_that_wait_beside_it(live: LiveGallery) -> None:
    """A photo that was there when it was asked for, in a gallery that has been renewed since."""
    asked = [0] * 10 + [10**6] + [0] * 10

    async def ask() -> list[object]:
        return await asyncio.gather(*(live.find(Query(like=i)) for i in asked), return_exceptions=True)

    answers = asyncio.run(ask())
    assert [type(a) for a in answers] == [list] * 10 + [DataError] + [list] * 10
