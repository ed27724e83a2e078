"""Turns the flat parts of a shape into a picture of a solid, softly lit object."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from zssbir_cli.demo.material import Material, pattern
from zssbir_cli.demo.paint import Picture, Plane, blurred
from zssbir_cli.demo.pieces import Piece

_SUPERSAMPLE = 2


@dataclass(frozen=True)
class Light:
    """direction: where the light comes from, radians in the picture (y down); height: 0-1, 1 = overhead;
    warmth: colour [3] of the light."""

    direction: float
    height: float
    warmth: Plane


@dataclass(frozen=True)
class Patch:
    """A rendered object: colour [h, w, 3] and coverage [h, w] (0-1), whose top left pixel is (top, left)."""

    colour: Picture
    cover: Plane
    top: int
    left: int


def paint_solid(parts: list[Piece], material: Material, light: Light, rng: np.random.Generator) -> Patch:
    """Render parts given in pixels of the final picture; the tile may reach beyond the frame."""
    k = _SUPERSAMPLE
    low = np.floor(np.min([p.points.min(axis=0) - p.width for p in parts], axis=0)).astype(int) - 2
    high = np.ceil(np.max([p.points.max(axis=0) + p.width for p in parts], axis=0)).astype(int) + 3
    width, height = (int(n) for n in high - low)
    index, relief = _drawn(parts, low, (width * k, height * k))
    colour, cover = _reduced(_albedo(parts, index, material, rng), index > 0, k)
    lit, shine = _lighting(relief, float(max(width, height)), light, material.gloss)
    colour *= lit[..., None] * light.warmth
    colour += shine[..., None]
    np.clip(colour, 0, 1, out=colour)
    return Patch(colour, cover, int(low[1]), int(low[0]))


def _drawn(
    parts: list[Piece], low: "np.typing.NDArray[np.int_]", size: tuple[int, int]
) -> tuple[Plane, Plane]:
    """Supersampled index of the part (0 = none); relief with grooves along all outlines (0-1, final size)."""
    k = _SUPERSAMPLE
    index, relief = Image.new("L", size, 0), Image.new("L", size, 0)
    pen, chisel = ImageDraw.Draw(index), ImageDraw.Draw(relief)
    groove = max(2, round(max(size) / 110))
    for number, part in enumerate(parts, start=1):
        flat = ((part.points - low) * k).ravel().tolist()
        if part.width == 0:
            pen.polygon(flat, fill=number)
            chisel.polygon(flat, fill=255)
            chisel.line(flat + flat[:4], fill=120, width=groove)
            continue
        w = max(2.0, part.width * k)
        if part.closed:
            flat = flat + flat[:2]
        _thick(chisel, flat, w + groove, 120)
        _thick(chisel, flat, w - 1, 255)
        _thick(pen, flat, w, number)
    return np.asarray(index), np.asarray(relief.reduce(k), dtype=np.float32) / 255


def _thick(draw: ImageDraw.ImageDraw, flat: list[float], width: float, fill: int) -> None:
    draw.line(flat, fill=fill, width=max(1, round(width)), joint="curve")
    r = width / 2
    for x, y in (flat[:2], flat[-2:]):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


def _albedo(parts: list[Piece], index: Plane, material: Material, rng: np.random.Generator) -> Picture:
    """Colour of each pixel without light: palette, slight variation per part, the pattern."""
    table = np.zeros((len(parts) + 1, 3), np.float32)
    share = np.zeros(len(parts) + 1, np.float32)
    for number, part in enumerate(parts, start=1):
        table[number] = material.palette[part.tone] * rng.uniform(0.94, 1.06)
        share[number] = (1.0, 0.35, 0.15, 0.2)[part.tone]
    colour: Picture = np.asarray(table[index])
    if material.grain != "plain":
        small = pattern(material, rng, *index.shape)
        colour *= (1 + (small - 1) * share[index])[..., None]
    return colour


def _lighting(relief: Plane, extent: float, light: Light, gloss: float) -> tuple[Plane, Plane]:
    """Brightness factor and additive highlights from the relief seen as a height field."""
    fine, mid, wide = (blurred(relief, extent * r) for r in (0.007, 0.028, 0.085))
    height = (fine * 0.012 + mid * 0.055 + wide * 0.15) * extent
    gy, gx = np.gradient(height)
    lx, ly = np.cos(light.direction), np.sin(light.direction)
    flat = 1 / np.sqrt(1 + gx * gx + gy * gy)
    slope = -(gx * lx + gy * ly) * flat
    facing = slope * np.cos(light.height) + flat * np.sin(light.height)
    lit = 0.36 + 0.74 * np.clip(facing, 0, None) / max(0.5, float(np.sin(light.height)))
    lit *= 0.62 + 0.38 * np.clip(fine * 1.15, 0, 1)
    half = np.pi / 4 + light.height / 2
    mirror = np.clip(slope * np.cos(half) + flat * np.sin(half), 0, 1)
    shine = gloss * (0.55 * mirror**60 + 0.12 * mirror**12) * (mirror > 0)
    return np.asarray(np.clip(lit, 0.12, 1.22), np.float32), np.asarray(shine * 0.6, np.float32)


def _reduced(colour: Picture, cover: "np.typing.NDArray[np.bool_]", k: int) -> tuple[Picture, Plane]:
    """Mean colour of the covered subpixels of each pixel [h, w, 3], and the covered share [h, w]."""
    weight = cover.astype(np.float32)
    colour *= weight[..., None]
    starts = [(i, j) for i in range(k) for j in range(k)]
    share = sum((weight[i::k, j::k] for i, j in starts), start=np.float32(0))
    total = sum((colour[i::k, j::k] for i, j in starts), start=np.float32(0))
    return np.asarray(total / np.maximum(share, 1e-6)[..., None]), np.asarray(share / (k * k))
