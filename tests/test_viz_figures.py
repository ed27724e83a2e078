"""The figures of a report: what they show, and that no label of theirs is cut off or breaks the document."""

import re
from collections.abc import Iterator
from xml.etree import ElementTree

import numpy as np
import pytest

from zssbir_cli.viz.drawing import Drawing, label_text, label_width
from zssbir_cli.viz.report_figures import class_bars, confusion_matrix, embedding_map, precision_recall

HOSTILE = [
    "$x_{$",
    "<script>alert(1)</script>",
    "a & b",
    "写真",
    "Bär",
    "\u202eabc",
    "a\nb",
    "\udcff",
    "",
    "\x00\ufffe",
]
LONG = [
    "a very long name of a class indeed " * 3,
    "猫のぬいぐるみと犬のぬいぐるみと熊のぬいぐるみ",
    "дом " * 20,
    "W" * 60,
    "x",
]
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
    shown = [label_text(name, 500, 11) for name in HOSTILE]
    assert shown == [
        "$x_{$",
        "<script>alert(1)</script>",
        "a & b",
        "写真",
        "Bär",
        "\u202eabc",
        "a b",
        "\ufffd",
        "",
        "",
    ]
    for figure in figures(HOSTILE):
        assert "<script" not in figure.svg()


def test_a_name_is_cut_where_there_is_no_room_and_not_before() -> None:
    assert label_text("hot_air.png", label_width("hot_air.png", 11), 11) == "hot_air.png"
    cut = label_text("W" * 60, 100, 11)
    assert label_width(cut, 11) <= 100 < label_width("W" + cut, 11)
    assert re.fullmatch("W+…W+", cut)
    assert label_width("写真", 10) >= 20


def test_bars_are_as_long_as_values_and_the_best_is_on_top() -> None:
    root = ElementTree.fromstring(
        class_bars(["low", "high"], np.array([0.25, 0.75]), np.zeros(2), "P@5").svg()
    )
    bars = [e for e in root.iter() if e.tag.endswith("rect") and e.get("height") == "15"]
    widths = [float(e.get("width", "")) for e in bars]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.1)
    tops = {e.text: float(e.get("y", "")) for e in root.iter() if e.tag.endswith("text")}
    assert tops["high"] < tops["low"]
    assert float(bars[0].get("y", "")) < float(bars[1].get("y", ""))


def test_the_confusion_matrix_has_sketches_in_rows_and_photos_in_columns() -> None:
    root = ElementTree.fromstring(confusion_matrix(["a", "b"], np.array([[0.0, 1.0], [0.25, 0.75]]), 4).svg())
    texts = [e for e in root.iter() if e.tag.endswith("text")]
    where = {
        e.text: (float(e.get("x", "")), float(e.get("y", ""))) for e in texts if e.get("font-size") == "10"
    }
    assert where.keys() == {"100", "25", "75"}
    assert where["100"][1] < where["25"][1] == where["75"][1]
    assert where["25"][0] < where["75"][0] == where["100"][0]
    fills = {e.get("fill") for e in root.iter() if e.tag.endswith("path")}
    assert "#08306b" in fills  # 100 %
