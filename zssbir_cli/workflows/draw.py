"""`zssbir draw`: a page to draw on, and the same search as an HTTP API, over a gallery that stays open."""

import errno
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.gallery import Gallery, open_gallery
from zssbir_cli.errors import UsageError
from zssbir_cli.files import reason
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality
from zssbir_cli.web.live import LiveGallery

if TYPE_CHECKING:
    from starlette.applications import Starlette

PORT = 8765


@dataclass
class Server:
    """A server that listens already; `serve` answers until interrupted. `address`: what to open, token included."""

    address: str
    photos: int
    note: str
    _app: "Starlette"
    _live: LiveGallery
    _listener: socket.socket

    def serve(self) -> None:
        """Answer requests until Ctrl-C or SIGTERM."""
        import uvicorn

        from zssbir_cli.web.guard import PromptProtocol

        config = uvicorn.Config(
            self._app, http=PromptProtocol, ws="none", log_config=None, access_log=False, timeout_keep_alive=15,
            server_header=False,
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[self._listener])
        finally:
            self.close()

    def close(self) -> None:
        """Stop listening and let the gallery go."""
        self._live.close()
        self._listener.close()


def open_server(
    gallery: Path,
    *,
    run: str | Path | None = None,
    model: str | None = None,
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
) -> Server:
    """Open a gallery (as `search` takes it) and listen.

    Args:
        host, port: where to listen; port 0 takes a free one. Any host but this machine's own loopback needs a
            token, which is made up when none is given.
        page: with False only the API.
        k: photos per answer unless a request says otherwise.

    Errors: UsageError (web extra missing, port in use), and those of `open_gallery`.
    """
    try:
        from zssbir_cli.web.server import build_app
    except ImportError as error:
        raise UsageError(
            f"zssbir draw needs the web extra ({reason(error)}): python -m pip install '.[web]'"
        ) from None
    if not re.fullmatch(r"[A-Za-z0-9._~-]*", token):
        raise UsageError("--token: letters, digits and . _ ~ - only, since it is part of an address")
    local = is_loopback(host)
    token = token or ("" if local else secrets.token_urlsafe(16))
    listener = _listen(host, port)
    try:
        opened = open_gallery(
            gallery, choose_device(device), run=run, model=model, runs=runs, which=which, workers=workers,
            progress=progress,
        )  # fmt: skip
        _warm_up(opened)
        live = LiveGallery(opened)
    except BaseException:
        listener.close()
        raise
    names = [host, "localhost", "127.0.0.1", "::1"] if local else None
    app = build_app(live, token=token, page=page, hosts=names, k=k)
    shown = _reached_at(host)
    shown = f"[{shown}]" if ":" in shown else shown
    address = f"http://{shown}:{listener.getsockname()[1]}/" + (f"?token={token}" if token else "")
    notes = [opened.embedder.weights.label, f"{opened.folder}" if opened.folder else "", opened.note]
    return Server(address, live.photos, "; ".join(n for n in notes if n), app, live, listener)


def _warm_up(gallery: Gallery) -> None:
    """Load the weights and run them once, so that the first drawing is answered as quickly as the others."""
    side = gallery.embedder.size
    gallery.embedder.embed_batch(torch.zeros(1, 1, side, side, dtype=torch.uint8), Modality.SKETCH)
    if gallery.embedder.weights.text_is_here:
        gallery.embedder.embed_text("a photo")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens there."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _reached_at(host: str) -> str:
    """The name under which others reach a server that listens at `host`: this machine's address where that is any."""
    if host not in ("0.0.0.0", "::"):
        return host
    far = ("192.0.2.1", 9) if host == "0.0.0.0" else ("2001:db8::1", 9)
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(far)  # sends nothing: it asks which address would be used
            return str(probe.getsockname()[0])
    except OSError:  # no network
        return "localhost"


def _is_about_the_host(error: Exception) -> bool:
    return isinstance(error, socket.gaierror) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL


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
        other = "another host" if _is_about_the_host(error) else "another port, or --port 0"
        raise UsageError(
            f"--host {host} --port {port}: cannot listen there ({reason(error)}); choose {other}"
        ) from None
    return listener
