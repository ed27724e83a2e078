"""The figures of a report: what they show, and that no label of theirs is cut off or breaks the document."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest
from viz_helpers import HOSTILE

from zssbir_cli.viz.drawing import Drawing, label_text, label_width
from zssbir_cli.viz.report_figures import class_bars, confusion_matrix, embedding_map, precision_recall

LONG = [
    "a very long name of a class indeed " * 3,
    "猫のぬいぐるみと犬のぬいぐるみと熊のぬいぐるみ",
    "дом " * 20,
    "W" * 60,
    "x",
]
HANG = 0.36
"""So much of its size the foot of a text lies below its middle."""
NAMES = {"one": ["cup"], "long": LONG, "hostile": HOSTILE, "many": [f"class {i}" for i in range(100)]}


def figures(names: list[str]) -> Iterator[Drawing]:
    """All figures with these names of classes on them."""
    n, rng = len(names), np.random.default_rng(0)
    yield class_bars(names, rng.random(n), np.ones(n), "P@10")
    yield precision_recall(np.linspace(0, 1, 101), np.ones(101), np.ones((n, 101)), 1.0)
    yield confusion_matrix(names, np.eye(n), 100)
    some = names[:20]
    labels = np.arange(len(some)).repeat(4)
    yield embedding_map(rng.random((len(labels), 2)), labels, np.arange(len(labels)) % 4 == 0, some)


def extents(figure: Drawing) -> Iterator[tuple[str, float, float, float, float]]:
    """Each text with its left, right, top and bottom, in a document that must be well formed."""
    for element in ElementTree.fromstring(figure.svg()).iter("{http://www.w3.org/2000/svg}text"):
        text, size = element.text or "", int(element.get("font-size", "0"))
        x, y, width = float(element.get("x", "")), float(element.get("y", "")), label_width(text, size)
        before = {"start": 0.0, "middle": 0.5, "end": 1.0}[element.get("text-anchor", "start")] * width
        if element.get("transform"):  # read from below
            yield text, x - size, x + 0.25 * size, y - (width - before), y + before
        else:
            yield text, x - before, x - before + width, y - size, y + 0.25 * size


@pytest.mark.parametrize("kind", NAMES)
def test_no_label_is_cut_off_whatever_the_names(kind: str) -> None:
    for figure in figures(NAMES[kind]):
        found = list(extents(figure))
        assert found
        for text, left, right, top, bottom in found:
            assert left >= 0 <= top, (figure.width, figure.height, text)
            assert right <= figure.width, text
            assert bottom <= figure.height, text


def test_names_are_texts_and_no_markup() -> None:
    changed = {"a\nb": "a b", "\udcff": "\ufffd", "\x00\ufffe": ""}
    assert [label_text(name, 500, 11) for name in HOSTILE] == [changed.get(name, name) for name in HOSTILE]
    for figure in figures(HOSTILE):
        assert "<script" not in figure.svg()


def test_a_name_is_cut_where_there_is_no_room_and_not_before() -> None:
    assert label_text("hot_air.png", label_width("hot_air.png", 11), 11) == "hot_air.png"
    cut = label_text("W" * 60, 100, 11)
    assert label_width(cut, 11) <= 100 < label_width("W" + cut, 11)
    assert re.fullmatch("W+…W+", cut)
    assert label_width("写真", 10) >= 20


class Shapes:
    """What stands in a figure, in the numbers of its axes where it has some."""

    def __init__(self, figure: Drawing) -> None:
        self.root = ElementTree.fromstring(figure.svg())

    def all(self, tag: str, **style: str) -> list[ElementTree.Element]:
        wanted = {name.replace("_", "-"): value for name, value in style.items()}
        found = self.root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")
        return [e for e in found if wanted.items() <= e.attrib.items()]

    def texts(self, **style: str) -> dict[str, tuple[float, float]]:
        return {
            e.text or "": (float(e.get("x", "")), float(e.get("y", ""))) for e in self.all("text", **style)
        }

    def number(self, place: float, axis: int) -> float:
        """The number at a place across (0) or up (1), from those that stand along the axis."""
        marks = self.texts(text_anchor=("middle", "end")[axis], font_size="12", fill="#5d6778")
        low, high = (marks[mark][axis] - HANG * 12 * axis for mark in ("0", "100"))
        return 100 * (place - low) / (high - low)

    def line(self, **style: str) -> list[tuple[float, float]]:
        return self.lines(**style)[0]

    def lines(self, tag: str = "polyline", **style: str) -> list[list[tuple[float, float]]]:
        """The points of lines, in numbers."""
        pairs = ([p.split(",") for p in e.get("points", "").split()] for e in self.all(tag, **style))
        return [[(self.number(float(x), 0), self.number(float(y), 1)) for x, y in points] for points in pairs]


def starts(path: ElementTree.Element) -> list[tuple[float, float]]:
    """Where the shapes of a path begin."""
    return [(float(x), float(y)) for x, y in re.findall(r"M(\S+) ([\d.]+)", path.get("d", ""))]


def test_bars_and_dots_are_the_values_and_the_best_is_on_top() -> None:
    values, precision = np.array([0.25, 0.75]), np.array([1.0, 0.5])
    shapes = Shapes(class_bars(["low", "high"], values, precision, "P@5"))
    bars = shapes.all("rect", height="15")
    ends = [float(e.get("x", "")) + float(e.get("width", "")) for e in bars]
    assert [shapes.number(x, 0) for x in ends] == pytest.approx([75, 25], abs=0.1)
    assert [shapes.number(float(e.get("x", "")), 0) for e in bars] == pytest.approx([0, 0], abs=0.1)
    tops = shapes.texts()
    assert tops["high"][1] < tops["low"][1]
    assert float(bars[0].get("y", "")) < float(bars[1].get("y", ""))
    dots = starts(shapes.all("path", fill="#e07b20")[0])
    assert [shapes.number(x + 3.2, 0) for x, _ in dots] == pytest.approx([50, 100], abs=0.1)
    mean = shapes.all("polyline", stroke_dasharray="5 4")[0].get("points", "")
    assert shapes.number(float(mean.split(",")[0]), 0) == pytest.approx(50, abs=0.1)


def test_precision_over_recall_has_mean_chance_and_range_of_classes() -> None:
    by_class = np.outer([0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 0.5])
    shapes = Shapes(precision_recall(np.array([0.0, 1.0]), np.array([0.7, 0.3]), by_class, 0.1))
    drawn = {
        "mean": (shapes.line(stroke_width="2.5"), [(0, 70), (100, 30)]),
        "best": (shapes.lines(stroke_dasharray="1 2")[0], [(0, 100), (100, 50)]),
        "worst": (shapes.lines(stroke_dasharray="1 2")[1], [(0, 20), (100, 10)]),
        "middle half": (shapes.lines("polygon")[0], [(0, 40), (100, 20), (100, 40), (0, 80)]),
        "chance": (shapes.line(stroke_dasharray="5 4"), [(0, 10), (100, 10)]),
    }
    for found, wanted in drawn.values():
        assert np.array(found) == pytest.approx(np.array(wanted, float), abs=0.1)
    rows = shapes.texts(text_anchor="end")
    assert rows["100"][1] < rows["0"][1]


def test_the_confusion_matrix_has_sketches_in_rows_and_photos_in_columns() -> None:
    shares = np.array([[0.4, 0.6, 0.0], [0.0, 1.0, 0.0], [0.3, 0.0, 0.7]])
    shapes = Shapes(confusion_matrix(["a", "b", "c"], shares, 10))
    texts = shapes.texts(font_size="10")
    rows, columns = (sorted({at[i] for at in texts.values()}) for i in (1, 0))
    found = {text: (rows.index(y), columns.index(x)) for text, (x, y) in texts.items()}
    assert found == {"40": (0, 0), "60": (0, 1), "100": (1, 1), "30": (2, 0), "70": (2, 2)}
    filled = {at: path.get("fill") for path in shapes.all("path") for at in starts(path)}
    half = (columns[1] - columns[0]) / 2
    corners = {text: (x - half, y - HANG * 10 - half) for text, (x, y) in texts.items()}
    assert np.array(sorted(filled)) == pytest.approx(np.array(sorted(corners.values())), abs=0.1)
    scale = shapes.all("rect", width="12")
    full = min(filled, key=lambda at: np.hypot(*np.subtract(at, corners["100"])))
    assert filled[full] == scale[0].get("fill") == "#08306b"
    assert float(scale[0].get("y", "")) < float(scale[-1].get("y", ""))


def test_the_map_has_a_colour_per_class_dots_for_photos_and_triangles_for_sketches() -> None:
    points = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], float)
    labels, sketch = np.array([0, 0, 1, 1]), np.array([False, True, False, True])
    shapes = Shapes(embedding_map(points, labels, sketch, ["a", "b"]))
    dots = [starts(p)[0] for p in shapes.all("path", fill_opacity="0.55")]
    triangles = [starts(p)[0] for p in shapes.all("path", fill_opacity="0.9")]
    for shape in ("0.55", "0.9"):
        drawn = shapes.all("path", fill_opacity=shape)
        assert [(p.get("fill"), len(starts(p))) for p in drawn] == [("#1f77b4", 1), ("#ff7f0e", 1)]
    assert dots[0][0] == dots[1][0] < triangles[0][0] - 100  # photos lie left
    assert triangles[0][0] == triangles[1][0]
    assert dots[0][1] > dots[1][1]  # and the class b above
    assert triangles[0][1] > triangles[1][1]
