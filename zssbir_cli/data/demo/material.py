"""Colours and surfaces of an object: random per instance, so that they say nothing about its class."""

from dataclasses import dataclass

import numpy as np

from zssbir_cli.data.demo.geometry import Dice
from zssbir_cli.data.demo.paint import Plane, grid, hsv, luminance, noise


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
    light = hsv(hue + d(-0.2, 0.2), d(0.03, 0.3), d(0.85, 1.0))
    tones = [main, second, dark, light]
    if d.chance(0.2):
        tones = [second, light, dark, main]
    elif d.chance(0.15):
        tones = [light, main, dark, second]
    elif d.chance(0.08):
        tones = [dark, main, light, second]
    return np.stack(tones)


def pattern(material: Material, rng: np.random.Generator, height: int, width: int) -> Plane:
    """The surface pattern as a factor of brightness, [height, width], mean about 1."""
    y, x = grid(height, width)
    d = Dice(rng)
    s, cell = material.strength, material.scale
    angle = d(0, np.pi)
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    if material.grain == "mottled":
        return 1 + 0.16 * s * noise(rng, height, width, (5 / cell, 5 / cell), 3)
    if material.grain == "wood":
        warp = noise(rng, height, width, (2, 2), 2)
        return (
            1
            + 0.13 * s * np.sin((u * 26 / cell + warp * 1.6) * 2 * np.pi / 1.6)
            + 0.04 * s * noise(rng, height, width, (40, 6), 1)
        )
    if material.grain == "stripes":
        return 1 - 0.42 * s * (np.sin(u * 2 * np.pi * 9 / cell) > 0.2)
    if material.grain == "dots":
        a, b = (u * 11 / cell) % 1 - 0.5, (v * 11 / cell) % 1 - 0.5
        return 1 + 0.45 * s * ((a * a + b * b) < 0.07)
    if material.grain == "checks":
        return 1 - 0.2 * s * ((np.sin(u * 50 / cell) > 0).astype(np.float32) + (np.sin(v * 50 / cell) > 0))
    if material.grain == "brushed":
        return 1 + 0.12 * s * noise(rng, height, width, (3, height / 2), 1)
    if material.grain == "speckled":
        return 1 - 0.35 * s * (noise(rng, height, width, (height / 3, width / 3), 1) > 0.62)
    return np.ones((height, width), np.float32)
