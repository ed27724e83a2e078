"""The one HTML page: Jinja2 templates beside this file; self-contained, no script, nothing loaded from anywhere.

Templates escape all values. What a page shows beside text are `Tile` (viz.sheet), `Table` and `Figure`.
"""

import base64
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from zssbir_cli import files
from zssbir_cli.arrays import UInt8
from zssbir_cli.viz.fonts import shortened

THUMB = 160
"""Side of a thumbnail in pixels."""
CAPTION = 36
"""Characters of a line of a caption that may be long."""


@dataclass(frozen=True)
class Table:
    """A table of texts. `styles`: CSS class of each row (`first`: a line above; `published`: not ours)."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    styles: Sequence[str] = ()

    @property
    def numeric(self) -> list[bool]:
        """Which columns hold numbers only, and stand on the right."""
        cells = [[row[i] for row in self.rows if row[i]] for i in range(len(self.columns))]
        return [bool(column) and all(map(_is_number, column)) for column in cells]


@dataclass(frozen=True)
class Figure:
    """A drawing for a page: an SVG document made here, in words for those who cannot see it, and its caption."""

    svg: str
    alt: str
    caption: str
    wide: bool = False

    @property
    def inline(self) -> Markup:
        """The drawing as an element of a page."""
        return Markup(self.svg[self.svg.index("<svg") :])


def write_page(path: Path, template: str, **values: object) -> Path:
    """Fill a template and write the page, whole or not at all; returns `path`. Raises DataError."""
    with files.writing(path):
        files.write_text(path, render(template, **values))
    return path


def render(template: str, **values: object) -> str:
    """A page as text. `template`: name of a file in viz/templates, without `.html`."""
    return _environment().get_template(f"{template}.html").render(**values)


@lru_cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = data_uri
    environment.filters["shortened"] = lambda text: shortened(text, lambda part: len(part) <= CAPTION)
    return environment


def link(target: Path, page: Path) -> str:
    """The address of a file as seen from a page: relative, so that it holds when both are moved together; "" for a file
    on another drive."""
    try:
        relative = os.path.relpath(target.resolve(), page.resolve().parent)
    except ValueError:  # on another drive
        return ""
    return quote(os.fsencode(relative.replace(os.sep, "/")))


def data_uri(image: UInt8) -> str:
    """uint8 [H, W, 3] -> a data: URI (JPEG)."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def square(image: UInt8) -> UInt8:
    """An image [H, W] or [H, W, 1 or 3] -> [`THUMB`, `THUMB`, 3], cropped to its middle square."""
    flat = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    picture = Image.fromarray(flat).convert("RGB")
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    cut = picture.crop((left, top, left + edge, top + edge)).resize((THUMB, THUMB), Image.Resampling.LANCZOS)
    return np.asarray(cut)


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").replace("%", "").replace("–", "-").split(" ")[0])
    except (ValueError, IndexError):
        return False
    return True
