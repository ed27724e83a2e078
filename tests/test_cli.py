"""The command line from end to end: exact files, exit codes, one-line errors, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from zssbir_cli.__main__ import main

RECIPE = """
name: tiny
method: {name: triplet, contrast_weight: 1.0}
data: {root: data/shapes, size: 32, workers: 0}
model: {backbone: test_resnet, weights: none}
optim: {lr: 1e-3}
train: {epochs: 2, steps_per_epoch: 3, batch_size: 6, precision: fp32}
"""
KINDS = ("circle", "square", "cross", "bar", "ring", "dot", "wedge", "frame")


def run(monkeypatch: pytest.MonkeyPatch, *line: str) -> int:
    """Run `zssbir LINE` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["zssbir", *line])
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
    return 0


def files(root: Path) -> set[str]:
    """Files below `root`; locks stay where they are and hold nothing."""
    found = (p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    return {str(p.relative_to(root)) for p in found if p.name != ".lock"}


def draw(kind: str, sketch: bool, rng: np.random.Generator) -> Image.Image:
    ground = (255, 255, 255) if sketch else tuple(int(v) for v in rng.integers(0, 120, 3))
    ink = (0, 0, 0) if sketch else tuple(int(v) for v in rng.integers(140, 256, 3))
    image = Image.new("RGB", (48, 48), ground)
    pen, a, b = ImageDraw.Draw(image), int(rng.integers(4, 10)), int(rng.integers(36, 44))
    shapes = {
        "circle": lambda: pen.ellipse((a, a, b, b), outline=ink, width=3),
        "square": lambda: pen.rectangle((a, a, b, b), outline=ink, width=3),
        "cross": lambda: (pen.line((a, a, b, b), ink, 3), pen.line((a, b, b, a), ink, 3)),
        "bar": lambda: pen.rectangle((a, 20, b, 28), fill=ink),
        "ring": lambda: (pen.ellipse((a, a, b, b), outline=ink, width=2), pen.ellipse((16, 16, 30, 30), outline=ink, width=2)),
        "dot": lambda: pen.ellipse((18, 18, 30, 30), fill=ink),
        "wedge": lambda: pen.polygon([(a, b), (24, a), (b, b)], outline=ink),
        "frame": lambda: (pen.rectangle((a, a, b, b), outline=ink, width=2), pen.rectangle((a + 8, a + 8, b - 8, b - 8), outline=ink)),
    }  # fmt: skip
    shapes[kind]()
    return image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own folder: 8 classes, 5 sketches and 6 photos each, and one broken file."""
    root, rng = tmp_path_factory.mktemp("mine") / "shapes", np.random.default_rng(0)
    for kind in KINDS:
        for modality, count, suffix in (("sketch", 5, "png"), ("photo", 6, "jpg")):
            folder = root / modality / kind
            folder.mkdir(parents=True)
            for i in range(count):
                draw(kind, modality == "sketch", rng).save(folder / f"{i}.{suffix}")
    (root / "photo" / "dot" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    return root


@pytest.fixture(scope="module")
def trained(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder after `prepare` and `train`."""
    work = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(work)
        line = ("prepare", str(pictures), "--unseen", "3", "--val-classes", "2", "--workers", "0")
        assert run(patch, *line) == 0
        plain = {f for f in files(work) if not f.endswith(".h5")}
        assert plain == {f"data/shapes/{name}" for name in ("manifest.json", "report.txt")}
        (work / "tiny.yaml").write_text(RECIPE)
        assert run(patch, "train", "--recipe", "tiny.yaml") == 0
    return work


def latest(work: Path) -> Path:
    return (work / "runs" / "latest").resolve()


def test_prepare_leaves_the_parts_and_names_the_broken_file(trained: Path) -> None:
    root = trained / "data" / "shapes"
    assert files(root) == {"manifest.json", "report.txt"} | {
        f"{part}-{kind}-00000.h5" for part in ("train", "val", "test") for kind in ("sketch", "photo")
    }
    manifest = json.loads((root / "manifest.json").read_text())
    roles = [c["role"] for c in manifest["classes"]]
    assert (roles.count("seen"), roles.count("val"), roles.count("unseen")) == (3, 2, 3)
    assert "broken.jpg" in (root / "report.txt").read_text()


def test_train_leaves_a_complete_run(trained: Path) -> None:
    run_files = files(latest(trained))
    kept = {f for f in run_files if not f.startswith(("eval/", "embeddings/", "masks/"))}
    state = {
        f"checkpoints/{c}/{f}"
        for c in ("last", "last.previous")
        for f in ("model.safetensors", "state.pt", "meta.json")
    }
    best = {"checkpoints/best/model.safetensors", "checkpoints/best/meta.json"}
    assert kept == {"recipe.yaml", "run.json", "metrics.jsonl", "curves.png"} | state | best
    rows = [json.loads(line) for line in (latest(trained) / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows if "val/mAP@all" in r] == [3, 6]


def test_eval_split_zs_alone_takes_the_latest_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run(monkeypatch, "eval", "--split", "zs") == 0
    out = capsys.readouterr().out
    for word in ("mAP@all", "voc", "plain", "hits", "15 queries", "unseen"):
        assert word in out, out
    assert "gallery of 17" in out or "gallery of 18" in out
    assert {"eval/zs.json"} <= files(latest(trained))


def test_json_output_is_only_json(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run(monkeypatch, "eval", "--split", "zs", "--json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_mask_viz_of_real_photos_without_a_network_says_what_to_do(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    assert run(monkeypatch, "mask-viz") == 4
    error = capsys.readouterr().err
    assert "without a network" in error
    assert all(words in error for words in ("openai", "--vxl-weights FILE", "--vxl offline"))
    assert not (latest(trained) / "masks").exists()
    Image.new("RGB", (64, 64), "orange").save("lion.jpg")
    assert run(monkeypatch, "mask-viz", "--photos", "lion.jpg", "--text", "lion", "--vxl", "offline") == 2
    error = capsys.readouterr().err
    assert all(words in error for words in ("'lion'", "airplane", "--vxl-weights FILE"))
    assert "did you mean" not in error  # no word that it knows is near
    Path("lion.jpg").unlink()


def test_mask_viz_alone_in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, "mask-viz") == 0
    assert files(tmp_path) == {"mask-viz/masks.png", "mask-viz/masks.html"}


def test_the_same_seed_gives_the_same_run(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    first = latest(trained)
    assert run(monkeypatch, "train", "--recipe", str(first / "recipe.yaml"), "--runs", "again") == 0
    said, made = capsys.readouterr(), Path("again") / (trained / "again" / "latest").resolve().name
    assert said.out == f"run: {made}\n"
    assert said.err.splitlines()[-1] == f"next: zssbir eval --split zs --run {made}"
    one, two = (f / "checkpoints/last/model.safetensors" for f in (first, trained / "again" / "latest"))
    assert one.read_bytes() == two.read_bytes()


def test_check_writes_nothing(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(trained)
    before = files(trained)
    assert run(monkeypatch, "train", "--recipe", "tiny.yaml", "--check") == 0
    assert (
        "ready to train 6 steps in fp32 on cpu: 15 sketches and 18 photos"
        in capsys.readouterr().out.replace("17 photos", "18 photos")
    )
    assert files(trained) == before


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["train"], 2, ["--recipe", "zssbir recipes"]),
        (["train", "--recipe", "nonsense"], 2, ["nonsense", "zssbir recipes"]),
        (["train", "--recipe", "puxim.yaml"], 3, ["data/sketchy", "zssbir prepare sketchy"]),
        (["train", "--recipe", "ama.yaml"], 3, ["data/sketchy", "zssbir prepare sketchy"]),
        (["train", "--recipe", "demo", "--set", "optim.lr=fast"], 2, ["--set", "optim.lr", "fast"]),
        (["train", "--recipe", "demo", "--device", "tpu"], 2, ["tpu", "auto, cpu, cuda"]),
        (["train", "--resume", "nowhere"], 2, ["nowhere", "zssbir runs"]),
        (["eval", "--split", "zs"], 2, ["run", "zssbir train"]),
        (["eval", "--split", "nonsense"], 2, ["--split nonsense", "zs, val, gzs-"]),
        (["eval", "-k", "0"], 2, ["'-k'", "0", " is not "]),
        (["eval", "-k", "x"], 2, ["'-k'", "'x' is not a"]),
        (["prepare", "nowhere"], 3, ["nowhere"]),
        (["info", "nowhere"], 3, ["nowhere"]),
    ],
)
def test_a_users_mistake_is_one_line_with_its_code(
    line: list[str], code: int, words: list[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *line) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    errors = [x for x in printed.err.splitlines() if x.startswith("zssbir: error: ")]
    assert len(errors) == 1, printed.err
    assert "Traceback" not in printed.err
    for word in words:
        assert word in errors[0], errors[0]
    assert not files(tmp_path)


def test_a_bug_is_code_1_and_debug_shows_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zssbir_cli.recipe import loader

    def broken() -> list[Path]:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(loader, "shipped_recipes", broken)
    assert run(monkeypatch, "recipes") == 1
    assert "ZeroDivisionError: oops" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["zssbir", "recipes", "--debug"])
    with pytest.raises(ZeroDivisionError):
        main()


def test_a_place_that_cannot_be_written_is_one_line_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "set"
    done = subprocess.run(
        [sys.executable, "-m", "zssbir_cli", "prepare", "demo", "--subset", "2", "--out", str(out)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    last = done.stderr.strip().splitlines()[-1]
    assert str(tmp_path / "file") in last
    assert "bug" not in last
