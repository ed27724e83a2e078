"""What preparing a plan will take, told before it begins: a few images are cleaned to see."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from zssbir_cli.errors import DataError
from zssbir_cli.names import counted
from zssbir_cli.preparation.clean import Cleaned
from zssbir_cli.preparation.masks import Mask
from zssbir_cli.preparation.plan import PreparePlan
from zssbir_cli.preparation.reading import available_cores, read_item
from zssbir_cli.progress import rough_size, rough_time

SAMPLE = 16
"""Images that are cleaned; the first one warms up."""
OVERHEAD = 1e-4
"""Seconds an image for what is not done on all cores."""


@dataclass(frozen=True)
class Forecast:
    """Images, bytes they will take, and seconds."""

    images: int
    size: float
    seconds: float

    def __str__(self) -> str:
        size, time_ = rough_size(self.size), rough_time(self.seconds)
        return f"preparing {counted(self.images, 'image')}: about {size}, {time_}"


def foresee(
    plan: PreparePlan, workers: int, work: Callable[[int, bytes | DataError], tuple[Cleaned, Mask]]
) -> Forecast:
    """Size and time of a set, from the sizes of its files and from what `work` makes of a few of them."""
    items, total = plan.items, float(sum(plan.items.size))
    if not len(items):
        return Forecast(0, 0.0, 0.0)
    step = max(1, len(items) // SAMPLE)
    given, stored, seconds = 0, 0, list[float]()
    for item in range(0, len(items), step):
        began = time.perf_counter()
        cleaned, mask = work(item, read_item(plan, item))
        seconds.append(time.perf_counter() - began)
        given += items.size[item]
        stored += len(cleaned.data or b"") + len(mask.data or b"")
    each = sum(seconds[1:]) / max(1, len(seconds) - 1)
    cores = workers or available_cores()
    return Forecast(len(items), total * stored / max(1, given), len(items) * (each / cores + OVERHEAD))
