"""Learning curves of a run as a PNG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zssbir_cli.errors import UsageError
from zssbir_cli.viz.canvas import save_png

_COLOURS = ("#0b6e99", "#d9480f", "#2b8a3e", "#862e9c", "#5c4b00", "#495057")


def save_curves(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    title: str = "Learning curve",
    levels: Mapping[str, float] | None = None,
) -> Path:
    """Draw the rows of a run's metrics.jsonl: losses over steps, below them what validation measured.

    rows: mappings with `step` and numbers; names that start with `loss` go into the upper panel, those with
    `val/` into the lower one (only panels with data are drawn). levels: named horizontal lines in the lower
    panel, such as the untrained start. Writes a PNG and returns its path.

    Raises UsageError when no row holds a loss or a validation value, DataError when `path` cannot be written.
    """
    losses = _series(rows, "loss")
    measured = {name: s for name, s in _series(rows, "val/").items() if "mAP" in name or "P@" in name}
    panels = [
        p
        for p in ((losses, "loss", {}), (measured, "retrieval, held-out seen classes", levels or {}))
        if p[0]
    ]
    if not panels:
        raise UsageError("no losses or validation values to draw: the run has logged no step yet")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(7.2, 1.0 + 2.7 * len(panels)), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (series, label, marks) in zip(axes, panels, strict=True):
        _draw(axis, series, label, marks)
    axes[0].set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes[-1].set_xlabel("step")
    canvas.draw()  # type: ignore[no-untyped-call]
    width, height = canvas.get_width_height()
    pixels = canvas.buffer_rgba()  # type: ignore[no-untyped-call]
    return save_png(Image.frombuffer("RGBA", (width, height), pixels).convert("RGB"), path)


def _series(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, tuple[list[float], list[float]]]:
    """Steps and values of each name with `prefix`, in order of steps; missing and null values are left out."""
    found: dict[str, tuple[list[float], list[float]]] = {}
    for row in rows:
        for name, value in row.items():
            usable = isinstance(value, int | float) and not isinstance(value, bool)
            if usable and name.startswith(prefix) and "step" in row:
                steps, values = found.setdefault(name, ([], []))
                steps.append(float(row["step"]))
                values.append(float(value))
    return found


def _draw(
    axis: Any, series: Mapping[str, tuple[list[float], list[float]]], label: str, levels: Mapping[str, float]
) -> None:
    for number, (name, (steps, values)) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        few = len(steps) <= 40
        axis.plot(
            steps,
            values,
            color=colour,
            linewidth=1.8,
            marker="o" if few else None,
            markersize=3.5,
            label=name.removeprefix("val/"),
        )
    for number, (name, value) in enumerate(levels.items()):
        style = ("--", ":", "-.")[number % 3]
        axis.axhline(value, color="#868e96", linewidth=1.2, linestyle=style, label=f"{name} ({value:.3f})")
    axis.set_ylabel(label)
    axis.set_ylim(bottom=0)
    axis.grid(True, color="#e9ecef", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=9, loc="best")
