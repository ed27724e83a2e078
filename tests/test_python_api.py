"""The Python API: what `import zssbir_cli` offers, its docstrings' examples, docs/python-api.md and the notebook."""

import doctest
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import zssbir_cli as zssbir
from zssbir_cli.types import Modality
from zssbir_cli.workflows.load import CHUNK

DOCS = Path(__file__).parents[1] / "docs"
STORY = ("prepare", "train", "embed", "load", "search", "evaluate", "evaluate_file")
TINY = """
name: tiny
method: {name: triplet, contrast_weight: 1.0}
data: {root: data/pictures, size: 32, workers: 0}
model: {backbone: test_resnet, weights: none}
train: {epochs: 2, steps_per_epoch: 5, batch_size: 6, precision: fp32}
"""


def drawing(size: int = 60) -> Image.Image:
    sheet = Image.new("L", (size, size), 255)
    ImageDraw.Draw(sheet).ellipse((10, 12, 45, 50), outline=0, width=3)
    return sheet


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_demo: Path) -> Path:
    """What the examples begin with: pictures by class, a few photos, a drawing, a recipe."""
    root = tmp_path_factory.mktemp("api")
    shutil.copytree(tiny_demo.with_name("demo-pictures"), root / "pictures")
    (root / "photos").mkdir()
    for i, photo in enumerate(sorted((root / "pictures" / "photo").rglob("*.jpg"))[:20:4]):
        shutil.copy(photo, root / "photos" / f"{i}.jpg")
    drawing().save(root / "drawing.png")
    (root / "tiny.yaml").write_text(TINY)
    return root


@pytest.fixture(scope="module")
def told(place: Path) -> Path:
    """The place after all examples of the docstrings ran, in the order of the story."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for name in STORY:
            function = getattr(zssbir, name)
            tests = doctest.DocTestFinder(recurse=False).find(function, name, globs={"zssbir": zssbir})
            assert tests[0].examples, f"{name} has no example"
            assert doctest.DocTestRunner(verbose=False).run(tests[0]).failed == 0, name
    return place


def test_the_import_loads_nothing_heavy_and_offers_all_names() -> None:
    code = (
        "import sys, zssbir_cli\n"
        "bad = [m for m in ('torch', 'numpy', 'timm', 'h5py', 'pydantic', 'PIL') if m in sys.modules]\n"
        "assert not bad, bad\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(getattr(zssbir, name) is not None for name in zssbir.__all__)
    assert set(zssbir.__all__) <= set(dir(zssbir))
    with pytest.raises(AttributeError, match="serach"):
        zssbir.serach  # noqa: B018
    assert (Path(zssbir.__file__).parent / "py.typed").exists()


def test_no_room_is_called_like_a_function() -> None:
    """An imported submodule would take the function's place in the package."""
    package = Path(zssbir.__file__).parent
    assert not [n for n in zssbir.__all__ if (package / n).exists() or (package / f"{n}.py").exists()]


@pytest.mark.parametrize("name", STORY)
def test_functions_take_keywords_and_name_their_errors(name: str) -> None:
    function = getattr(zssbir, name)
    parameters = inspect.signature(function).parameters.values()
    assert sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters) <= 2
    assert re.search(r"Errors: \w*Error", function.__doc__)
    assert len(function.__doc__.splitlines()) <= 40


def test_examples_of_the_docstrings_run(told: Path) -> None:
    assert (told / "data" / "pictures" / "manifest.json").exists()
    assert (told / "runs" / "latest").exists()


def test_the_documentation_runs(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text("utf-8"), re.S)
    assert len(blocks) >= 5
    space: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, "python-api.md", "exec"), space)


def test_pictures_of_all_kinds_give_the_same_rows(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told)
    model = zssbir.load(device="cpu")
    photos = sorted(Path("photos").iterdir())
    by_name = model.embed([str(photos[0]), photos[1]])
    assert by_name.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(by_name, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(model.embed("photos")[:2], by_name)
    opened = [Image.open(p).convert("RGB") for p in photos[:2]]
    np.testing.assert_allclose(model.embed(opened), by_name, atol=2e-2)  # another JPEG decoder
    np.testing.assert_array_equal(model.embed([np.asarray(i) for i in opened]), model.embed(opened))
    sketch = model.embed("drawing.png", modality="sketch")
    np.testing.assert_array_equal(model.embed(drawing(), modality="sketch"), sketch)
    np.testing.assert_array_equal(model.embed(np.asarray(drawing()), modality="sketch"), sketch)
    assert not np.array_equal(model.embed("drawing.png"), sketch)


def test_wrong_pictures_are_named(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told)
    model = zssbir.load(device="cpu")
    Path("broken.jpg").write_bytes(b"\xff\xd8\xff no")
    for wrong, words in (
        ([drawing(), Image.new("L", (9, 9), 255)], "sketch 2: blank"),
        ([*[drawing()] * (CHUNK + 1), Image.new("L", (9, 9), 255)], f"sketch {CHUNK + 2}: blank"),
        ("broken.jpg", "broken.jpg"),
        ("nowhere.png", "nowhere.png"),
        ([object()], "sketch 1: give a file, a PIL image"),
        (np.ones((3, 3)), "sketch 1: give a file, a PIL image"),
        ([], "nothing to embed"),
    ):
        with pytest.raises(zssbir.DataError, match=words):
            model.embed(wrong, modality="sketch")  # type: ignore[arg-type]
    with pytest.raises(zssbir.UsageError, match="photo or sketch"):
        model.embed("drawing.png", modality="picture")
    with pytest.raises(zssbir.UsageError, match="1 or more"):
        model.search("drawing.png", "photos", k=0)


def test_a_loaded_model_searches_as_the_function_does(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told)
    model = zssbir.load(device="cpu")
    plain = zssbir.search("drawing.png", photos="photos", k=3, device="cpu").found[0].hits
    gallery = model.open("photos")
    assert model.search("drawing.png", gallery, k=3).found[0].hits == plain
    assert model.search(drawing(), "photos", k=3).found[0].hits == plain
    like = model.search((), gallery, like=Image.open("photos/0.jpg"), k=1).found[0]
    assert like.modality is Modality.PHOTO
    assert like.hits[0].source == "0.jpg"  # what is no file cannot be left out as itself


def test_progress_is_told(told: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(told)
    seen: list[tuple[str, int, int]] = []
    zssbir.train(
        "tiny.yaml", settings=["train.epochs=1"], runs="other", device="cpu",
        progress=lambda *now: seen.append(now),
    )  # fmt: skip
    assert seen[-1] == ("training", 5, 5)
    with pytest.raises(zssbir.UsageError, match="there are mAP@all, mAP@3"):
        zssbir.evaluate(k=[3], report=False, device="cpu").value("mAP@100")
    with pytest.raises(zssbir.UsageError, match="did you mean 'train"):
        zssbir.train("tiny.yaml", settings={"train.epoch": 1})
    with pytest.raises(zssbir.DataError, match="no prepared data set"):
        zssbir.train("tiny.yaml", data="nowhere")
    with pytest.raises(zssbir.UsageError, match="nothing to prepare"):
        zssbir.prepare([])


def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = json.loads((DOCS / "quick-start.ipynb").read_text("utf-8"))
    assert book["nbformat"] == 4
    cells = [c for c in book["cells"] if c["cell_type"] == "code"]
    assert len(cells) >= 5
    assert not any(c["outputs"] or c["execution_count"] for c in cells), "stored outputs go stale"
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "quick-start.ipynb", "exec"), space)
