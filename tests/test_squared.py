"""`prepare --square`: what is stored is the network input, to the bit, and readers know it."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from prepare_helpers import encode, files_of, make_folder, sketch
from torchvision.transforms.v2 import functional as tvf

from zssbir_cli.__main__ import main
from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import resize, square_sketch, stretch
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.inputs.datasets import EvalImages, RowItems
from zssbir_cli.methods.ama.config import ViewsConfig
from zssbir_cli.methods.ama.data import AmaItems
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions, clean, squared
from zssbir_cli.preparation.verify import verify
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.info import describe
from zssbir_cli.workflows.prepare import prepare_own

SIZE = 40
SQUARE = CleanOptions(SIZE, square=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, with sketches and photos of odd shapes and kinds among them. Read only."""
    root = make_folder(tmp_path_factory.mktemp("own") / "pets")
    for more, name in enumerate(("ant", "bell")):
        drawn = Image.new("L", (90 + more, 50), 255)
        ImageDraw.Draw(drawn).line([(70, 5), (88, 40)], fill=90, width=3)
        odd = (drawn, drawn.point(lambda v: 255 - v), Image.new("L", (9, 9 + more), 255))
        for number, image in enumerate(odd):
            (root / f"sketch/{name}/odd_{number}.png").write_bytes(encode(image.convert("RGB"), "PNG"))
        shape = Image.effect_noise((60, 41), 60).convert("RGB")
        (root / f"photo/{name}/wide.png").write_bytes(encode(shape, "PNG"))
        (root / f"photo/{name}/right.jpg").write_bytes(encode(shape.resize((SIZE, SIZE)), "JPEG", quality=60))
    return root


def prepared(folder: Path, out: Path, options: CleanOptions, workers: int = 0) -> PreparedSet:
    """The folder as a prepared set."""
    choices = Choices(unseen="ant", val_classes=1, clean=options, workers=workers)
    return PreparedSet.open(prepare_own([folder], name="own", out=out, choices=choices).root)


@pytest.fixture(scope="module")
def sets(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PreparedSet, PreparedSet]:
    """The pictures whole, and squared. Read only."""
    root = tmp_path_factory.mktemp("sets")
    return prepared(folder, root / "whole", CleanOptions()), prepared(folder, root / "square", SQUARE)


@pytest.mark.parametrize("part", [Part.TRAIN, Part.TEST])
def test_network_inputs_are_those_of_the_whole_set(sets: tuple[PreparedSet, PreparedSet], part: Part) -> None:
    whole, square = (EvalImages(s.images(part, Modality.SKETCH), SIZE) for s in sets)
    assert len(whole) == len(square) > 3
    assert all(torch.equal(a, b) for a, b in zip(whole, square, strict=True))
    whole, square = (EvalImages(s.images(part, Modality.PHOTO), SIZE) for s in sets)
    stored = [np.frombuffer(encode(tvf.to_pil_image(a), "JPEG", quality=95), np.uint8) for a in whole]
    for source, a, b, jpeg in zip(square.images.sources, whole, square, stored, strict=True):
        assert torch.equal(b, a if source.endswith("right.jpg") else decode_photo(jpeg))
        assert (a.int() - b.int()).abs().float().mean() < 4  # the photo's second JPEG is all that differs


def test_another_size_takes_one_resize_and_no_second_margin(sets: tuple[PreparedSet, PreparedSet]) -> None:
    square = sets[1].images(Part.TRAIN, Modality.SKETCH)
    for i, found in enumerate(EvalImages(square, 20)):
        expected = stretch(resize(decode_sketch(square.read(i)), 20))
        assert torch.equal(found, expected)
        assert found.shape == (1, 20, 20)


def test_training_views_are_those_of_the_whole_set(sets: tuple[PreparedSet, PreparedSet]) -> None:
    config = DataConfig(size=SIZE, flip=True, crop_scale=0.5, sketch_jitter=0.7, color_jitter=0.5)
    a, b = (RowItems(*(s.images(Part.TRAIN, m) for m in Modality), config, seed=1) for s in sets)
    for i in range(6):
        one, two = a[0, i, (i, i)], b[0, i, (i, i)]
        assert torch.equal(one["sketch"], two["sketch"])
        assert one["photo"].shape == two["photo"].shape == (3, SIZE, SIZE)


def test_whole_sketches_cannot_be_had_from_a_squared_set(sets: tuple[PreparedSet, PreparedSet]) -> None:
    config = DataConfig(size=SIZE, sketch_crop=False)
    sketches, photos = (sets[1].images(Part.TRAIN, m) for m in Modality)
    for make in (
        lambda: EvalImages(sketches, SIZE, sketch_crop=False),
        lambda: RowItems(sketches, photos, config, 0),
        lambda: AmaItems(sketches, photos, config, ViewsConfig(), 0),
    ):
        with pytest.raises(DataError, match=r"sketch_crop: false needs whole sketches.*--square"):
            make()


def test_manifest_info_and_verify(sets: tuple[PreparedSet, PreparedSet]) -> None:
    root = sets[1].root
    assert describe(root)["options"]["square"] is True
    assert describe(sets[0].root)["options"]["square"] is False
    found = verify(root)
    assert not found.problems
    assert found.images == verify(sets[0].root).images
    assert sets[0].identity != sets[1].identity


def test_bytes_do_not_depend_on_workers(
    folder: Path, sets: tuple[PreparedSet, PreparedSet], tmp_path: Path
) -> None:
    expected = files_of(sets[1].root)
    for workers in (1, 3):
        assert files_of(prepared(folder, tmp_path / str(workers), SQUARE, workers).root) == expected


def test_a_squared_set_is_another_set(folder: Path, sets: tuple[PreparedSet, PreparedSet]) -> None:
    again = prepared(folder, sets[1].root, SQUARE)
    assert again.identity == sets[1].identity
    with pytest.raises(DataError, match="other files or options"):
        prepared(folder, sets[1].root, CleanOptions(SIZE))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CleanOptions(square=True), "--square needs --size"),
        (CleanOptions(31, square=True), "--size 31: give 32 or more"),
    ],
)
def test_wrong_combinations_are_told(
    folder: Path, tmp_path: Path, options: CleanOptions, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        prepared(folder, tmp_path / "x", options)


def test_damaged_images_are_left_out(tmp_path: Path) -> None:
    for raw in (sketch(1)[:-20], b"", b"no image", encode(Image.new("RGB", (50, 50)), "JPEG")[:-300]):
        result = clean(raw, Modality.SKETCH, SQUARE)
        assert result.data is None
        assert result.note


@cases(100)
@given(
    seed=st.integers(0, 1 << 30),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    size=st.integers(32, 80),
    solid=st.booleans(),
    paper=st.integers(0, 255),
)
def test_any_sketch_is_read_back_to_the_bit(
    seed: int, height: int, width: int, size: int, solid: bool, paper: int
) -> None:
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width), paper, np.uint8)
    top, left = int(rng.integers(height)), int(rng.integers(width))
    block = pixels[top : top + int(rng.integers(1, 71)), left : left + int(rng.integers(1, 71))]
    block[:] = int(rng.integers(256)) if solid else rng.integers(0, 256, block.shape)
    raw = encode(Image.fromarray(pixels), "PNG")
    stored = np.frombuffer(squared(raw, Modality.SKETCH, size), np.uint8)
    expected = square_sketch(decode_sketch(np.frombuffer(raw, np.uint8)), size)
    assert torch.equal(decode_sketch(stored), expected)
    with Image.open(io.BytesIO(stored.tobytes())) as image:
        assert (image.mode, image.size) == ("L", (size, size))


def test_the_command(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def command(*line: str) -> int:
        monkeypatch.setattr(sys, "argv", ["zssbir", *line])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    out = str(tmp_path / "x")
    assert command("prepare", str(folder), "--out", out, "--size", str(SIZE), "--square") == 0
    assert command("info", out) == 0
    assert f"size {SIZE}, square True" in capsys.readouterr().out
    assert command("prepare", "--verify", out) == 0
    assert command("prepare", str(folder), "--out", out + "y", "--square") == 2
    assert "--square needs --size" in capsys.readouterr().err
