"""Colours and surfaces of an object: random per instance, so that they say nothing about its class."""

from dataclasses import dataclass

import numpy as np

from zssbir_cli.demo.paint import Plane, grid, hsv, luminance, noise
from zssbir_cli.demo.pieces import Dice


@dataclass(frozen=True)
class Material:
    """palette: float32 [4, 3], a colour per tone; gloss 0-1; grain: name of the surface pattern;
    strength: contrast of the pattern; scale: its size, 1 = normal."""

    palette: Plane
    gloss: float
    grain: str
    strength: float
    scale: float


def random_material(d: Dice, avoid: float) -> Material:
    """A material whose main colour differs in brightness from `avoid` (the backdrop's luminance, 0-1)."""
    for _ in range(6):
        palette = _palette(d)
        if abs(luminance(palette[0]) - avoid) > 0.16:
            break
    grains = ("plain", "plain", "mottled", "wood", "stripes", "dots", "checks", "brushed", "speckled")
    grain = grains[d.count(0, len(grains) - 1)]
    gloss = (0.06, 0.3, 0.65, 0.9)[d.count(0, 3)]
    return Material(palette, gloss, grain, d(0.35, 1.0), d(0.7, 1.6))


def _palette(d: Dice) -> Plane:
    hue = d(0, 1)
    kind = d.count(0, 5)
    if kind == 0:
        main = hsv(hue, d(0.0, 0.12), d(0.55, 0.95))
    elif kind == 1:
        main = hsv(d(0.04, 0.12), d(0.35, 0.7), d(0.35, 0.75))
    else:
        main = hsv(hue, d(0.45, 0.92), d(0.5, 0.98))
    second = hsv(hue + (0.08, 0.33, 0.5, 0.62)[d.count(0, 3)], d(0.3, 0.85), d(0.4, 0.95))
    dark = hsv(hue + d(-0.1, 0.1), d(0.1, 0.6), d(0.1, 0.3))
    light = hsv(hue + d(-0.2, 0.2), d(0.03, 0.3), d(0.82, 0.96))
    tones = [main, second, dark, light]
    if d.chance(0.2):
        tones = [second, light, dark, main]
    elif d.chance(0.15):
        tones = [light, main, dark, second]
    elif d.chance(0.08):
        tones = [dark, main, light, second]
    return np.stack(tones)


def pattern(material: Material, rng: np.random.Generator, height: int, width: int) -> Plane:
    """The surface pattern as a factor of brightness, float32 [height, width], about 1."""
    d = Dice(rng)
    y, x = grid(height, width)
    angle = d(0, np.pi)
    u = (x * np.cos(angle) + y * np.sin(angle)) / material.scale
    v = (y * np.cos(angle) - x * np.sin(angle)) / material.scale
    return np.asarray(1 + material.strength * _relative(material, rng, u, v), np.float32)


def _relative(material: Material, rng: np.random.Generator, u: Plane, v: Plane) -> Plane:
    """Change of brightness of a full-strength pattern at the turned coordinates u and v."""
    height, width = u.shape
    match material.grain:
        case "mottled":
            return 0.16 * noise(rng, height, width, (5 / material.scale, 5 / material.scale), 3)
        case "wood":
            rings = np.sin(u * 100 + noise(rng, height, width, (2, 2), 2) * 6.3)
            return 0.13 * rings + 0.04 * noise(rng, height, width, (40, 6), 1)
        case "stripes":
            return -0.42 * (np.sin(u * 57) > 0.2)
        case "dots":
            a, b = (u * 11) % 1 - 0.5, (v * 11) % 1 - 0.5
            return 0.45 * ((a * a + b * b) < 0.07)
        case "checks":
            return -0.2 * ((np.sin(u * 50) > 0).astype(np.float32) + (np.sin(v * 50) > 0))
        case "brushed":
            return 0.12 * noise(rng, height, width, (3, height / 2), 1)
        case "speckled":
            return -0.35 * (noise(rng, height, width, (height / 3, width / 3), 1) > 0.62)
        case _:
            return np.zeros((height, width), np.float32)
