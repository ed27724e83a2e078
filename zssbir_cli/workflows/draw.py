"""`zssbir draw`: a page to draw on, and the same search as an HTTP API, over a gallery that stays open."""

import ipaddress
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import torch

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.errors import UsageError
from zssbir_cli.files import reason
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality
from zssbir_cli.web.live import LiveGallery

PORT = 8765


def draw(
    gallery: Path,
    *,
    run: Path | None = None,
    runs: Path = Path("runs"),
    which: str = "best",
    host: str = "127.0.0.1",
    port: int = PORT,
    token: str = "",
    page: bool = True,
    k: int = 24,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a gallery (as `search` takes it) until interrupted.

    Args:
        host, port: where to listen; port 0 takes a free one. Any host but this machine's own loopback needs a
            token, which is made up when none is given.
        page: with False only the API.
        ready: told the address to open, token included, once the server listens.

    Errors: UsageError (web extra missing, port in use), and those of `open_gallery`.
    """
    try:
        import uvicorn

        from zssbir_cli.web.server import build_app
    except ImportError as error:
        raise UsageError(
            f"zssbir draw needs the web extra ({reason(error)}): python -m pip install 'zssbir[web]'"
        ) from None
    local = is_loopback(host)
    token = token or ("" if local else secrets.token_urlsafe(16))
    listener = _listen(host, port)
    try:
        opened = open_gallery(
            gallery,
            choose_device(device),
            run=run,
            runs=runs,
            which=which,
            workers=workers,
            progress=progress,
        )
        opened.photos()
        side = opened.embedder.recipe.data.size
        opened.embedder.embed_batch(torch.zeros(1, 1, side, side, dtype=torch.uint8), Modality.SKETCH)
        live = LiveGallery(opened)
    except BaseException:
        listener.close()
        raise
    app = build_app(
        live, token=token, page=page, hosts=[host, "localhost", "127.0.0.1", "[::1]"] if local else None, k=k
    )
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_keep_alive=15, server_header=False
    )
    shown = f"[{host}]" if ":" in host else host
    ready(f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else ""))
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        live.close()
        listener.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. UsageError naming what is in the way."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(512)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}); choose another port, or --port 0"
        ) from None
    return listener
