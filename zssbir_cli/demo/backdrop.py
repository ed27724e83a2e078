"""Backgrounds of the demo photos: surfaces and rooms with texture, and small clutter lying about."""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from zssbir_cli.demo.geometry import ellipse, smooth, turn
from zssbir_cli.demo.paint import Picture, Plane, blurred, grid, hsv, mix, noise, softened
from zssbir_cli.demo.pieces import Dice


def _surface_colour(d: Dice) -> Plane:
    """A colour for a surface: mostly muted, any hue."""
    return hsv(d(0, 1), d(0.04, 0.4) if d.chance(0.8) else d(0.4, 0.75), d(0.35, 0.95))


def _near(d: Dice, colour: Plane, amount: float) -> Plane:
    return np.clip(colour * d(1 - amount, 1 + amount) + d.rng.normal(0, amount * 0.12, 3), 0, 1).astype(
        np.float32
    )


def _paper(d: Dice, n: int) -> Picture:
    y, x = grid(n, n)
    a = _surface_colour(d)
    glow = np.hypot(x - d(0.2, 0.8), y - d(0.1, 0.7))
    return mix(a, a * d(0.45, 0.8), glow * d(0.7, 1.2)) + 0.02 * noise(d.rng, n, n, (30, 30), 2)[..., None]


def _wood(d: Dice, n: int) -> Picture:
    a = hsv(d(0.04, 0.11), d(0.25, 0.65), d(0.35, 0.85)) if d.chance(0.75) else _surface_colour(d)
    planks = d.count(2, 6)
    y, _ = grid(n, n)
    row = np.minimum((y * planks).astype(int), planks - 1)
    offsets = d.rng.uniform(0, 40, planks).astype(np.float32)
    warp = noise(d.rng, n, n, (planks * 2, 2), 2)
    rings = np.sin((y * planks * 5 + warp * 1.3 + offsets[row]) * 2 * np.pi / 2)
    tint = d.rng.uniform(0.82, 1.12, planks).astype(np.float32)[row]
    shade = tint * (1 + 0.07 * rings + 0.07 * noise(d.rng, n, n, (n / 2, 5), 1))
    gap = np.abs((y * planks) % 1.0)
    shade *= np.where(np.minimum(gap, 1 - gap) < planks * 0.7 / n, 0.45, 1.0)
    picture = a * shade[..., None]
    return np.ascontiguousarray(picture.transpose(1, 0, 2)) if d.chance(0.5) else picture


def _cloth(d: Dice, n: int) -> Picture:
    y, x = grid(n, n)
    a, b = _surface_colour(d), _surface_colour(d)
    angle, f = d(-0.5, 0.5), d(4, 12)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    kind = d.count(0, 3)
    if kind == 0:
        t = 0.5 * (np.sin(u * f * 6.28) > 0.3) + 0.5 * (np.sin(v * f * 6.28) > 0.3)
    elif kind == 1:
        t = (np.sin(u * f * 6.28) > d(-0.3, 0.6)).astype(np.float32)
    elif kind == 2:
        p, q = (u * f) % 1 - 0.5, (v * f + 0.5 * (np.floor(u * f) % 2)) % 1 - 0.5
        t = (p * p + q * q < d(0.03, 0.1)).astype(np.float32)
    else:
        t = 0.5 + 0.5 * np.sin((u + v) * f * 12)
    folds = 1 + 0.12 * noise(d.rng, n, n, (2, 3), 2)
    weave = 1 + 0.05 * np.sin(x * n * 2.1) * np.sin(y * n * 2.1)
    cloth = mix(a, a * 0.45 + b * 0.55, t * d(0.5, 1.0))
    return np.asarray(cloth * (folds * weave)[..., None])


def _tiles(d: Dice, n: int) -> Picture:
    y, x = grid(n, n)
    a = _surface_colour(d)
    rows = d.count(3, 8)
    columns = rows if d.chance(0.5) else max(2, rows // 2)
    r = np.floor(y * rows)
    u = x * columns + (0.5 * (r % 2) if columns != rows else 0)
    c = np.floor(u)
    tint = d.rng.uniform(0.75, 1.12, (rows + 2, columns + 3)).astype(np.float32)[r.astype(int), c.astype(int)]
    joint = np.minimum(
        np.minimum(y * rows % 1, 1 - y * rows % 1) / rows, np.minimum(u % 1, 1 - u % 1) / columns
    )
    mortar = np.clip(1.4 - joint * n / 1.1, 0, 1)
    picture = a * (tint * (1 + 0.06 * noise(d.rng, n, n, (12, 12), 3)))[..., None]
    return mix(picture, _near(d, a, 0.2) * d(0.35, 1.25), mortar)


def _ground(d: Dice, n: int) -> Picture:
    """Grass, sand, gravel, snow."""
    base = (
        hsv(d(0.2, 0.36), d(0.35, 0.75), d(0.35, 0.65)),
        hsv(d(0.08, 0.14), d(0.2, 0.5), d(0.6, 0.9)),
        hsv(d(0, 1), d(0, 0.12), d(0.4, 0.95)),
    )[d.count(0, 2)]
    coarse, fine = (
        noise(d.rng, n, n, (4, 4), 2),
        noise(d.rng, n, n, (n / 4, n / (3 if d.chance(0.5) else 9)), 2),
    )
    return mix(base * d(0.45, 0.7), _near(d, base, 0.15) * 1.1, 0.55 + 0.28 * coarse + 0.33 * fine)


def _marble(d: Dice, n: int) -> Picture:
    a = hsv(d(0, 1), d(0, 0.2), d(0.65, 0.97)) if d.chance(0.7) else hsv(d(0, 1), d(0.1, 0.5), d(0.15, 0.35))
    veins = np.abs(noise(d.rng, n, n, (2, 3), 5))
    return (
        mix(a * d(0.45, 0.75), a, veins * d(3, 6) + 0.12)
        + 0.015 * noise(d.rng, n, n, (n / 2, n / 2), 1)[..., None]
    )


def _bokeh(d: Dice, n: int) -> Picture:
    y, x = grid(n, n)
    picture = mix(
        _surface_colour(d) * d(0.3, 0.9),
        _surface_colour(d) * d(0.3, 0.9),
        y + 0.3 * noise(d.rng, n, n, (2, 2), 1),
    )
    for _ in range(d.count(8, 20)):
        r = d(0.03, 0.11)
        disc = np.clip((r - np.hypot(x - d(0, 1), y - d(0, 1))) * n / 2.5, 0, 1)
        picture += disc[..., None] * hsv(d(0, 1), d(0.1, 0.6), d(0.5, 1)) * d(0.08, 0.35)
    return picture


_SURFACES: list[Callable[[Dice, int], Picture]] = [_paper, _wood, _cloth, _tiles, _ground, _marble, _bokeh]


def table_top(d: Dice, n: int) -> Picture:
    """A surface seen from above, [n, n, 3]."""
    return _SURFACES[d.count(0, len(_SURFACES) - 1)](d, n)


def room(d: Dice, n: int, horizon: float) -> Picture:
    """A wall over a floor that meet at `horizon` (0-1 from the top), [n, n, 3]."""
    wall = _SURFACES[(0, 0, 2, 3, 5, 6, 1)[d.count(0, 6)]](d, n)
    floor = _SURFACES[(0, 1, 2, 3, 4, 5)[d.count(0, 5)]](d, n)
    y, _ = grid(n, n)
    row = np.clip((np.arange(n) / n - horizon) / max(1 - horizon, 1e-3), 0, 1)
    squeezed = floor[np.minimum((row**0.75 * n).astype(int), n - 1)]
    blend = np.clip((y - horizon) * n / (1.5 if d.chance(0.6) else 14) + 0.5, 0, 1)
    near = 0.75 + 0.3 * np.clip((y - horizon) / max(1 - horizon, 1e-3), 0, 1)
    corner = 1 - 0.25 * np.exp(-np.abs(y - horizon) * 14)
    soft = np.stack([blurred(np.clip(wall[..., c], 0, 1), n / 128 * d(0.3, 1.5)) for c in range(3)], axis=2)
    return np.asarray(mix(soft, squeezed * near[..., None], blend) * corner[..., None])


def litter(d: Dice, picture: Picture, amount: int, direction: float) -> Picture:
    """`amount` small flat things with shadows: pebbles, leaves, scraps of paper, sticks."""
    n, k = picture.shape[0], 2
    layer, shadow = Image.new("RGBA", (n * k, n * k)), Image.new("L", (n, n), 0)
    pen, dark = ImageDraw.Draw(layer), ImageDraw.Draw(shadow)
    away = np.array([-np.cos(direction), -np.sin(direction)]) * n * 0.012
    for _ in range(amount):
        points = _scrap(d) * n * d(0.03, 0.085) + d.rng.uniform(0, n, 2)
        colour = np.clip(_surface_colour(d) * 255, 0, 255).astype(int).tolist()
        dark.polygon((points + away).ravel().tolist(), fill=150)
        pen.polygon((points * k).ravel().tolist(), fill=(*colour, 255))
        pen.line(
            (points * k).ravel().tolist()[: len(points) // 2 * 2],
            fill=(*(min(255, c + 45) for c in colour), 255),
            width=k,
        )
    cast = softened(shadow, n * 0.012)
    things = np.asarray(layer.reduce(k), dtype=np.float32) / 255
    picture = picture * (1 - 0.6 * cast[..., None])
    return mix(picture, things[..., :3] / np.maximum(things[..., 3:], 1e-3), things[..., 3])


def _scrap(d: Dice) -> "np.typing.NDArray[np.float64]":
    kind = d.count(0, 3)
    if kind == 0:
        shape = smooth(ellipse(0, 0, 1, d(0.5, 0.9), n=7) + d.rng.normal(0, 0.08, (7, 2)))
    elif kind == 1:
        shape = smooth([(-1.2, 0), (0, -d(0.25, 0.5)), (1.2, 0.05), (0, d(0.25, 0.5))])
    elif kind == 2:
        w, h = d(0.6, 1.3), d(0.5, 1.0)
        shape = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) + d.rng.normal(0, 0.1, (4, 2))
    else:
        w = d(1.2, 2.2)
        shape = np.array([(-w, -0.12), (w, -0.08), (w, 0.08), (-w, 0.12)])
    return turn(shape, d(0, 360))
