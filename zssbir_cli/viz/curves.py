"""Learning curves of a run as a PNG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zssbir_cli.errors import UsageError
from zssbir_cli.viz.canvas import save_image
from zssbir_cli.viz.drawing import INK, RULE, SOFT

COLOURS = ("#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#a07800", "#c2255c", "#495057", "#0ca678")
LOOK: dict[Any, Any] = {
    "font.size": 9, "text.color": INK, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True, "grid.color": RULE, "grid.linewidth": 0.7,
    "xtick.color": SOFT, "ytick.color": SOFT, "legend.frameon": False, "text.parse_math": False,
}  # fmt: skip
"""Matplotlib's settings. `text.parse_math`: a run may be called `$x_{$`."""
STYLES = ("-", "--", ":", "-.")
"""Colours, then the same colours in other strokes: 32 lines that differ."""
SAME = 1e-9
FLAT = 1e-6


@dataclass(frozen=True)
class Level:
    """A horizontal line among the values of one measure, such as the untrained start or chance."""

    name: str
    measure: str
    value: float


@dataclass
class _Line:
    names: list[str]
    steps: list[float]
    values: list[float]

    def coincides(self, other: "_Line") -> bool:
        return self.steps == other.steps and all(
            abs(a - b) <= SAME * max(1.0, abs(a)) for a, b in zip(self.values, other.values, strict=True)
        )


def save_curves(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Learning curve",
    levels: Sequence[Level] = (),
) -> Path:
    """Draw the rows of a run's metrics.jsonl: losses over steps, below them what validation measured.

    rows: mappings with `step` and numbers; names that start with `loss` go into the upper panel, those with
    `val/` into the lower one (only panels with data are drawn). Lines that coincide are one line with all their
    names; a measure that never changes says nothing and is left out while others change. levels: horizontal lines
    in the lower panel, each named with its measure. Writes a PNG and returns its path.

    Raises UsageError when no row holds a loss or a validation value, DataError when `path` cannot be written.
    """
    losses = _lines(rows, "loss")
    measured = _telling([x for x in _lines(rows, "val/") if "mAP" in x.names[0] or "P@" in x.names[0]])
    panels = [
        p for p in ((losses, "loss", ()), (measured, "retrieval on validation classes", levels)) if p[0]
    ]
    if not panels:
        raise UsageError("no losses or validation values to draw: the run has logged no step yet")
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    from zssbir_cli.viz.fonts import drawable, families

    title = drawable(title)
    with rc_context(LOOK | {"font.family": families([title])}):
        figure = Figure(figsize=(9.2, 1.0 + 2.7 * len(panels)), dpi=110, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, (lines, label, marks) in zip(axes, panels, strict=True):
            _draw(axis, lines, label, marks)
        axes[0].set_title(title, loc="left", fontsize=13, fontweight="bold")
        axes[-1].set_xlabel("step")
        canvas.draw()  # type: ignore[no-untyped-call]
        width, height = canvas.get_width_height()
        pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return save_image(Image.frombuffer("RGBA", (width, height), pixels).convert("RGB"), path)


def _lines(rows: Sequence[Mapping[str, Any]], prefix: str) -> list[_Line]:
    """A line for each name with `prefix`, those that coincide as one; missing and null values are left out."""
    found: dict[str, _Line] = {}
    for row in rows:
        for name, value in row.items():
            usable = isinstance(value, int | float) and not isinstance(value, bool)
            if usable and name.startswith(prefix) and "step" in row:
                line = found.setdefault(name, _Line([name.removeprefix("val/")], [], []))
                line.steps.append(float(row["step"]))
                line.values.append(float(value))
    different: list[_Line] = []
    for line in found.values():
        same = next((other for other in different if other.coincides(line)), None)
        if same is None:
            different.append(line)
        else:
            same.names += line.names
    return different


def _telling(lines: list[_Line]) -> list[_Line]:
    """Without constant lines, such as P@100 where every class has fewer photos, unless all are constant."""
    changing = [x for x in lines if max(x.values) - min(x.values) > FLAT]
    return changing or lines


def _draw(axis: Any, lines: Sequence[_Line], label: str, levels: Sequence[Level]) -> None:
    for number, line in enumerate(lines):
        few = len(line.steps) <= 40
        axis.plot(
            line.steps,
            line.values,
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number // len(COLOURS) % len(STYLES)],
            linewidth=1.8,
            marker="o" if few else None,
            markersize=3.5,
            label=" = ".join(line.names),
        )
    for number, level in enumerate(levels):
        stroke = ("--", ":", "-.")[number % 3]
        name = f"{level.name}: {level.measure} {level.value:.3f}"
        axis.axhline(level.value, color="#868e96", linewidth=1.2, linestyle=stroke, label=name)
    axis.set_ylabel(label)
    top = max([*(v for line in lines for v in line.values), *(level.value for level in levels)])
    axis.set_ylim(0, 1.05 * top if top > 0 else None)
    axis.legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
