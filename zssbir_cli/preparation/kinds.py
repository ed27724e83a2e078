"""What counts as a picture and what as junk: the one list that every command goes by."""

import os
import re

PICTURE_SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".pjpeg", ".pjp", ".png", ".apng", ".bmp", ".dib", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".avifs", ".heic", ".heif", ".hif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".svgz"]
)  # fmt: skip
"""Files that are taken for pictures. One that cannot be read here is left out with the reason (`clean`)."""
JUNK = frozenset(
    ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "#recycle", "icon\r")
)
HEAD_BYTES = 4096
_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,7}")
_SIGNATURES = (
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0|RIFF....WEBP"
    rb"|II\*\0|MM\0\*|P[1-6][ \t\r\n#]|....ftyp(?:avi[fs]|hei[cxms]|hev[cxms]|mif1|msf1)"
    rb"|\0\0\0\x0cj(?:P  |XL )\r\n\x87\n|\xff\x4f\xff\x51|\xff\x0a"
)
_PICTURE = re.compile(_SIGNATURES, re.DOTALL)
_HTML = re.compile(rb"<(!doctype\s+)?html[\s>]", re.IGNORECASE)
_SVG = re.compile(rb"<(\w+:)?svg[\s>]")


def is_junk(name: str) -> bool:
    """Files and folders that operating systems leave behind: hidden ones (`._x.png` of a Mac is no picture),
    Thumbs.db, __MACOSX and their like."""
    return name.startswith(".") or name.lower() in JUNK


def is_picture_name(path: str) -> bool:
    """Whether the suffix is that of a picture."""
    return suffix(path) in PICTURE_SUFFIXES


def may_be_picture(path: str) -> bool:
    """Whether a file is to be read as a picture: by its suffix, or because it has none that says what it is
    (`IMG_0001`, `n0123.4`, `cat.jpg_large`) and only its content tells."""
    found = suffix(path)
    return found in PICTURE_SUFFIXES or _SUFFIX.fullmatch(found) is None


def suffix(path: str) -> str:
    """The suffix in lower case with its dot ("" = none)."""
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 (a Path takes ten times as long)


def is_picture_head(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 32, better `HEAD_BYTES`) is a picture."""
    return _PICTURE.match(head) is not None or is_svg(head)


def is_svg(head: bytes) -> bool:
    """Whether a file that begins with these bytes is an SVG document (plain or gzip-compressed)."""
    if head[:2] == b"\x1f\x8b":
        return True
    start = head[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<") and _SVG.search(start) is not None and not is_html(head)


def is_html(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a web page, which servers send in place of a picture."""
    start = head[:HEAD_BYTES].lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"<") and _HTML.search(start) is not None
