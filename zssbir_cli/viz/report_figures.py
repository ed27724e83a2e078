"""Figures of an evaluation report. Shares are 0-1, shown in percent."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Floats
from zssbir_cli.viz.drawing import (
    BLUE,
    DASHES,
    INK,
    ORANGE,
    PAPER,
    RULE,
    SIZE,
    SMALL,
    SOFT,
    Drawing,
    label_text,
    widest,
)
from zssbir_cli.viz.plot import KEY, ROW, LegendEntry, Plot

LONGEST_NAME = 190
"""Pixels that the name of a class may take."""
MARGIN = 10
_BAR, _BAND = "#4b75bd", "#dfe7f4"
_BLUES = np.array([[247, 251, 255], [222, 235, 247], [198, 219, 239], [158, 202, 225], [107, 174, 214], [66, 146, 198],
                   [33, 113, 181], [8, 81, 156], [8, 48, 107]])  # fmt: skip
_PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22", "#17becf")  # fmt: skip
_PALE = ("#aec7e8", "#ffbb78", "#98df8a", "#ff9896", "#c5b0d5", "#c49c94", "#f7b6d2", "#c7c7c7", "#dbdb8d", "#9edae5")  # fmt: skip
"""Ten colours, and ten more where there are more classes."""


def class_bars(names: Sequence[str], ap: Floats, precision: Floats, label: str) -> Drawing:
    """Mean AP of each class as bars, its `label` (P@k) as dots, best class on top. float64 [C]."""
    order = np.argsort(-ap, kind="stable")
    shown = [label_text(names[i], LONGEST_NAME, SMALL) for i in order]
    left, top, row = MARGIN + widest(shown, SMALL) + 7, 34, 22
    width = max(260, 560 - left - 20)
    drawing = Drawing(left + width + 20, top + row * len(names) + 44)
    plot = Plot(drawing, left, top, width, row * len(names))
    plot.columns("%")
    middles = [top + row * (i + 0.5) for i in range(len(names))]
    for name, y, value in zip(shown, middles, 100 * ap[order], strict=True):
        drawing.text(left - 7, y, name, SMALL, SOFT, anchor="end")
        drawing.box(left, y - 7.5, plot.x(value) - left, 15, _BAR)
    drawing.dots([(plot.x(100 * p), y) for p, y in zip(precision[order], middles, strict=True)], 3.2, ORANGE)
    mean = plot.x(100 * float(ap.mean()))
    drawing.line([(mean, top), (mean, top + plot.height)], INK, stroke_dasharray=DASHES)
    plot.stem()
    x = drawing.width - MARGIN
    for key in (LegendEntry("area", _BAR, "mAP@all (voc)"), LegendEntry("dot", ORANGE, label)):
        x -= key.room
        key.draw(drawing, x, 16)
        x -= 18
    return drawing


def precision_recall(recall: Floats, mean: Floats, by_class: Floats, chance: float) -> Drawing:
    """Interpolated precision over recall [L]: mean of the queries, range of the classes' means [C, L], and chance."""
    drawing = Drawing(480, 400)
    plot = Plot(drawing, 62, 52, 400, 300, up=(0, 102))
    at, low, high = 100 * recall, *(100 * np.quantile(by_class, [0.25, 0.75], axis=0))
    band = [*zip(at, low, strict=True), *zip(at[::-1], high[::-1], strict=True)]
    drawing.area([(plot.x(x), plot.y(y)) for x, y in band], _BAND)
    plot.columns("recall %")
    plot.rows("interpolated precision %")
    for edge in (by_class.max(axis=0), by_class.min(axis=0)):
        plot.curve(at, 100 * edge, BLUE, 1, stroke_dasharray="1 2")
    plot.curve(at, 100 * mean, BLUE, 2.5)
    plot.level(100 * chance)
    keys = (
        LegendEntry("line", BLUE, "mean over queries", 2.5),
        LegendEntry("area", _BAND, "middle half of classes"),
        LegendEntry("line", SOFT, f"chance, {100 * chance:.1f} %", 1, DASHES),
        LegendEntry("line", BLUE, "best, worst class", 1, "1 2"),
    )
    for i, key in enumerate(keys):
        key.draw(drawing, plot.left + 200 * (i % 2), 16 + ROW * (i // 2))
    return drawing


def confusion_matrix(names: Sequence[str], shares: Floats, k: int) -> Drawing:
    """Which classes of photos (columns) the sketches of each class (rows) find first; shares [C, C]."""
    count, size = len(names), SMALL if len(names) <= 30 else 9
    shown = [label_text(name, LONGEST_NAME, size) for name in names]
    title = f"% of the first {k} photos"
    cell = max(17, round(max(180, widest([title], SMALL)) / count))
    side, room = cell * count, round(widest(shown, size)) + 6
    left, top = MARGIN + 18 + room, MARGIN
    drawing = Drawing(left + side + 90, top + side + room + 18 + MARGIN)
    drawing.box(left, top, side, side, _blue(0))
    levels = np.rint(100 * shares).astype(int)
    for level in np.unique(levels[levels > 0]).tolist():
        cells = (
            f"M{left + cell * j} {top + cell * i}h{cell}v{cell}h-{cell}z"
            for i, j in np.argwhere(levels == level)
        )
        drawing.path("".join(cells), fill=_blue(level), shape_rendering="crispEdges")
    for i, name in enumerate(shown):
        middle = cell * (i + 0.5)
        drawing.text(left - 6, top + middle, name, size, SOFT, anchor="end")
        drawing.text(left + middle, top + side + 6, name, size, SOFT, anchor="end", turned=True)
    if count <= 15:
        for i, j in np.argwhere(shares >= 0.02):
            colour = PAPER if shares[i, j] > 0.55 else INK
            at = left + cell * (j + 0.5), top + cell * (i + 0.5)
            drawing.text(*at, f"{100 * shares[i, j]:.0f}", 10, colour, anchor="middle")
    drawing.text(MARGIN + 6, top + side / 2, "class of the sketch", SIZE, anchor="middle", turned=True)
    drawing.text(
        left + side / 2, drawing.height - MARGIN - 6, "class of the photos found", SIZE, anchor="middle"
    )
    _scale(drawing, left + side + 14, top, side, title)
    return drawing


def embedding_map(
    points: Floats, labels: npt.NDArray[np.integer], sketch: npt.NDArray[np.bool_], names: Sequence[str]
) -> Drawing:
    """A map [N, 2] of sketches (triangles) and photos (dots), a colour per class; labels index `names`."""
    shown = [label_text(name, LONGEST_NAME, SMALL) for name in names]
    colours = (
        _PALETTE
        if len(names) <= len(_PALETTE)
        else [c for both in zip(_PALETTE, _PALE, strict=True) for c in both]
    )
    across, down = 500, max(420, ROW * len(names))
    drawing = Drawing(MARGIN + across + 12 + KEY + widest(shown, SMALL) + MARGIN, down + 2 * MARGIN)
    drawing.box(MARGIN, MARGIN, across, down, PAPER, stroke=RULE)
    (x0, y0), (x1, y1) = points.min(axis=0), points.max(axis=0)
    plot = Plot(drawing, MARGIN + 20, MARGIN + 20, across - 40, down - 40, (x0, max(x1, x0 + 1e-9)), (y0, max(y1, y0 + 1e-9)))  # fmt: skip
    placed = np.array([(plot.x(x), plot.y(y)) for x, y in points.tolist()]).reshape(-1, 2)
    chosen = [(i, colours[i % len(colours)]) for i in range(len(names))]
    for i, colour in chosen:
        drawing.dots(placed[(labels == i) & ~sketch].tolist(), 3, colour, fill_opacity=0.55)
    for i, colour in chosen:
        corners = (f"M{x:.1f} {y - 4.6:.1f}l4.3 7.7h-8.6z" for x, y in placed[(labels == i) & sketch])
        drawing.path("".join(corners), fill=colour, fill_opacity=0.9, stroke=PAPER, stroke_width=0.5)
    for i, colour in chosen:
        LegendEntry("dot", colour, shown[i]).draw(drawing, MARGIN + across + 12, MARGIN + ROW * (i + 0.5))
    return drawing


def _blue(level: float) -> str:
    """The colour of a share in percent, white to dark blue."""
    red, green, blue = (np.interp(level / 100 * 8, range(9), channel) for channel in _BLUES.T)
    return f"#{round(red):02x}{round(green):02x}{round(blue):02x}"


def _scale(drawing: Drawing, x: float, top: float, height: float, title: str) -> None:
    """What the blues mean: 100 % on top, down to 0."""
    for step in range(100, -1, -2):  # each down to the end, so that no seams show
        y = top + height * (1 - (step + 1) / 101)
        drawing.box(x, y, 12, top + height - y, _blue(step), shape_rendering="crispEdges")
    for value in range(0, 101, 20):
        drawing.text(x + 18, top + height * (1 - value / 100), str(value), SMALL, SOFT)
    drawing.text(x + 62, top + height / 2, title, SMALL, anchor="middle", turned=True)
