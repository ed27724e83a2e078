"""Photos of the demo shapes: a lit object on a backdrop, litter, things of other classes; an exact mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from zssbir_cli.arrays import UInt8
from zssbir_cli.demo.backdrop import litter, room, table_top
from zssbir_cli.demo.classes import CLASSES, draw_instance
from zssbir_cli.demo.geometry import Points, ellipse, smooth
from zssbir_cli.demo.material import random_material
from zssbir_cli.demo.paint import Picture, Plane, hsv, luminance, mix, noise, softened
from zssbir_cli.demo.pieces import Dice, Piece, extent
from zssbir_cli.demo.solid import Light, Patch, paint_solid
from zssbir_cli.errors import UsageError

_MOST_DISTRACTORS = 5
_MOST_HIDDEN = 0.3


@dataclass(frozen=True)
class Scene:
    """photo: uint8 [H, W, 3]; mask: bool [H, W], the visible pixels of the object; clutter: bool [H, W],
    the visible pixels of the distractors."""

    photo: UInt8
    mask: npt.NDArray[np.bool_]
    clutter: npt.NDArray[np.bool_]


def draw_photo(
    name: str,
    rng: np.random.Generator,
    size: int = 128,
    ambiguity: float = 0.2,
    others: Sequence[str] = CLASSES,
) -> tuple[UInt8, npt.NDArray[np.bool_]]:
    """A photo of a new random instance of class `name`.

    ambiguity: 0 = no things of other classes in the picture, 1 = five, nearly as large as the object; the same
    generator state gives the same scene but for them; others: the classes they are of. Returns the photo, uint8
    [size, size, 3], and the mask of the object's visible pixels, bool [size, size]. Raises UsageError for an
    unknown class or an ambiguity outside 0-1.
    """
    scene = draw_scene(name, rng, size, ambiguity, others=others)
    return scene.photo, scene.mask


def draw_scene(
    name: str,
    rng: np.random.Generator,
    size: int = 128,
    ambiguity: float = 0.2,
    with_object: bool = True,
    others: Sequence[str] = CLASSES,
) -> Scene:
    """As `draw_photo`, with the distractors' pixels; `with_object` False leaves only the object's shadow."""
    if not 0 <= ambiguity <= 1:
        raise UsageError(f"ambiguity {ambiguity} is not between 0 and 1")
    seeds = rng.integers(0, 2**63, size=4)
    main, around, crowd, lens = (np.random.default_rng(int(s)) for s in seeds)
    d = Dice(around)
    light = Light(d(-2.7, -0.4), d(0.75, 1.15), hsv(d(0.05, 0.18) if d.chance(0.7) else 0.6, d(0, 0.14), 1.0))
    stage = d.chance(0.4)
    canvas: Picture = _backdrop(d, size, stage, light)
    level = luminance(canvas.mean(axis=(0, 1)))
    tile = _object(name, Dice(main), size, stage, light, level)
    crowd_of = [c for c in others if c != name]
    things = _others(crowd_of, Dice(crowd), size, ambiguity, stage, light, level)
    front = _in_front(things, tile, size)
    clutter: Plane = np.zeros((size, size), np.float32)
    for number, other in enumerate(things):
        if number != front:
            canvas = _placed(canvas, other, stage, light)
            clutter = np.maximum(clutter, _cover(other, size))
    cover = _cover(tile, size)
    canvas = _shadowed(canvas, tile, stage, light)
    if with_object:
        canvas = _over(canvas, tile)
    visible: Plane = cover
    clutter = clutter * (1 - cover)
    if front is not None:
        canvas = _placed(canvas, things[front], stage, light)
        hidden = _cover(things[front], size)
        visible, clutter = visible * (1 - hidden), np.maximum(clutter, hidden)
    if d.chance(0.25):
        canvas, veil = _foreground(d, canvas, cover)
        visible, clutter = visible * (1 - veil), clutter * (1 - veil)
    mask = visible >= 0.5
    return Scene(_exposed(canvas, Dice(lens)), mask, (clutter >= 0.5) & ~mask)


def _backdrop(d: Dice, size: int, stage: bool, light: Light) -> Picture:
    picture = room(d, size, d(0.5, 0.72)) if stage else table_top(d, size)
    picture = np.clip(picture, 0, 1)
    amount = d.count(0, 4) if d.chance(0.5) else d.count(5, 14)
    if not stage and amount:
        picture = litter(d, picture, amount, light.direction)
    return picture * light.warmth


def _object(name: str, d: Dice, size: int, stage: bool, light: Light, level: float) -> Patch:
    parts = _turned(draw_instance(name, d.rng), d, 10 if stage else 24)
    half = size * d(0.29, 0.44)
    low, high = extent(parts)
    scale = half / float((high - low).max() / 2)
    room_left = np.maximum(size / 2 - (high - low) / 2 * scale - 2, 0)
    centre = size / 2 + room_left * d.rng.uniform(-0.85, 0.85, 2)
    if stage:
        centre[1] = size / 2 + room_left[1] * d(0.1, 0.8)
    return paint_solid(
        _moved(parts, (low + high) / 2, scale, centre), random_material(d, level), light, d.rng
    )


def _others(
    names: list[str], d: Dice, size: int, ambiguity: float, stage: bool, light: Light, level: float
) -> list[Patch]:
    """The first few of a fixed list of distractors; their number and their size grow with `ambiguity`."""
    start = d(0, 2 * np.pi)
    tiles = []
    for k in range(int(np.ceil(ambiguity * _MOST_DISTRACTORS - 1e-9))):
        own = Dice(np.random.default_rng(int(d.rng.integers(0, 2**63))))
        parts = _turned(
            draw_instance(names[own.count(0, len(names) - 1)], own.rng), own, 14 if stage else 180
        )
        angle, far = start + k * 2.4 + own(-0.4, 0.4), own(0.3, 0.48)
        centre = size * (0.5 + far * np.array([np.cos(angle), np.sin(angle)]))
        if stage:
            centre[1] = size * own(0.5, 0.85)
        low, high = extent(parts)
        scale = size * (0.09 + 0.22 * ambiguity) * own(0.8, 1.2) / float((high - low).max() / 2)
        moved = _moved(parts, (low + high) / 2, scale, centre)
        tiles.append(paint_solid(moved, random_material(own, level), light, own.rng))
    return tiles


def _in_front(others: list[Patch], tile: Patch, size: int) -> int | None:
    """Index of the last distractor if it may stand before the object, that is, hides not too much of it."""
    if not others:
        return None
    cover, last = _cover(tile, size), _cover(others[-1], size)
    hidden = float((cover * last).sum() / max(cover.sum(), 1))
    return len(others) - 1 if hidden < _MOST_HIDDEN else None


def _turned(parts: list[Piece], d: Dice, most: float) -> list[Piece]:
    """Parts mirrored at random, turned by up to `most` degrees and seen a little from the side."""
    angle = np.radians(float(np.clip(d.rng.normal(0, most / 2), -most, most)))
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.diag([-1.0 if d.chance(0.5) else 1.0, 1.0]) @ np.array([[c, s], [-s, c]])
    matrix = matrix @ np.array([[d(0.85, 1.1), d(-0.12, 0.12)], [d(-0.08, 0.08), d(0.9, 1.1)]])
    tip = np.array([d(-0.14, 0.14), d(-0.14, 0.14)])

    def project(points: Points) -> Points:
        q = points @ matrix
        return np.asarray(q / (1 + (q @ tip))[:, None])

    return [replace(p, points=project(p.points)) for p in parts]


def _moved(parts: list[Piece], origin: Points, scale: float, centre: Points) -> list[Piece]:
    return [replace(p, points=(p.points - origin) * scale + centre, width=p.width * scale) for p in parts]


def _window(tile: Patch, size: int) -> tuple[slice, slice, slice, slice]:
    """Rows and columns of the frame that a tile covers, and the tile's own rows and columns there."""
    h, w = tile.cover.shape
    y0, y1 = max(tile.top, 0), max(0, min(tile.top + h, size))
    x0, x1 = max(tile.left, 0), max(0, min(tile.left + w, size))
    own_rows, own_columns = slice(y0 - tile.top, y1 - tile.top), slice(x0 - tile.left, x1 - tile.left)
    return slice(y0, y1), slice(x0, x1), own_rows, own_columns


def _cover(tile: Patch, size: int) -> Plane:
    """Coverage of the frame by a tile, [size, size]."""
    plane = np.zeros((size, size), np.float32)
    rows, columns, own_rows, own_columns = _window(tile, size)
    plane[rows, columns] = tile.cover[own_rows, own_columns]
    return plane


def _over(canvas: Picture, tile: Patch) -> Picture:
    result = canvas.copy()
    rows, columns, own_rows, own_columns = _window(tile, canvas.shape[0])
    result[rows, columns] = mix(
        canvas[rows, columns], tile.colour[own_rows, own_columns], tile.cover[own_rows, own_columns]
    )
    return result


def _placed(canvas: Picture, tile: Patch, stage: bool, light: Light) -> Picture:
    return _over(_shadowed(canvas, tile, stage, light), tile)


def _shadowed(canvas: Picture, tile: Patch, stage: bool, light: Light) -> Picture:
    """The canvas with the tile's shadow: on the floor behind it (stage) or on the surface below it."""
    size = canvas.shape[0]
    cover = Image.fromarray((_cover(tile, size) * 255).astype(np.uint8))
    dx, dy = -np.cos(light.direction), -np.sin(light.direction)
    foot = min(size - 1.0, float(tile.top + tile.cover.shape[0] - 2))
    lean, squash, reach = -dx * 1.3, 0.32, size * 0.045 * (1.5 - light.height)
    # maps each pixel of the shadow back to the silhouette: standing (its foot line stays where it is), or lying
    data: tuple[float, ...] = (1, 0, -dx * reach, 0, 1, -dy * reach)
    if stage:
        data = (1, lean / squash * 0.5, -lean / squash * 0.5 * foot, 0, 1 / squash, foot * (1 - 1 / squash))
    cast = cover.transform((size, size), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    if stage:
        soft, contact = softened(cast, size * 0.018), softened(cover, size * 0.02)
        return canvas * (1 - 0.55 * soft - 0.2 * contact * (1 - soft))[..., None]
    return canvas * (1 - 0.42 * softened(cast, size * 0.022) - 0.25 * softened(cast, size * 0.007))[..., None]


def _foreground(d: Dice, canvas: Picture, cover: Plane) -> tuple[Picture, Plane]:
    """Something out of focus at the border that hides a little of the object; none if it would hide much."""
    n = canvas.shape[0]
    angle = d(0, 2 * np.pi)
    blob = smooth(ellipse(0, 0, 1, d(0.35, 0.8), n=8) + d.rng.normal(0, 0.12, (8, 2)))
    centre = n * (0.5 + d(0.42, 0.56) * np.array([np.cos(angle), np.sin(angle)]))
    image = Image.new("L", (n, n), 0)
    ImageDraw.Draw(image).polygon((blob * n * d(0.14, 0.26) + centre).ravel().tolist(), fill=255)
    veil = softened(image, n * d(0.01, 0.03))
    if float((veil * cover).sum()) > _MOST_HIDDEN * float(cover.sum()):
        return canvas, np.zeros_like(veil)
    colour = hsv(d(0, 1), d(0.1, 0.7), d(0.15, 0.9)) * (1 + 0.15 * noise(d.rng, n, n, (3, 3), 2))[..., None]
    return mix(canvas, colour, veil), veil


def _exposed(canvas: Picture, d: Dice) -> UInt8:
    """Exposure, contrast, vignette and sensor noise; then 8 bits."""
    n = canvas.shape[0]
    axis = np.linspace(-1, 1, n, dtype=np.float32) ** 2
    corner = 1 - d(0.08, 0.3) * np.clip((axis[:, None] + axis[None, :]) / 2, 0, 1)
    picture = np.clip(canvas, 0, 1) ** d(0.72, 1.0) * (d(0.92, 1.08) * corner)[..., None]
    picture += d.rng.normal(0, d(0.003, 0.013), (n, n, 1)).astype(np.float32)
    return np.asarray(np.clip(picture * 255 + 0.5, 0, 255), dtype=np.uint8)
