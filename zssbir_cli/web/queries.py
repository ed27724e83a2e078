"""From an HTTP request to a query: multipart fields or JSON, bounded in bytes, pixels and time."""

import asyncio
import math
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import cv2
import numpy as np
import torch
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from torch import Tensor

from zssbir_cli.data.images import decode_sketch
from zssbir_cli.data.square import ink_box, resize_photo, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.files import parsed
from zssbir_cli.preparation.clean import drawing, photo
from zssbir_cli.preparation.opening import FAULTS, opened
from zssbir_cli.types import Modality
from zssbir_cli.web.live import LiveGallery, Query

MAX_BODY = 20 << 20
MAX_SECONDS = 30
MAX_K = 1000
MAX_POINTS = 100_000
MAX_TEXT = 1000
LARGE_BYTES, LARGE_PIXELS = 2 << 20, 8_000_000
"""Pictures larger than either are decoded one after the other, so that small ones need not wait for them."""
PICTURES = "image", "photo", "strokes", "like"
FIELDS = (*PICTURES, "text", "k", "min_score", "token")
PAPER, MARGIN, LINE = 512, 24, 6
"""Side of the sheet that strokes are drawn on, its margin, and the width of a line, pixels."""


async def read_query(
    request: Request, gallery: LiveGallery, default_k: int, large: asyncio.Semaphore
) -> tuple[Query, float | None]:
    """The query of a `POST /search` and its `min_score`. `large`: held while a large picture is decoded.

    Raises HTTPException 400 (malformed), 408 (too slow), 413 (too large), 415 (neither multipart nor JSON),
    422 (no picture, or a blank one).
    """
    try:
        async with asyncio.timeout(MAX_SECONDS):
            fields = await _fields(request)
    except TimeoutError:
        raise HTTPException(408, f"the request was not complete after {MAX_SECONDS} seconds") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was closed before the request was complete") from None
    fields = {**request.query_params, **fields}
    given = _given(fields)
    k = whole(fields.get("k", default_k), "k", 1, MAX_K)
    least = _score(fields.get("min_score"))
    text = _text(fields.get("text"), gallery)
    if given == "like":
        like = whole(fields["like"], "like", 0, gallery.opened.free - 1)
        if gallery.opened.number(like) is None:
            raise HTTPException(404, f"photo {like} is not in the gallery any more")
        return Query(like=like, text=text, k=k), least
    if text and not given:
        return Query(text=text, k=k), least
    value = fields.get(given)
    async with large if _is_large(value) else nullcontext():
        image, modality = await asyncio.to_thread(_image, given, value, gallery)
    return Query(image, modality, text=text, k=k), least


def _given(fields: Mapping[str, Any]) -> str:
    """Which picture to search with; "" for none. What would be passed over is refused. Raises HTTPException."""
    unknown = [name for name in fields if name not in FIELDS]
    if unknown:
        raise HTTPException(400, f"unknown field {unknown[0][:40]!r}; there are {', '.join(FIELDS)}")
    given = [name for name in PICTURES if fields.get(name) not in (None, "", b"")]
    if len(given) > 1:
        raise HTTPException(400, f"give one of {' and '.join(given)}, not several")
    return given[0] if given else ""


def _text(value: Any, gallery: LiveGallery) -> str:
    """The words of a query; "" for none. Raises HTTPException."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise HTTPException(400, f"text must be words, at most {MAX_TEXT} characters")
    if not gallery.reads_text:
        raise HTTPException(422, "words cannot be searched for: the model has no text side on this machine")
    return value.strip()


async def _fields(request: Request) -> dict[str, Any]:
    """Form fields (files as bytes) or the JSON object of the body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise HTTPException(415, "send multipart/form-data with a field `image`, or JSON with `strokes`")
    body = await _body(request)
    if kind == "application/json":
        try:
            value = parsed(body)
        except ValueError:
            raise HTTPException(400, "the body is not valid JSON") from None
        if not isinstance(value, dict):
            raise HTTPException(400, "the JSON must be an object")
        return value
    try:
        again = Request(request.scope, _replay(body))
        async with again.form(max_files=4, max_fields=16, max_part_size=MAX_BODY) as form:
            return {n: await v.read() if isinstance(v, UploadFile) else v for n, v in form.items()}
    except (MultiPartException, HTTPException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or getattr(error, "detail", "") or "cannot be parsed"
        raise HTTPException(400, f"malformed multipart body: {reason}") from None


async def _body(request: Request) -> bytes:
    length = request.headers.get("content-length", "")
    if re.fullmatch("[0-9]{1,18}", length) and int(length) > MAX_BODY:
        raise HTTPException(413, f"larger than {MAX_BODY >> 20} MiB")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"larger than {MAX_BODY >> 20} MiB")
    return bytes(body)


def _replay(body: bytes) -> Any:
    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def _image(given: str, value: Any, gallery: LiveGallery) -> tuple[Tensor, Modality]:
    """The network input of a field: `image` (a drawing), `photo`, or `strokes`."""
    try:
        if given == "photo":
            size = gallery.size if gallery.of_files else None
            pixels = _pixels(photo(_sent(value), size))
            return resize_photo(pixels.permute(2, 0, 1), gallery.size), Modality.PHOTO
        if given == "image":
            sketch = _pixels(drawing(_sent(value)))[None]
        elif given == "strokes":
            sketch = decode_sketch(np.frombuffer(_drawn(value), np.uint8))
        else:
            raise HTTPException(422, "give one of image, photo, strokes, like or text")
    except DataError as error:
        raise HTTPException(422, f"the picture cannot be used: {error}") from None
    if ink_box(sketch) is None:
        raise HTTPException(422, "the drawing is blank")
    return square_sketch(sketch, gallery.size, gallery.sketch_crop), Modality.SKETCH


def _is_large(value: Any) -> bool:
    """Whether a picture takes long, and up to a gigabyte, to decode."""
    if not isinstance(value, bytes) or len(value) > LARGE_BYTES:
        return isinstance(value, bytes)
    try:
        with opened(value, Modality.PHOTO) as (image, _):
            return image.width * image.height > LARGE_PIXELS
    except FAULTS:  # told when it is decoded; an SVG is drawn at a bounded size
        return False


def _sent(raw: Any) -> bytes:
    if not isinstance(raw, bytes):
        raise HTTPException(422, "send pictures as files of a multipart form")
    return raw


def _pixels(image: "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]") -> Tensor:
    return torch.from_numpy(np.require(image, requirements=["C", "W"]))


def _drawn(strokes: Any) -> bytes:
    """Strokes, a list of lists of [x, y] or [x, y, pressure] in any unit, drawn to fill the sheet; PNG bytes."""
    if not isinstance(strokes, list) or not all(isinstance(line, list) for line in strokes):
        raise HTTPException(422, "strokes must be lists of points [x, y]")
    if len(strokes) > MAX_POINTS or sum(map(len, strokes)) > MAX_POINTS:
        raise HTTPException(413, f"more than {MAX_POINTS:,} points")
    if not all(_is_point(p) for line in strokes for p in line):
        raise HTTPException(422, "strokes must be lists of points [x, y]")
    try:
        lines = [np.array([p[:2] for p in line], np.float64) for line in strokes if line]
    except OverflowError:
        raise HTTPException(422, "strokes contain invalid numbers") from None
    points = np.concatenate(lines) if lines else np.empty((0, 2))
    if not len(points) or not np.isfinite(points).all() or np.abs(points).max() > 1e9:
        raise HTTPException(
            422, "the drawing is blank" if not len(points) else "strokes contain invalid numbers"
        )
    low, extent = points.min(0), max(float(np.ptp(points, axis=0).max()), 1e-9)
    sheet = np.full((PAPER, PAPER), 255, np.uint8)
    for line in lines:
        placed = MARGIN + (line - low) * ((PAPER - 2 * MARGIN) / extent)
        fixed = np.rint(placed * 16).astype(np.int32).reshape(-1, 1, 2).repeat(2 if len(line) == 1 else 1, 0)
        cv2.polylines(sheet, [fixed], False, (0,), LINE, cv2.LINE_AA, 4)
    return cv2.imencode(".png", sheet)[1].tobytes()


def _is_point(value: Any) -> bool:
    """Whether a JSON value is [x, y] or [x, y, pressure]."""
    return (
        isinstance(value, list)
        and len(value) in (2, 3)
        and all(type(number) in (int, float) for number in value)
    )


def whole(value: Any, name: str, least: int, most: int) -> int:
    """A whole number of a request from `least` to `most`. Raises HTTPException."""
    try:
        if isinstance(value, (bool, bytes)) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise HTTPException(400, f"{name} must be a whole number") from None
    if not least <= number <= most:
        raise HTTPException(400, f"{name} must be {least} to {most}")
    return number


def _score(value: Any) -> float | None:
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not -1 <= number <= 1:
        raise HTTPException(400, "min_score must be a number from -1 to 1")
    return number
