"""`zssbir export`: the encoder as ONNX equals the original; a run as one file serves as the run, and holds no trap."""

import json
import os
import re
import stat
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from retrieval_helpers import make_run

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.engine.bundle import BEST
from zssbir_cli.engine.runs import find_run, is_outdated
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.evaluation.saved import find_result
from zssbir_cli.inputs.datasets import EvalImages, load_image
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows import export as workflow
from zssbir_cli.workflows.eval import evaluate_run
from zssbir_cli.workflows.export import export
from zssbir_cli.workflows.recipes import choose_recipe
from zssbir_cli.workflows.train import train

onnx = pytest.importorskip("onnxruntime")


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path / "cache"))
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


def embeddings(file: Path, images: torch.Tensor) -> np.ndarray:
    session = onnx.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


def test_onnx_gives_the_same_rows_for_any_batch(run: Path, tiny_demo: Path) -> None:
    done = export(run, out="mine.onnx")
    assert [str(f) for f in done.files] == ["mine.onnx", "mine.json"]
    about = json.loads(Path("mine.json").read_text())
    assert about["files"] == {"sketch": "mine.onnx", "photo": "mine.onnx"}
    assert about["input"]["shape"] == ["batch", 3, 32, 32]
    assert about["sha256"] == RunWeights(run, "best").sha256
    assert about["checked_on"] == "8 photos and sketches of demo"
    assert str(tiny_demo.parent) not in json.dumps(about)  # nothing of this machine
    assert str(run.parent) not in Path("mine.json").read_text().replace(str(tiny_demo), "")
    embedder = Embedder(RunWeights(run), torch.device("cpu"), precision="fp32", workers=0)
    for modality in Modality:
        images = EvalImages(PreparedSet.open(tiny_demo).images(Part.VAL, modality), 32)
        batch = torch.stack([images[i].expand(3, -1, -1) for i in range(13)])
        wanted = embedder.embed_batch(batch, modality).numpy()
        for count in (1, 13):
            np.testing.assert_allclose(
                embeddings(Path("mine.onnx"), batch[:count]), wanted[:count], atol=2e-5
            )


def test_the_example_of_the_page_runs(run: Path, tiny_demo: Path) -> None:
    """docs/export.md, with a photo of the set; its row is that of the run."""
    guide = (Path(__file__).parents[1] / "docs/export.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    export(run, out="mine.onnx")
    photos = PreparedSet.open(tiny_demo).images(Part.VAL, Modality.PHOTO)
    Image.fromarray(load_image(photos, 0).permute(1, 2, 0).numpy()).save("photo.jpg", quality=98)
    space: dict[str, Any] = {}
    exec(compile(block, "export.md", "exec"), space)
    embedder = Embedder(RunWeights(run), torch.device("cpu"), precision="fp32", workers=0)
    wanted = embedder.embed_batch(EvalImages(photos, 32)[0][None], Modality.PHOTO)[0].numpy()
    assert space["row"] @ wanted > 0.99


@pytest.mark.parametrize(
    ("line", "files"),
    [
        ("model: {backbone: test_vit, weights: none, projection: 7}", ["x.onnx"]),
        ("model: {backbone: test_resnet, weights: none, input: contours}", ["x.onnx"]),
        ("method: {name: triplet, centre: true}", ["x.sketch.onnx", "x.photo.onnx"]),
    ],
)
def test_transformers_contours_and_two_modalities(
    line: str, files: list[str], tmp_path: Path, tiny_recipe: Path, run: Path
) -> None:
    key = line.partition(":")[0]
    text = "\n".join(x for x in tiny_recipe.read_text().splitlines() if not x.startswith(f"{key}:"))
    tiny_recipe.write_text(f"{text}\n{line}\n")
    trained = train(str(tiny_recipe), settings=["train.epochs=1"], device="cpu").run
    done = export(trained, out="x.onnx")
    assert [str(f) for f in done.files] == [*files, "x.json"]
    assert done.least_cosine > 0.9999


def test_a_frozen_model_is_exported_too(run: Path, tiny_recipe: Path) -> None:
    done = export(model=str(tiny_recipe), out="start.onnx")
    assert done.pictures == "generated pictures"
    assert json.loads(Path("start.json").read_text())["trained_on"] == {}


def test_a_network_that_differs_is_not_kept(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(workflow._Embedding):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(255 - images.float())

    monkeypatch.setattr(workflow, "_Embedding", Wrong)
    with pytest.raises(CheckpointError, match="nothing was written"):
        export(run, out="mine.onnx")
    assert not list(Path().glob("mine*"))


def test_wrong_words_and_missing_extra(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="one of onnx, run"):
        export(run, format="tflite")
    with pytest.raises(UsageError, match=r"exported as a \.zip file"):
        export(run, format="run", out="x.tar")
    with pytest.raises(UsageError, match="leave out --model"):
        export(format="run", model="clip")
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(workflow, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"\.\[onnx\]"):
        export(run)


def test_a_run_as_one_file_serves_as_the_run(run: Path, tmp_path: Path) -> None:
    direct = evaluate_run(run, k=[5], device="cpu", report=False)
    (bundle,) = export(run, format="run").files
    assert bundle == Path("one.zip")
    names = zipfile.ZipFile(bundle).namelist()
    assert {f"{BEST}/model.safetensors", f"{BEST}/meta.json", "recipe.yaml", "run.json"} <= set(names)
    assert any(n.startswith("eval/zs") for n in names)
    assert not any("state.pt" in n or "embeddings" in n for n in names)
    again = evaluate_run(bundle, k=[5], device="cpu", report=False)
    assert again.value() == direct.value()
    place = find_run(str(bundle)).path
    assert (tmp_path / "cache") in place.parents
    assert find_run(bundle).path == place  # unpacked once
    assert again.result is not None
    assert place in again.result.parents
    with pytest.raises(UsageError, match="no state to continue from"):
        choose_recipe(resume=bundle)
    before = {p: p.read_bytes() for p in place.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="no state to continue from"):
        train(RunWeights(place).recipe, resume=bundle, device="cpu")
    with pytest.raises(CheckpointError, match="last is gone"):  # the unpacked folder has no state either
        train(RunWeights(place).recipe, resume=place, device="cpu")
    assert {p: p.read_bytes() for p in place.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_without_a_best_checkpoint_the_last_one_is_packed(run: Path) -> None:
    (run / "checkpoints" / "best").rename(run / "gone")
    (bundle,) = export(run, format="run").files
    assert RunWeights(find_run(bundle).path, "best").sha256 == RunWeights(run, "last").sha256


def test_another_checkpoint_than_the_best_keeps_its_name_in_a_file(run: Path) -> None:
    """An exported `last` or `epoch-N` lies where the best would: every result still calls it by its name."""
    direct = evaluate_run(run, k=[5], device="cpu", report=False, checkpoint="last")
    (bundle,) = export(run, format="run", checkpoint="last").files
    again = evaluate_run(bundle, k=[5], device="cpu", report=False)
    assert again.result is not None
    assert again.result.name == "zs-last-k5.json"
    assert (again.as_json()["which"], again.value()) == ("last", direct.value())
    assert not is_outdated(
        find_run(bundle).path, direct.as_json() | {"which": "best", "checkpoint": "of the best"}
    )
    assert evaluate_run(bundle, device="cpu", report=False, checkpoint="last").as_json()["which"] == "last"
    assert find_result(str(bundle), "zs") == find_run(bundle).path / "eval" / "zs-last.json"
    (twice,) = export(bundle, format="run", out="twice.zip").files
    assert RunWeights(find_run(twice).path).which == "last"


def test_weights_that_are_not_those_of_their_meta_json_are_not_packed(run: Path) -> None:
    """Damaged, or replaced by training between the two reads."""
    file = run / "checkpoints" / "best" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"one\.zip.*is damaged, or training has just replaced it"):
        export(run, format="run")
    assert not Path("one.zip").exists()


def hostile(name: str, data: bytes = b"x") -> Callable[[zipfile.ZipFile], None]:
    return lambda bundle: bundle.writestr(name, data, zipfile.ZIP_DEFLATED)


def link(bundle: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("eval/link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    bundle.writestr(entry, "/etc/passwd")


@pytest.mark.parametrize(
    "add",
    [
        hostile("../evil.json"),
        hostile("/tmp/evil.json"),
        hostile("eval/../../evil.json"),
        hostile("eval\\..\\evil.json"),
        hostile("eval/C:/evil.json"),
        hostile("checkpoints/best/state.pt"),
        hostile("evil.py"),
        hostile("eval/bomb.json", bytes(200 << 20)),
        hostile("recipe.yaml"),  # a second one
        link,
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_hostile_file_leaves_nothing(
    add: Callable[[zipfile.ZipFile], None], run: Path, tmp_path: Path
) -> None:
    (bundle,) = export(run, format="run").files
    before = {p for p in tmp_path.rglob("*") if "cache" not in p.parts}
    with zipfile.ZipFile(bundle, "a") as opened:
        add(opened)
    with pytest.raises(CheckpointError, match=r"one\.zip: cannot be used as a run"):
        find_run(bundle)
    assert {p for p in tmp_path.rglob("*") if "cache" not in p.parts} == before
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]


def test_damage_is_noticed(run: Path) -> None:
    (bundle,) = export(run, format="run").files
    whole = bundle.read_bytes()
    for at in (0.3, 0.5, 0.99):
        place = int(at * len(whole))
        bundle.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="cannot be used as a run"):
            find_run(bundle)
    bundle.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be used as a run"):
        find_run(bundle)
    packed = whole.index(b"recipe.yaml") + len("recipe.yaml")  # the decoder has an error of its own for this
    bundle.write_bytes(whole[:packed] + b"\xff\xff" + whole[packed + 2 :])
    with pytest.raises(CheckpointError, match="cannot be used as a run"):
        find_run(bundle)
    bundle.write_bytes(b"no zip")
    with pytest.raises(CheckpointError, match="cannot be used as a run"):
        find_run(bundle)


def test_a_long_name_and_what_a_kill_left_in_the_cache(run: Path, tmp_path: Path) -> None:
    (bundle,) = export(run, format="run", out="n" * 240 + ".zip").files
    left, fresh = (tmp_path / "cache" / "runs" / f".{name}.0123abcd.partial" for name in ("old", "new"))
    for folder in (left, fresh):
        (folder / "eval").mkdir(parents=True)
    os.utime(left, (time.time() - 2 * 24 * 3600,) * 2)
    assert RunWeights(find_run(bundle).path, "best").sha256 == RunWeights(run, "best").sha256
    assert (left.exists(), fresh.exists()) == (False, True)
