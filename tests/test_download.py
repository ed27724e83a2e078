"""Downloads against a local server that drops connections, lies, serves pages, or refuses ranges."""

import hashlib
import http.server
import io
import json
import re
import sys
import threading
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from zssbir_cli.benchmarks import download as module
from zssbir_cli.benchmarks import fetch as fetch_module
from zssbir_cli.benchmarks.download import DownloadFailed, download
from zssbir_cli.benchmarks.fetch import File, fetch, usual_places
from zssbir_cli.errors import DataError


def zip_of(data: bytes) -> bytes:
    """A zip with one member, stored."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.bin", data)
    return out.getvalue()


BODY = zip_of(bytes(range(256)) * 4000)
QUOTA = b"<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title>Too many users; quota</html>"


class Handler(http.server.BaseHTTPRequestHandler):
    """Behaves as the first part of the path says; keeps the requests it saw."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]] = []  # noqa: RUF012

    def log_message(self, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        """Answer one request."""
        self.close_connection = True
        kind = self.path.split("/")[1]
        asked = self.headers.get("Range", "")
        Handler.seen.append((kind, asked))
        first = sum(k == kind for k, _ in Handler.seen) == 1
        if kind == "missing":
            self.send_error(404)
        elif kind == "busy" and first:
            self.send_error(503)
        elif kind in ("page", "quota"):
            self._send(QUOTA if kind == "quota" else b"<html>hello</html>", "text/html; charset=utf-8")
        elif kind == "disguised":
            self._send(b"\n <!doctype html><html>moved</html>", "application/zip")
        elif kind == "empty":
            self._send(b"", "application/zip")
        else:
            self._file(kind, asked, first)

    def _file(self, kind: str, asked: str, first: bool) -> None:
        start = int(re.findall(r"\d+", asked)[0]) if asked else 0
        if kind in ("norange", "short") or (kind == "changed" and self.headers.get("If-Range") == '"v1"'):
            start = 0
        if kind == "refuses" and asked:
            self.send_error(416)
            return
        body = BODY[start:]
        self.send_response(206 if start else 200)
        shift = 10 if kind == "shifted" and start else 0
        if start:
            self.send_header("Content-Range", f"bytes {start + shift}-{len(BODY) - 1}/{len(BODY)}")
        lie = 5000 if kind == "short" else 0
        if kind not in ("nolength", "cut", "endless"):
            self.send_header("Content-Length", str(len(body) + lie))
        self.send_header("Content-Type", "application/zip")
        self.send_header("ETag", '"v1"' if kind != "changed" or first else '"v2"')
        self.end_headers()
        drops = {
            "drops": 300_000,
            "norange": 500_000,
            "changed": 300_000,
            "refuses": 300_000,
            "shifted": 300_000,
        }
        if kind == "cut":
            body = body[: len(body) // 2]
        if kind == "endless":
            body = body * 8
        limit = drops.get(kind, len(body)) if first or kind == "drops" else len(body)
        self.wfile.write(body[:limit])

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of the server."""
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    Handler.seen.clear()
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)


def get(address: str, target: Path, sha256: str = "") -> Path:
    """A download without messages."""
    return download(address, "", target, sha256, lambda text: None)


@pytest.mark.parametrize(
    "kind", ["good", "drops", "norange", "changed", "refuses", "shifted", "busy", "nolength"]
)
def test_the_whole_file_arrives_whatever_happens(server: str, tmp_path: Path, kind: str) -> None:
    path = get(f"{server}/{kind}/a.zip", tmp_path / "raw" / "a.zip")
    assert path.read_bytes() == BODY
    facts = json.loads((tmp_path / "raw" / "a.zip.json").read_text())
    assert facts["sha256"] == hashlib.sha256(BODY).hexdigest()
    assert facts["bytes"] == len(BODY)
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.zip", "a.zip.json"]


def test_a_dropped_connection_continues_where_it_stopped(server: str, tmp_path: Path) -> None:
    get(f"{server}/drops/a.zip", tmp_path / "a.zip")
    ranges = [r for _, r in Handler.seen]
    assert ranges == ["", "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_an_interrupted_run_is_continued_by_the_next(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip.partial").write_bytes(BODY[:1000])
    (tmp_path / "a.zip.partial.tag").write_text('"v1"')
    assert get(f"{server}/good/a.zip", tmp_path / "a.zip").read_bytes() == BODY
    assert Handler.seen == [("good", "bytes=1000-")]


def test_without_a_length_a_cut_file_is_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"cut short, or not a \.zip archive; it was removed"):
        get(f"{server}/cut/a.zip", tmp_path / "a.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_sends_too_much_is_stopped(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 3 << 20)
    with pytest.raises(DownloadFailed, match=r"the server sends more than 3,145,728 bytes"):
        get(f"{server}/endless/a.zip", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_an_existing_file_is_compared_with_a_known_checksum(server: str, tmp_path: Path) -> None:
    path = get(f"{server}/good/a.zip", tmp_path / "a.zip")
    assert get(f"{server}/good/a.zip", path) == path
    path.write_bytes(BODY[:-1] + b"x")
    for known in ("", hashlib.sha256(BODY).hexdigest()):
        with pytest.raises(DownloadFailed, match=r"a\.zip is damaged .*; delete it to fetch it again"):
            get(f"{server}/good/a.zip", path, known)


def test_http_is_tried_where_there_is_no_https(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = File("good.zip", "all", url=f"{server}/good/x.zip".replace("http", "https"))
    monkeypatch.setitem(fetch_module.WAYS, "sketchy", ((file,),))
    told: list[str] = []
    assert fetch("sketchy", told.append) == [Path("data/raw/good.zip")]
    assert any("trying without encryption" in t for t in told)


def test_a_file_that_is_there_is_not_fetched(server: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"mine")
    assert get(f"{server}/good/a.zip", tmp_path / "a.zip").read_bytes() == b"mine"
    assert Handler.seen == []


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "404"),
        ("page", "a web page, not a file"),
        ("quota", "quota is used up"),
        ("disguised", "a web page, not a file"),
        ("empty", "an empty file"),
        ("short", "the connection ended at"),
    ],
)
def test_what_is_no_file_is_said_and_not_kept(server: str, tmp_path: Path, kind: str, words: str) -> None:
    with pytest.raises(DownloadFailed, match=words):
        get(f"{server}/{kind}/a.zip", tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_checksums_known_and_seen_before_are_compared(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match=r"sha256 is .* expected 00"):
        get(f"{server}/good/a.zip", tmp_path / "a.zip", sha256="00" * 32)
    assert list(tmp_path.iterdir()) == []
    record = {"address": f"{server}/good/a.zip", "sha256": "11" * 32}
    (tmp_path / "a.zip.json").write_text(json.dumps(record))
    with pytest.raises(DownloadFailed, match="expected 11"):
        get(f"{server}/good/a.zip", tmp_path / "a.zip")


def test_a_full_disk_is_noticed_before_the_transfer(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 100 << 20}))
    with pytest.raises(DownloadFailed, match="100 MiB free"):
        get(f"{server}/good/a.zip", tmp_path / "a.zip")


def test_nobody_listening(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed, match="refused"):
        get("http://127.0.0.1:9/a.zip", tmp_path / "a.zip")


def fake_gdown(monkeypatch: pytest.MonkeyPatch, behaviour: object) -> None:
    """Put a stand-in for gdown in place."""
    stand_in = types.ModuleType("gdown")
    stand_in.download = behaviour  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gdown", stand_in)


def test_google_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def works(id: str, output: str, quiet: bool, resume: bool) -> str:
        Path(output).write_bytes(BODY)
        return output

    def quota(**options: object) -> str:
        raise RuntimeError("Too many users have viewed or downloaded this file recently")

    fake_gdown(monkeypatch, works)
    assert download("x", "ID", tmp_path / "a.zip", "", lambda t: None).read_bytes() == BODY
    fake_gdown(monkeypatch, quota)
    with pytest.raises(DownloadFailed, match="Too many users"):
        download("x", "ID", tmp_path / "b.zip", "", lambda t: None)
    fake_gdown(monkeypatch, lambda **options: None)
    with pytest.raises(DownloadFailed, match="over its quota"):
        download("x", "ID", tmp_path / "b.zip", "", lambda t: None)
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DownloadFailed, match=r"\.\[download\]"):
        download("x", "ID", tmp_path / "b.zip", "", lambda t: None)


def test_sources_are_tried_in_turn(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dead, page, good = (
        File(f"{k}.zip", "all", url=f"{server}/{k}/x.zip") for k in ("missing", "quota", "good")
    )
    monkeypatch.setitem(fetch_module.WAYS, "sketchy", ((dead,), (page,), (good,)))
    assert usual_places("sketchy") == []
    assert fetch("sketchy", lambda text: None) == [Path("data/raw/good.zip")]
    assert usual_places("sketchy") == [Path("data/raw/good.zip")]
    Path("data/raw/good.zip").write_bytes(BODY[:5000])
    with pytest.raises(DataError, match=r"good\.zip is damaged .*; delete it"):
        usual_places("sketchy")


def test_when_all_fail_short_lines_say_what_to_do(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ways = tuple((File(f"{k}.zip", "all of it", url=f"{server}/{k}/x.zip"),) for k in ("missing", "quota"))
    monkeypatch.setitem(fetch_module.WAYS, "sketchy", ways)
    told: list[str] = []
    with pytest.raises(DataError, match=r"http.*missing/x.zip as data.raw.missing.zip by hand") as caught:
        fetch("sketchy", told.append)
    assert "run `zssbir prepare sketchy` again" in str(caught.value)
    said = "\n".join(told)
    for way in ways:
        assert f"{way[0].name}: all of it\n     {way[0].address}" in said
    assert "zssbir prepare sketchy --from PLACE" in said


@pytest.mark.parametrize("dataset", list(fetch_module.WAYS))
def test_what_to_do_by_hand_is_told_in_short_lines(dataset: str) -> None:
    lines = fetch_module.by_hand(dataset)
    assert max(map(len, lines)) <= 110
    for file in (f for way in fetch_module.WAYS[dataset] for f in way):
        assert any(file.address in line for line in lines)


def test_every_registered_way_is_complete() -> None:
    for dataset, ways in fetch_module.WAYS.items():
        assert ways
        for file in (f for way in ways for f in way):
            assert bool(file.url) != bool(file.drive), (dataset, file)
            assert file.address.startswith("https://")
            assert file.name.endswith((".zip", ".7z"))
