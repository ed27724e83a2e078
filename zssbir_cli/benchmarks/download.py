"""One file from the web: resumed after an interruption, checked for what servers get wrong, sha256 recorded."""

import contextlib
import http.client
import shutil
import ssl
import time
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from zssbir_cli.files import file_sha256, parsed, write_json
from zssbir_cli.progress import Say

TIMEOUT_S = 30
ATTEMPTS = 5
BLOCK = 1 << 20
HEADROOM = 256 << 20
MOST_BYTES = 64 << 30
"""No benchmark's file is larger; a server that sends more is not believed."""


class DownloadFailed(Exception):
    """A source that cannot be used; the message says which and why. `no_connection`: nothing was sent at all."""

    no_connection = False


@dataclass(frozen=True)
class _Reply:
    """What a server offers: the bytes from `start`, `total` in all (None = it does not say)."""

    start: int
    total: int | None
    validator: str


def download(address: str, drive: str, target: Path, sha256: str, say: Say) -> Path:
    """Fetch `address` (or a Google Drive file) to `target`, through `target.partial`.

    Beside it `<target>.json` records the address, size and sha256 that were seen; a later different sha256
    of the same address, or one that differs from `sha256` (when known), is an error.

    A file that is there already is compared with the checksum that is known. One of unknown length is kept only
    when it opens as an archive.

    Errors: DownloadFailed: dead link, a page instead of a file, no space, a checksum that differs, no connection.
    """
    record = target.with_name(target.name + ".json")
    known = sha256 or _recorded(record, address)
    if target.is_file():
        if known and file_sha256(target) != known:
            raise DownloadFailed(
                f"{target} is damaged (its sha256 is not {known}); delete it to fetch it again"
            )
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    say(f"downloading {address}")
    if drive:
        _from_drive(drive, partial)
        sure = False
    else:
        sure = _with_retries(address, partial, say)
    _check_content(address, partial)
    if not sure and not known and not _opens(partial, target.suffix):
        partial.unlink()
        raise DownloadFailed(
            f"{address}: the file is cut short, or not a {target.suffix} archive; it was removed"
        )
    digest = file_sha256(partial)
    if known and known != digest:
        partial.unlink()
        raise DownloadFailed(f"{address}: sha256 is {digest}, expected {known}; the file was removed")
    facts = {"address": address, "bytes": partial.stat().st_size, "sha256": digest}
    write_json(record, facts)
    partial.replace(target)
    return target


def _recorded(record: Path, address: str) -> str:
    try:
        facts = parsed(record.read_bytes())
        return str(facts["sha256"]) if facts["address"] == address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _from_drive(drive: str, partial: Path) -> None:
    try:
        import gdown
    except ImportError:
        raise DownloadFailed(f"Google Drive {drive}: needs python -m pip install '.[download]'") from None
    try:
        got = gdown.download(id=drive, output=str(partial), quiet=True, resume=True)
    except Exception as error:  # gdown passes on whatever requests raises
        why = "no connection" if "Max retries exceeded" in str(error) else _line(error)
        raise DownloadFailed(f"Google Drive {drive}: {why}") from None
    if got is None or not partial.is_file():
        raise DownloadFailed(f"Google Drive {drive}: no file (removed, private, or over its quota)")


def _with_retries(address: str, partial: Path, say: Say) -> bool:
    """Attempts continue where the last one stopped; one that brings no byte counts against the limit. Returns
    whether the server said how long the file is."""
    failures = 0
    while True:
        before = partial.stat().st_size if partial.exists() else 0
        try:
            return _attempt(address, partial)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code != 429:
                raise DownloadFailed(f"{address}: {error.code} {error.reason}") from None
            now = partial.stat().st_size if partial.exists() else 0
            failures = 0 if now > before else failures + 1
            if failures >= ATTEMPTS or _hopeless(error):
                failed = DownloadFailed(f"{address}: {_line(error)}")
                failed.no_connection = now == 0
                raise failed from None
            say(f"{address}: {_line(error)}; continuing at {now:,} bytes")
            time.sleep(min(5.0, 0.1 * 2**failures))


def _hopeless(error: Exception) -> bool:
    """No name, no route, nobody listening, no TLS: trying again at once is no use."""
    cause = getattr(error, "reason", error)
    return isinstance(cause, ConnectionRefusedError | ssl.SSLError) or type(cause).__name__ == "gaierror"


def _attempt(address: str, partial: Path) -> bool:
    """One request; returns whether its length was known. Appends to `partial` when the server resumes the same file, else starts over."""
    tag = partial.with_name(partial.name + ".tag")
    have = partial.stat().st_size if partial.exists() and tag.exists() else 0
    request = urllib.request.Request(address, headers={"User-Agent": "zssbir"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag.read_text("utf-8"))
    try:
        reply = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        tag.unlink(missing_ok=True)  # what is here does not fit the file there: start over
        raise ConnectionError("the server refuses to resume") from None
    with contextlib.closing(reply):
        facts = _facts(address, reply, have, tag)
        _check_space(address, partial, facts)
        if facts.start == 0:
            tag.unlink(missing_ok=True)
            if facts.validator:
                tag.write_text(facts.validator, "utf-8")
        with partial.open("r+b" if facts.start else "wb") as file:
            file.seek(facts.start)
            file.truncate()
            _copy(address, reply, file, facts.total)
    size = partial.stat().st_size
    if facts.total is not None and size != facts.total:
        if size > facts.total:
            tag.unlink(missing_ok=True)
        raise ConnectionError(f"the connection ended at {size:,} of {facts.total:,} bytes")
    tag.unlink(missing_ok=True)
    return facts.total is not None


def _copy(address: str, reply: Any, file: BinaryIO, total: int | None) -> None:
    """Write what comes; without a length, stop when there is too much of it or the disk fills up."""
    while block := reply.read(BLOCK):
        file.write(block)
        if file.tell() > (total or MOST_BYTES):
            raise DownloadFailed(f"{address}: the server sends more than {total or MOST_BYTES:,} bytes")
        if total is None and shutil.disk_usage(file.name).free < HEADROOM:
            raise DownloadFailed(f"{address}: the disk is nearly full after {file.tell():,} bytes")


def _facts(address: str, reply: Any, have: int, tag: Path) -> _Reply:
    kind = reply.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        text = reply.read(100_000).decode("utf-8", "replace").casefold()
        why = "its download quota is used up" if "quota" in text else "a web page, not a file"
        raise DownloadFailed(f"{address}: {why}")
    etag = reply.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else reply.headers.get("Last-Modified", "")
    length = reply.headers.get("Content-Length")
    size = int(length) if length and length.isdecimal() else None
    if reply.status == 206:
        start, total = _content_range(reply.headers.get("Content-Range", ""), size)
        if start != have:
            tag.unlink(missing_ok=True)
            raise ConnectionError("the server resumed at another place")
        return _Reply(start, total, validator)
    return _Reply(0, size, validator)


def _content_range(text: str, size: int | None) -> tuple[int, int | None]:
    """`bytes 100-199/200` -> (100, 200)."""
    try:
        span, _, total = text.removeprefix("bytes ").partition("/")
        start = int(span.partition("-")[0])
        return start, int(total) if total.isdecimal() else start + size if size is not None else None
    except ValueError:
        raise ConnectionError(f"the server answered with a bad Content-Range {text[:60]!r}") from None


def _check_space(address: str, partial: Path, facts: _Reply) -> None:
    if (facts.total or 0) > MOST_BYTES:
        raise DownloadFailed(f"{address}: {facts.total:,} bytes are offered, more than any benchmark has")
    free = shutil.disk_usage(partial.parent).free
    need = (facts.total or 0) - facts.start
    if need + HEADROOM > free:
        raise DownloadFailed(
            f"{address}: {need >> 20:,} MiB to fetch, {free >> 20:,} MiB free in {partial.parent}"
        )


def _check_content(address: str, partial: Path) -> None:
    """The file must begin like an archive; a page or an empty file is removed."""
    with partial.open("rb") as file:
        head = file.read(512)
    if head.lstrip()[:1] == b"<" or not head:
        partial.unlink()
        raise DownloadFailed(f"{address}: {'a web page, not a file' if head else 'an empty file'}")


def _opens(path: Path, suffix: str) -> bool:
    """Whether a zip or 7z is whole, by the directory at its end; others are taken as they are."""
    if suffix == ".zip":
        return zipfile.is_zipfile(path)
    if suffix != ".7z":
        return True
    with path.open("rb") as file:
        head = file.read(32)
    whole = 32 + int.from_bytes(head[12:20], "little") + int.from_bytes(head[20:28], "little")
    return head[:6] == b"7z\xbc\xaf\x27\x1c" and path.stat().st_size >= whole


def _line(error: BaseException) -> str:
    return " ".join(str(getattr(error, "reason", None) or error).split())[:200] or type(error).__name__
