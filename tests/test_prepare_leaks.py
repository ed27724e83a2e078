"""The same image twice: in two parts, in two classes, as sketch and photo; and what --dedup keeps."""

import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare_helpers import CLASSES, make_folder, photo

from zssbir_cli.data.manifest import read_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.verify import verify
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.prepare import Prepared, prepare_own


def prepare(source: Path, out: Path, told: list[str] | None = None, **options: object) -> Prepared:
    """The command under test: ant and jar are unseen, one class is for validation."""
    choices = Choices(unseen="ant,jar", val_classes=1, **options)
    return prepare_own([source], name="own", out=out, choices=choices, say=(told or []).append)


def copy(root: Path, source: str, target: str) -> None:
    """Copy one picture of the folder `root`."""
    shutil.copy(root / source, root / target)


@pytest.mark.parametrize("packing", ["folder", "tar.gz"])
def test_dedup_keeps_the_test_copy_whatever_the_packing(tmp_path: Path, packing: str) -> None:
    folder = make_folder(tmp_path / "own")
    copy(folder, "photo/jar/jar_0.jpg", "photo/bell/a copy.jpg")
    source = folder
    if packing != "folder":
        source = tmp_path / "own.tar.gz"
        with tarfile.open(source, "w:gz") as archive:
            archive.add(folder, ".")
    out = prepare(source, tmp_path / "out", dedup=True).root
    assert "photo/jar/jar_0.jpg" in PreparedSet.open(out).images(Part.TEST, Modality.PHOTO).sources
    assert "skipped\tphoto/bell/a copy.jpg\trepeats" in (out / "report.txt").read_text()
    assert read_manifest(out).skipped == 1


def test_training_images_that_are_validation_or_holdout_images(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    plain = prepare(folder, tmp_path / "plain").manifest
    val = plain.classes_of(Role.VAL)[0].name
    seen = plain.classes_of(Role.SEEN)[0].name
    copy(folder, f"photo/{val}/{val}_1.jpg", f"photo/{seen}/same.jpg")
    with pytest.raises(
        DataError, match=rf"1 training images are validation images: 'photo/{seen}/same\.jpg'"
    ):
        prepare(folder, tmp_path / "out")
    kept = prepare(folder, tmp_path / "out", allow_leak=True).manifest
    assert [(k.kind, k.what) for k in kept.leaks] == [("val image", f"photo/{seen}/same.jpg")]
    assert not prepare(folder, tmp_path / "dedup", dedup=True).manifest.leaks
    assert verify(tmp_path / "dedup").problems == ()
    (folder / "photo" / seen / "same.jpg").unlink()
    for i in range(4):
        copy(folder, f"sketch/{seen}/{seen}_{i}.png", f"sketch/{seen}/again_{i}.png")
    with pytest.raises(DataError, match="training images are hold-out images"):
        prepare(folder, tmp_path / "held", holdout=3)


def test_many_leaks_are_cut_in_the_line_and_whole_in_the_report(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=9)
    for i in range(9):
        copy(folder, f"photo/ant/ant_{i}.jpg", f"photo/bell/copy_{i}.jpg")
    with pytest.raises(
        DataError, match=r"9 training images are .* and 6 more .*All are listed in .*report\.txt"
    ) as e:
        prepare(folder, tmp_path / "out")
    assert len(str(e.value)) < 500 + len(str(tmp_path))
    lines = (tmp_path / "out" / "report.txt").read_text().splitlines()
    assert sum(line.startswith("leak: image\tphoto/bell/copy_") for line in lines) == 9


def test_images_in_two_classes_are_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    for i in range(3):
        copy(folder, f"photo/ant/ant_{i}.jpg", f"photo/jar/copy_{i}.jpg")
    told = [""]
    out = prepare(folder, tmp_path / "out", told).root
    words = "3 photos of 'jar' are, byte for byte, in 'ant' too: images in two classes"
    assert any(words in t for t in told)
    assert any(words in w for w in read_manifest(out).warnings)
    assert (
        "two classes\tphoto/jar/copy_0.jpg\tis also photo/ant/ant_0.jpg" in (out / "report.txt").read_text()
    )


def test_photos_given_as_sketches_are_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    shutil.rmtree(folder / "sketch")
    shutil.copytree(folder / "photo", folder / "sketch")
    told = [""]
    prepare(folder, tmp_path / "out", told)
    assert any("40 of 40 sketches are, byte for byte, photos of the set: was a folder" in t for t in told)


def test_a_clean_set_has_no_warnings(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", CLASSES)
    assert prepare(folder, tmp_path / "out").manifest.warnings == ()


def test_copies_in_one_class_are_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    (folder / "photo" / "ant" / "twice.jpg").write_bytes(photo(0))
    (warning,) = prepare(folder, tmp_path / "out").manifest.warnings
    assert warning == (
        "1 photo is a copy, byte for byte, of another one of its class (first: photo/ant/twice.jpg of photo/ant/ant_0.jpg); "
        "--dedup leaves copies out"
    )
    assert (
        "copy\tphoto/ant/twice.jpg\tis also photo/ant/ant_0.jpg"
        in (tmp_path / "out" / "report.txt").read_text()
    )
    assert prepare(folder, tmp_path / "without", dedup=True).manifest.warnings == ()


def test_most_sketches_off_white_paper_are_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    for seed, file in enumerate(sorted((folder / "sketch").rglob("*.png"))):
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
        Image.fromarray(pixels).resize((120, 120), Image.Resampling.BICUBIC).save(file)
    told = prepare(folder, tmp_path / "out").manifest.warnings
    assert any("32 of 32 sketches were not on white paper" in t and "right way round" in t for t in told)
