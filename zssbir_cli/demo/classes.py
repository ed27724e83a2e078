"""The table of demo classes: name -> the function that draws one random instance."""

from collections.abc import Callable, Iterator

import numpy as np

from zssbir_cli.demo import shapes_home, shapes_nature, shapes_tools, shapes_travel, shapes_wear
from zssbir_cli.demo.pieces import Dice, Piece, centred
from zssbir_cli.errors import UsageError
from zssbir_cli.names import listed, suggestion

Builder = Callable[[Dice], Iterator[Piece]]
_BY_NAME: dict[str, Builder] = {
    name: thing
    for module in (shapes_home, shapes_nature, shapes_tools, shapes_travel, shapes_wear)
    for name, thing in vars(module).items()
    if getattr(thing, "__module__", "") == module.__name__
}
"""Each function of these modules draws a class."""

CLASSES: tuple[str, ...] = tuple(sorted(_BY_NAME))
"""Names of all demo classes, sorted; the position is the class's label in a demo set."""


def draw_instance(name: str, rng: np.random.Generator) -> list[Piece]:
    """One random instance of class `name`: parts in painting order, centred, longest half extent 1.

    Raises UsageError for a name that is not in `CLASSES`.
    """
    if name not in _BY_NAME:
        raise UsageError(
            f"no demo class {name!r}{suggestion(name, CLASSES)}; the demo draws {len(CLASSES)} things: {listed(CLASSES)}"
        )
    return centred(list(_BY_NAME[name](Dice(rng))))
