"""The demo data set: everyday shapes drawn by the package itself, as photos with exact object masks and
as hand-like sketches. Needs no network and ships no pictures."""

from zssbir_cli.demo.classes import CLASSES
from zssbir_cli.demo.photo import draw_photo
from zssbir_cli.demo.sketch import draw_sketch

__all__ = ["CLASSES", "draw_photo", "draw_sketch"]
