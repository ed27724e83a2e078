"""The HTTP server behind `zssbir draw`: the drawing page and the same search as an API."""

import asyncio
import hashlib
import os
import re
import secrets
from collections.abc import Awaitable, Callable
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from zssbir_cli.errors import DataError, ZssbirError
from zssbir_cli.evaluation.pictures import jpeg_of_gallery
from zssbir_cli.web.description import described
from zssbir_cli.web.guard import HEADERS, LocalOnly
from zssbir_cli.web.live import Busy, LiveGallery
from zssbir_cli.web.queries import MAX_BODY, MAX_K, read_query, whole

KEPT_PICTURES, KEPT_SIZE = 2048, 512
"""How many pictures are kept in memory, and of which size at most, pixels: about 100 MB."""
DECODERS = min(4, os.cpu_count() or 1)
"""How many photos are read at once; each may take 300 MB meanwhile."""


def build_app(
    gallery: LiveGallery, *, token: str = "", page: bool = True, hosts: list[str] | None = None, k: int = 24
) -> Starlette:
    """The application. `token`: what every request but /healthz must carry ("" = none); `hosts`: names by which
    it is called when only this machine may use it (None = any, and from anywhere); `k`: photos per answer unless asked otherwise."""
    server = _Server(gallery, token, k)
    routes: list[BaseRoute] = [
        Route("/healthz", server.health),
        Route("/search", server.search, methods=["POST"]),
        Route("/photo/{id}", server.photo),
        Route("/photo/{id}/mask", server.mask),
        Route("/openapi.json", server.openapi, include_in_schema=False),
    ]
    if page:
        static = str(files("zssbir_cli.web") / "static")
        routes += [
            Route("/", server.page, include_in_schema=False),
            Mount("/static", _Static(directory=static)),
        ]
    middleware = [Middleware(LocalOnly, hosts=hosts)] if hosts else []
    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        HTTPException: _refused,
        ZssbirError: _failed,
        Busy: _busy,
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


class _Static(StaticFiles):
    """The page's files. Starlette before 1.0 fails on a NUL in a path."""

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """As Starlette's."""
        return ("", None) if "\0" in path else super().lookup_path(path)


class _Server:
    """The end points."""

    def __init__(self, gallery: LiveGallery, token: str, k: int) -> None:
        self.gallery, self.token, self.k = gallery, token, k
        self._schemas = described(bool(token))
        self._kept_picture = lru_cache(KEPT_PICTURES)(self._picture)
        self._decoding, self._large = asyncio.Semaphore(DECODERS), asyncio.Semaphore(1)

    async def health(self, request: Request) -> Response:
        """
        summary: Whether the server is ready.
        responses:
          200:
            description: Number of photos, and why a renewed gallery file is not used, if so.
            content: {application/json: {schema: {$ref: "#/components/schemas/Health"}}}
          default: {$ref: "#/components/responses/Refused"}
        security: []
        """
        body = {"status": "ok", "photos": self.gallery.photos}
        if self.gallery.problem:
            body["problem"] = "the gallery's file was renewed but cannot be used; see the server's log"
        return _json(body)

    async def search(self, request: Request) -> Response:
        """
        summary: Photos nearest to a drawing, to a photo, to a photo of the gallery, or to words.
        parameters:
          - {name: k, in: query, schema: {type: integer, minimum: 1, maximum: 1000}}
          - {name: min_score, in: query, schema: {type: number, minimum: -1, maximum: 1}}
        requestBody:
          required: true
          content:
            multipart/form-data:
              schema:
                type: object
                properties:
                  image: {type: string, format: binary, description: "A drawing: PNG, JPEG, SVG and others."}
                  photo: {type: string, format: binary, description: "A photo, to find others like it."}
                  like: {type: integer, description: "The id of a photo of the gallery."}
                  text: {type: string, description: "Words, alone or added to the picture."}
                  k: {type: integer, minimum: 1, maximum: 1000}
                  min_score: {type: number, minimum: -1, maximum: 1, description: "Least cosine of a hit."}
                additionalProperties: false
            application/json:
              schema:
                type: object
                properties:
                  strokes:
                    type: array
                    description: Lines of points [x, y] in any unit, y downwards.
                    items: {type: array, items: {type: array, items: {type: number}, minItems: 2, maxItems: 3}}
                  like: {type: integer}
                  text: {type: string, description: "Words, alone or added to the picture."}
                  k: {type: integer, minimum: 1, maximum: 1000}
                  min_score: {type: number, minimum: -1, maximum: 1}
                additionalProperties: false
        responses:
          200:
            description: The photos, best first.
            content: {application/json: {schema: {$ref: "#/components/schemas/Found"}}}
          default: {$ref: "#/components/responses/Refused"}
        """
        self._check(request)
        query, least = await read_query(request, self.gallery, self.k, self._large)
        hits = await self.gallery.find(query)
        kept = [h for h in hits if least is None or h.score >= least]
        note = "" if kept else (f"nothing above {least:g}" if least is not None else "the gallery is empty")
        rows = [
            {"rank": h.rank, "score": round(h.score, 6), "id": h.row, "source": h.source, "class": h.name}
            for h in kept
        ]
        if self.gallery.opened.masks:
            rows = [row | {"mask": True} for row in rows]
        version = self.gallery.version  # taken last: never older than the hits
        return _json({"hits": rows, "version": version, **({"note": note} if note else {})})

    async def photo(self, request: Request) -> Response:
        """
        summary: A photo of the gallery as JPEG, its longer side at most `size` pixels.
        parameters:
          - {name: id, in: path, required: true, schema: {type: integer}}
          - {name: size, in: query, schema: {type: integer, minimum: 16, maximum: 2048, default: 512}}
          - {name: v, in: query, schema: {type: string}, description: "The version in the answer; the picture may then be cached."}
        responses:
          200: {description: The picture., content: {image/jpeg: {}}}
          304: {description: The client has it.}
          404: {description: "No such photo, or its file is not there any more.", content: {application/json: {schema: {$ref: "#/components/schemas/Refused"}}}}
          default: {$ref: "#/components/responses/Refused"}
        """
        return await self._jpeg(request)

    async def mask(self, request: Request) -> Response:
        """
        summary: What PuXIM's stored mask keeps of a photo, as JPEG; masked patches are faded.
        parameters:
          - {name: id, in: path, required: true, schema: {type: integer}}
          - {name: size, in: query, schema: {type: integer, minimum: 16, maximum: 2048, default: 512}}
          - {name: v, in: query, schema: {type: string}, description: "The version in the answer; the picture may then be cached."}
        responses:
          200: {description: The picture., content: {image/jpeg: {}}}
          304: {description: The client has it.}
          404: {description: "No such photo, its file is not there any more, or no masks are stored.", content: {application/json: {schema: {$ref: "#/components/schemas/Refused"}}}}
          default: {$ref: "#/components/responses/Refused"}
        """
        return await self._jpeg(request, masked=True)

    async def _jpeg(self, request: Request, *, masked: bool = False) -> Response:
        self._check(request)
        name = request.path_params["id"]
        if not re.fullmatch("[0-9]{1,18}", name):
            raise HTTPException(404, "there is no such photo")
        number = int(name)
        size = whole(request.query_params.get("size", "512"), "size", 16, 2048)
        picture = self._kept_picture if size <= KEPT_SIZE else self._picture
        async with self._decoding:
            data = await run_in_threadpool(picture, self.gallery.version, number, size, masked)
        tag = '"' + hashlib.sha256(data).hexdigest()[:20] + '"'
        current = request.query_params.get("v") == self.gallery.version
        headers = HEADERS | {
            "ETag": tag, "Cache-Control": f"private, {'max-age=3600' if current else 'no-cache'}",
        }  # fmt: skip
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(data, media_type="image/jpeg", headers=headers)

    def _picture(self, version: str, id_: int, size: int, masked: bool) -> bytes:
        """Raises HTTPException, so that only pictures are kept: a photo that is away may be back later."""
        opened = self.gallery.opened
        number = opened.number(id_)
        if number is None:
            raise HTTPException(404, f"there is no photo {id_}")
        if masked and opened.masks is None:
            raise HTTPException(404, "no masks stored for these photos")
        keep = opened.masks.keep(number) if masked and opened.masks else None
        data = jpeg_of_gallery(opened.gallery.stored, opened.gallery.rows.start + number, size, keep)
        if data is None:
            raise HTTPException(404, f"the file of photo {id_} is gone or cannot be read")
        return data

    async def openapi(self, request: Request) -> Response:
        return _json(self._schemas.get_schema(routes=request.app.routes))

    async def page(self, request: Request) -> Response:
        self._check(request)
        info = self.gallery.stored.info
        text = _template().render(
            name=info.data_name or "the gallery",
            photos=self.gallery.photos,
            model=info.recipe or Path(info.model.partition("=")[0]).name or info.method,
            words=self.gallery.reads_text,
            most=MAX_BODY - 4096,
            token=self.token,
            k=min(self.k, MAX_K),
        )
        return HTMLResponse(text, headers=HEADERS)

    def _check(self, request: Request) -> None:
        if not self.token:
            return
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        given = given.strip() if kind.lower() == "bearer" else request.query_params.get("token", "")
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode()):
            raise HTTPException(
                401, "the token is missing or wrong; use the address that zssbir draw printed"
            )


@lru_cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader

    return Environment(loader=PackageLoader("zssbir_cli.web"), autoescape=True).get_template("draw.html")


def _json(value: object, status: int = 200) -> JSONResponse:
    return JSONResponse(value, status, headers=HEADERS)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"detail": error.detail}, error.status_code)


async def _failed(request: Request, error: Exception) -> Response:
    """A user error of the package: its text may name paths of this machine, so only its kind is told."""
    if isinstance(error, DataError):
        return _json({"detail": "the query or the gallery cannot be used"}, 422)
    return _json({"detail": type(error).__name__}, 422)


async def _busy(request: Request, error: Exception) -> Response:
    return _json({"detail": "too many searches are waiting; try again in a moment"}, 503)
