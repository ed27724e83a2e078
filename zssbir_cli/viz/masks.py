"""Pictures of linguistic masks in the style of PuXIM's Figure 3: a PNG contact sheet and an HTML page."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

HEAT, FEATURE = "viridis", "cividis"  # both perceptually uniform
BLANK = np.array([238, 238, 238], np.uint8)
COLUMNS = ("photo", "score", "kept patches", "features", "masked", "normalised")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class MaskPicture:
    """All that is shown of one photo.

    photo: uint8 [H, W, 3]. title, note: class or text, and a short line below it. scores: float [h, w].
    keep: bool [a, b], the kept patches on the encoder's grid. features, normalised: float [a, b], the tokens along
    their first principal component, as they are and normalised token by token. truth: bool [H, W] or None.
    """

    photo: npt.NDArray[np.uint8]
    title: str
    note: str
    scores: Floats
    keep: npt.NDArray[np.bool_]
    features: Floats
    normalised: Floats
    truth: npt.NDArray[np.bool_] | None = None


def panels(picture: MaskPicture, side: int = 224) -> list[npt.NDArray[np.uint8]]:
    """The six images of `COLUMNS`, uint8 [h, w, 3], each with the photo's aspect ratio and longer side `side`."""
    size = _fit(picture.photo.shape[1], picture.photo.shape[0], side)
    photo = np.asarray(Image.fromarray(picture.photo).resize(size, Image.Resampling.LANCZOS))
    heat = _coloured(_smooth(_unit(picture.scores), size), HEAT)
    overlay = np.rint(0.45 * photo + 0.55 * heat).astype(np.uint8)
    if picture.truth is not None:
        overlay = _outlined(overlay, picture.truth, size)
    keep = _blocks(picture.keep, size)
    faded = np.rint(0.12 * photo + 0.88 * BLANK).astype(np.uint8)
    features = _coloured(_blocks(_unit(picture.features), size), FEATURE)
    normalised = _unit(picture.normalised, picture.normalised[picture.keep])
    return [
        photo,
        overlay,
        np.where(keep[..., None], photo, faded),
        features,
        np.where(keep[..., None], features, BLANK),
        np.where(keep[..., None], _coloured(_blocks(normalised, size), FEATURE), BLANK),
    ]


def contact_sheet(pictures: Sequence[MaskPicture], path: Path, heading: str, dpi: int = 160) -> Path:
    """Write all photos as the rows of one PNG; returns `path`."""
    _sheet(pictures, heading).savefig(path, dpi=dpi, facecolor="white")
    return path


def _sheet(pictures: Sequence[MaskPicture], heading: str) -> Figure:
    cell, label, top, bottom = 1.5, 1.45, 0.62, 0.5
    heights = [cell * min(1.6, p.photo.shape[0] / p.photo.shape[1]) for p in pictures]
    width, height = label + cell * len(COLUMNS) + 0.15, top + sum(heights) + 0.06 * len(heights) + bottom
    figure = Figure(figsize=(width, height))
    figure.text(0.012, 1 - 0.13 / height, heading, va="top", fontsize=9, color="#333333", wrap=True)
    y = height - top
    for row, (picture, tall) in enumerate(zip(pictures, heights, strict=True)):
        y -= tall
        text = _wrapped(picture.title, 18)
        figure.text(
            0.12 / width, (y + tall / 2 + 0.06) / height, text, va="bottom", fontsize=10, weight="bold"
        )
        figure.text(
            0.12 / width, (y + tall / 2) / height, picture.note, va="top", fontsize=7.5, color="#555555"
        )
        for column, image in enumerate(panels(picture, 320)):
            left = (label + cell * column) / width
            axes = figure.add_axes((left, y / height, (cell - 0.06) / width, tall / height))
            axes.imshow(image, interpolation="nearest")
            axes.set_axis_off()
            if row == 0:
                axes.set_title(COLUMNS[column], fontsize=9, pad=3)
        y -= 0.06
    _bar(figure, (label + cell) / width, 0.26 / height, (cell - 0.06) / width, HEAT, "score for the text")
    _bar(figure, (label + 3 * cell) / width, 0.26 / height, (cell - 0.06) / width, FEATURE, "first component")
    return figure


def _bar(figure: Figure, left: float, bottom: float, width: float, colours: str, text: str) -> None:
    axes = figure.add_axes((left, bottom, width, 0.08 / figure.get_figheight()))
    axes.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto")
    axes.set_xticks([0, 255], ["low", "high"], fontsize=7)
    axes.set_yticks([])
    axes.tick_params(length=0, pad=1)
    axes.set_title(text, fontsize=7.5, pad=2)


def html_page(pictures: Sequence[MaskPicture], path: Path, heading: str) -> Path:
    """Write one self-contained page (images inside, no scripts); returns `path`."""
    rows = []
    for p in pictures:
        cells = "".join(f'<td><img alt="{name}" src="{_uri(i)}"></td>' for name, i in _named(p))
        title, note = html.escape(p.title), html.escape(p.note)
        rows.append(f"<tr><th scope=row>{title}<small>{note}</small></th>{cells}</tr>")
    head = "".join(f"<th scope=col>{name}</th>" for name in COLUMNS)
    text = _PAGE.format(heading=html.escape(heading), head=head, rows="\n".join(rows))
    path.write_text(text, encoding="utf-8")
    return path


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Linguistic masks</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }}
table {{ border-collapse: collapse }} td {{ padding: 2px }} th {{ text-align: left; padding: 4px 10px 4px 0 }}
thead th {{ font-weight: 500; color: #555; padding-left: 3px }}
img {{ display: block; max-width: 15vw }} small {{ display: block; font-weight: 400; color: #666; max-width: 12rem }}
</style>
<h1>Linguistic masks</h1><p>{heading}</p>
<table><thead><tr><th></th>{head}</tr></thead><tbody>
{rows}
</tbody></table></html>
"""


def _named(picture: MaskPicture) -> list[tuple[str, npt.NDArray[np.uint8]]]:
    return list(zip(COLUMNS, panels(picture), strict=True))


def _uri(image: npt.NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _unit(values: npt.NDArray[Any], like: npt.NDArray[Any] | None = None) -> Floats:
    """Values on 0-1 by the range of `like` (default: themselves); the top 8 % saturate, so that one loud patch does
    not darken all others."""
    low, high = np.percentile(values if like is None else like, (1, 92))
    scaled: Floats = np.clip((values - low) / max(high - low, 1e-9), 0, 1).astype(np.float32)
    return scaled


def _smooth(values: Floats, size: tuple[int, int]) -> Floats:
    image = Image.fromarray(values, mode="F").resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image, np.float32), 0, 1)


def _blocks(values: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """A grid enlarged to `size` (width, height) with sharp cells."""
    rows = np.arange(size[1]) * values.shape[0] // size[1]
    columns = np.arange(size[0]) * values.shape[1] // size[0]
    return np.asarray(values[rows][:, columns])


def _coloured(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    colours = matplotlib.colormaps[name](values)[..., :3]
    return np.asarray(np.rint(colours * 255), np.uint8)


def _outlined(image: npt.NDArray[np.uint8], truth: npt.NDArray[np.bool_], size: tuple[int, int]) -> Any:
    """The image with the true object's outline in white."""
    mask = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
    inner = mask.copy()
    for axis in (0, 1):
        for step in (-2, 2):
            inner &= np.roll(mask, step, axis)
    return np.where((mask & ~inner)[..., None], np.uint8(255), image)
