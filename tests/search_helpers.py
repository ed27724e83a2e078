"""A drawing and photos to search."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw


def draw(path: Path, fill: int = 0) -> Path:
    """An ellipse on white; `fill`: the colour of its line."""
    image = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(image).ellipse((10, 15, 50, 45), outline=fill, width=3)
    image.save(path)
    return path


def six_photos(folder: Path) -> Path:
    """A folder of the photos 0.jpg to 5.jpg."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    return folder
