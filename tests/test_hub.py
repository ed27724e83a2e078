"""Weights from the hub: downloaded once, and what is said where there is no network."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import timm

from zssbir_cli.embedding.weights import choose_weights
from zssbir_cli.errors import CheckpointError
from zssbir_cli.models.encoder import build_encoder
from zssbir_cli.models.hub import NotDownloaded, hub_file, unreachable
from zssbir_cli.recipe.schema import ModelConfig


def test_without_a_network_one_line_says_how_to_have_the_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with socket.socket() as closed:  # bound, but nobody listens
        closed.bind(("127.0.0.1", 0))
        proxy = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy}")
        with pytest.raises(CheckpointError) as caught:
            choose_weights(model="siglip").sha256  # noqa: B018
        assert f"the proxy {proxy} does not answer" in str(caught.value)
        place = timm.get_pretrained_cfg(
            "vit_base_patch16_siglip_224.webli"
        ).hf_hub_id  # moved between versions
        assert f".safetensors of {place}" in str(caught.value)
        assert "--model siglip=FILE" in str(caught.value)
        with pytest.raises(
            CheckpointError, match=rf"the proxy {proxy}.*set model\.weights to it, or to none"
        ):
            build_encoder(ModelConfig(backbone="resnet18"), 32)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert "no network: 127.0.0.1 cannot" in unreachable(f"https://{proxy}")


class Hub(BaseHTTPRequestHandler):
    """A hub with one repository that has one file."""

    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        here = self.path == "/timm/small/resolve/main/pytorch_model.bin"
        self.send_response(200 if here else 404)
        if here:
            self.send_header("ETag", '"abc"')
            self.send_header("Content-Length", "7")
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        if here and self.command == "GET":
            self.wfile.write(b"weights")

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def test_a_file_is_downloaded_once_and_a_missing_one_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in (("HF_HUB_OFFLINE", False), ("HF_HUB_CACHE", str(tmp_path))):
        monkeypatch.setattr(constants, name, value)
    names = ("model.safetensors", "pytorch_model.bin")
    try:
        for _ in range(2):
            assert hub_file("timm/small", names).read_bytes() == b"weights"
        assert sum(a.startswith("GET") and a.endswith("bin") for a in Hub.asked) == 1
        with pytest.raises(NotDownloaded, match=r"timm/small has none of x\.bin"):
            hub_file("timm/small", ["x.bin"])
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(NotDownloaded, match=r"no network: 127\.0\.0\.1 cannot be reached"):
        hub_file("timm/small", ["x.bin"])
