"""The demo data set: everyday shapes drawn by the package itself, as photos with exact object masks and
as hand-like sketches. Needs no network and ships no pictures."""

from zssbir_cli.data.demo.classes import CLASSES
from zssbir_cli.data.demo.photo import draw_photo
from zssbir_cli.data.demo.sketch import draw_sketch

__all__ = ["CLASSES", "draw_photo", "draw_sketch"]
