"""Figures of an evaluation report, in one style, as vector graphics or PNG."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from zssbir_cli import files
from zssbir_cli.arrays import Floats
from zssbir_cli.viz.fonts import drawable, families

INK, SOFT, LINE, BLUE, ORANGE = "#1c2330", "#5d6778", "#dde2ea", "#2b5fb3", "#e07b20"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 9, "text.color": INK, "axes.edgecolor": SOFT, "axes.labelcolor": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": LINE, "grid.linewidth": 0.7, "xtick.color": SOFT, "ytick.color": SOFT, "svg.fonttype": "path",
    "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip
"""`text.parse_math`: a class may be called `$x_{$`."""
LONGEST_NAME = 28
"""Characters of a class name on an axis."""


@contextmanager
def style(names: Sequence[str] = (), **changes: Any) -> Iterator[list[str]]:
    """Matplotlib's settings for a figure with some names on it; gives the names as they can be drawn."""
    shown = [drawable(name) for name in names]
    shown = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1].rstrip() + "…" for n in shown]
    settings: dict[Any, Any] = STYLE | {"font.family": families(shown)} | changes
    with mpl.rc_context(settings):
        yield shown


def class_bars(names: Sequence[str], ap: Floats, precision: Floats, label: str) -> Figure:
    """Mean AP of each class as bars, its `label` (P@k) as dots, best class on top. Shares 0-1, float64 [C]."""
    order = np.argsort(ap)
    with style(names) as shown:
        figure = Figure(figsize=(5.6, max(2.2, 0.22 * len(names) + 0.9)), layout="constrained")
        axes = figure.subplots()
        places = np.arange(len(names))
        axes.barh(places, 100 * ap[order], height=0.68, color=BLUE, alpha=0.85, label="mAP@all (voc)")
        axes.plot(100 * precision[order], places, "o", ms=4, color=ORANGE, label=label)
        axes.axvline(100 * float(ap.mean()), color=INK, lw=1, ls=(0, (4, 3)))
        axes.set_yticks(places, [shown[i] for i in order], fontsize=8)
        axes.set_ylim(-0.7, len(names) - 0.3)
        axes.set_xlim(0, 100)
        axes.set_xlabel("%")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=2, fontsize=8)
    return figure


def precision_recall(recall: Floats, mean: Floats, by_class: Floats, chance: float) -> Figure:
    """Interpolated precision over recall: mean of the queries, range of the classes' means [C, L], and chance."""
    with style():
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        axes = figure.subplots()
        low, high = np.quantile(by_class, [0.25, 0.75], axis=0)
        axes.fill_between(
            100 * recall, 100 * low, 100 * high, color=BLUE, alpha=0.15, lw=0, label="middle half of classes"
        )
        axes.plot(
            100 * recall, 100 * by_class.max(axis=0), color=BLUE, lw=0.7, ls=":", label="best, worst class"
        )
        axes.plot(100 * recall, 100 * by_class.min(axis=0), color=BLUE, lw=0.7, ls=":")
        axes.plot(100 * recall, 100 * mean, color=BLUE, lw=2, label="mean over queries")
        axes.axhline(100 * chance, color=SOFT, lw=1, ls=(0, (4, 3)), label=f"chance, {100 * chance:.1f} %")
        axes.set(xlim=(0, 100), ylim=(0, 102), xlabel="recall %", ylabel="interpolated precision %")
        axes.legend(fontsize=8)
    return figure


def confusion_matrix(names: Sequence[str], shares: Floats, k: int) -> Figure:
    """Which classes of photos (columns) the sketches of each class (rows) find first; shares [C, C], 0-1."""
    count = len(names)
    side = max(3.2, 0.17 * count + 1.8)
    with style(names, **{"axes.grid": False}) as shown:
        figure = Figure(figsize=(side + 0.7, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
        font = 8 if count <= 30 else 6
        axes.set_xticks(range(count), shown, rotation=90, fontsize=font)
        axes.set_yticks(range(count), shown, fontsize=font)
        axes.set(xlabel="class of the photos found", ylabel="class of the sketch")
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.tick_params(length=0)
        if count <= 15:
            for i in range(count):
                for j in range(count):
                    if shares[i, j] >= 0.02:
                        color = "white" if shares[i, j] > 0.55 else INK
                        axes.text(
                            j,
                            i,
                            f"{100 * shares[i, j]:.0f}",
                            ha="center",
                            va="center",
                            fontsize=7,
                            color=color,
                        )
        bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
        bar.set_label(f"% of the first {k} photos", fontsize=8)
        bar.outline.set_visible(False)
    return figure


def embedding_map(
    points: Floats, labels: npt.NDArray[np.integer], sketch: npt.NDArray[np.bool_], names: Sequence[str]
) -> Figure:
    """A map [N, 2] of sketches (triangles) and photos (dots), a colour per class; labels index `names`."""
    palette = mpl.colormaps["tab10" if len(names) <= 10 else "tab20"]
    colors = [palette(i) for i in range(len(names))]
    with style(names, **{"axes.grid": False}) as shown:
        figure = Figure(figsize=(6.0, 4.6), layout="constrained")
        axes = figure.subplots()
        for c, name in enumerate(shown):
            for kind, marker, size in ((False, "o", 16), (True, "^", 34)):
                chosen = (labels == c) & (sketch == kind)
                edge: dict[str, Any] = (
                    {"edgecolors": "white", "linewidths": 0.4} if kind else {"linewidths": 0}
                )
                axes.scatter(points[chosen, 0], points[chosen, 1], s=size, marker=marker, color=colors[c], alpha=0.9 if kind else 0.55,
                             label=name if not kind else None, **edge)  # fmt: skip
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set_color(LINE)
        axes.spines[["top", "right"]].set_visible(True)
        axes.spines[["top", "right"]].set_color(LINE)
        figure.legend(loc="outside right upper", fontsize=8, markerscale=1.6, handletextpad=0.2)
    return figure


def lay_out(figure: Figure) -> None:
    """Settle where everything in a figure is, once, before it is written in several forms."""
    with mpl.rc_context(STYLE):
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def to_svg(figure: Figure, name: str) -> str:
    """A figure as an SVG document; `name` keeps its ids apart from those of other figures on a page."""
    out = io.StringIO()
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight", pad_inches=0.05)
    return out.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure at 200 dpi, whole or not at all. Raises OSError."""
    with mpl.rc_context(STYLE), files.replacing(path) as partial:
        figure.savefig(
            partial, format="png", dpi=200, facecolor="white", bbox_inches="tight", pad_inches=0.05
        )
