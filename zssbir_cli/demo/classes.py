"""The table of demo classes: name -> the function that draws one random instance."""

from collections.abc import Callable

import numpy as np

from zssbir_cli.demo import shapes_home, shapes_nature, shapes_tools, shapes_travel, shapes_wear
from zssbir_cli.demo.geometry import Dice, Piece, centred
from zssbir_cli.errors import UsageError

_BUILDERS: tuple[Callable[[Dice], list[Piece]], ...] = (
    *(shapes_home.cup, shapes_home.teapot, shapes_home.bottle, shapes_home.wine_glass, shapes_home.chair),
    *(shapes_home.table_lamp, shapes_home.candle, shapes_home.alarm_clock, shapes_home.lightbulb),
    *(shapes_home.envelope, shapes_home.book),
    *(
        shapes_tools.key,
        shapes_tools.scissors,
        shapes_tools.hammer,
        shapes_tools.pencil,
        shapes_tools.umbrella,
    ),
    *(shapes_tools.camera, shapes_tools.anchor, shapes_tools.guitar, shapes_tools.bell, shapes_tools.ladder),
    shapes_tools.magnifier,
    *(shapes_wear.eyeglasses, shapes_wear.hat, shapes_wear.t_shirt, shapes_wear.boot, shapes_wear.crown),
    *(shapes_wear.star, shapes_wear.heart, shapes_wear.ice_cream, shapes_wear.apple, shapes_wear.mushroom),
    *(shapes_nature.tree, shapes_nature.cactus, shapes_nature.flower, shapes_nature.fish),
    *(shapes_nature.butterfly, shapes_nature.duck, shapes_nature.snail, shapes_nature.snowman),
    *(shapes_nature.cat, shapes_nature.leaf),
    *(shapes_travel.house, shapes_travel.windmill, shapes_travel.sailboat, shapes_travel.car),
    *(shapes_travel.bicycle, shapes_travel.airplane, shapes_travel.rocket, shapes_travel.hot_air_balloon),
    *(shapes_travel.tent, shapes_travel.traffic_light),
)

_BY_NAME = {builder.__name__: builder for builder in _BUILDERS}

CLASSES: tuple[str, ...] = tuple(sorted(_BY_NAME))
"""Names of all demo classes, sorted; the position is the class's label in a demo set."""


def draw_instance(name: str, rng: np.random.Generator) -> list[Piece]:
    """One random instance of class `name`: parts in painting order, centred, longest half extent 1.

    Raises UsageError for a name that is not in `CLASSES`.
    """
    if name not in _BY_NAME:
        raise UsageError(f"no demo class {name!r}; the classes are: {', '.join(CLASSES)}")
    return centred(_BY_NAME[name](Dice(rng)))
