"""`zssbir draw` from the command line: it says where it listens, answers, and stops on Ctrl-C."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from zssbir_cli.errors import UsageError
from zssbir_cli.workflows.draw import is_loopback, open_server


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_it_serves_until_it_is_interrupted(photo_gallery: tuple[Path, Path]) -> None:
    photos, run = photo_gallery
    line = [
        "draw",
        "--photos",
        str(photos),
        "--run",
        str(run),
        "--port",
        "0",
        "--workers",
        "0",
        "--device",
        "cpu",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "zssbir_cli", *line], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = ""
    while not (found := re.search(r"open (http://127\.0\.0\.1:\d+/) ", said)):
        text = process.stderr.readline()
        assert text, said
        said += text
    body = json.dumps({"strokes": [[[0, 0], [1, 1], [0, 1]]], "k": 2}).encode()
    request = urllib.request.Request(found[1] + "search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert len(json.load(answer)["hits"]) == 2
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert "the server has stopped" in rest


def test_a_port_in_use_is_named(photo_gallery: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            UsageError, match=f"--host 127.0.0.1 --port {port}: cannot listen there .* --port 0"
        ):
            open_server(photo_gallery[0], run=photo_gallery[1], port=port)


def test_only_loopback_needs_no_token() -> None:
    assert all(is_loopback(h) for h in ("127.0.0.1", "localhost", "::1", "127.8.8.8"))
    assert not any(is_loopback(h) for h in ("0.0.0.0", "::", "192.168.1.5", "example.org"))
