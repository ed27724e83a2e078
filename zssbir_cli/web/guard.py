"""Who may talk to the server: which pages a browser may ask it for, and how long the head of a request may take."""

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from collections.abc import Collection

HEAD_SECONDS = 10.0
"""How long a connection may take until the head of its request is complete."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Of every answer that is not a static file."""


class LocalOnly:
    """Middleware that keeps the pages of other sites away from a server on this machine.

    Listening on loopback keeps other machines out, yet the browser on this one would ask on behalf of any page it shows.
    So a request has to call the server by one of `hosts` (another name that leads here is DNS rebinding: 400), and when
    the browser says that another site sent it (`Origin`, `Sec-Fetch-Site`), it may follow a link and nothing else (403).
    """

    def __init__(self, app: ASGIApp, hosts: "Collection[str]") -> None:
        self.app, self.hosts = app, {name.strip("[]").lower() for name in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(scope) if scope["type"] == "http" else None
        await (refused or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> JSONResponse | None:
        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in self.hosts:
            why = "this server is not known by that name; use the address that zssbir draw printed"
            return JSONResponse({"detail": why}, 400, HEADERS)
        if _from_elsewhere(headers) and not _follows_a_link(scope, headers):
            return JSONResponse({"detail": "pages of other sites may not use this server"}, 403, HEADERS)
        return None


def _name(host: str) -> str:
    """The name in a Host header, without its port; "" when there is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _from_elsewhere(headers: Headers) -> bool:
    origin = headers.get("origin")
    if origin is not None and origin not in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return True
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _follows_a_link(scope: Scope, headers: Headers) -> bool:
    return (
        scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate" and "origin" not in headers
    )


class PromptProtocol(H11Protocol):
    """uvicorn's protocol, which closes connections that keep it waiting for the head of a request.

    uvicorn waits for ever; some hundred silent connections would use up the files that a process may open.
    """

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Start to wait."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, or stop when the head has come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        super().connection_lost(exc)
        if self._late:
            self._late.cancel()

    def _watch(self) -> None:
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._late:
            self._late.cancel()
            self._late = None
        elif not answering and not self._late:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)
