"""Object masks beside a user's photos: paired, brought to the photo's stored size, named when left out."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prepare_helpers import encode, make_folder, photo

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.preparation.verify import verify
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import prepare_own

UNSEEN = "ant,bell"


def prepare(source: Path, out: Path, **options: object) -> PreparedSet:
    choices = Choices(unseen=UNSEEN, val_classes=0, workers=1, **options)
    prepare_own([source], out=out, choices=choices)
    return PreparedSet.open(out)


def masks_of(prepared: PreparedSet) -> dict[str, np.ndarray | None]:
    """The mask of each photo by its path."""
    found = {}
    for part in (Part.TRAIN, Part.TEST):
        photos = prepared.images(part, Modality.PHOTO)
        found |= {photos.sources[i]: photos.read_mask(i) for i in range(len(photos))}
    return found


def half(width: int, height: int) -> np.ndarray:
    """The left half is the object."""
    return np.arange(width)[None].repeat(height, 0) < width / 2


def write(root: Path, name: str, mask: np.ndarray) -> None:
    path = root / "mask" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "pics", ("ant", "bell", "cup", "dog"), photos=2, sketches=2)


def test_a_mask_goes_with_the_photo_of_its_name(folder: Path, tmp_path: Path) -> None:
    write(folder, "ant/ant_0.png", half(24, 24))
    write(folder, "CUP/cup_1.bmp", np.uint8(half(24, 24)))  # 0 and 1 in eight bits
    found = masks_of(prepare(folder, tmp_path / "set"))
    with_mask = {path for path, mask in found.items() if mask is not None}
    assert with_mask == {"photo/ant/ant_0.jpg", "photo/cup/cup_1.jpg"}
    assert all((found[path] == half(24, 24)).all() for path in with_mask)
    assert not verify(tmp_path / "set").problems


def test_a_mask_is_made_smaller_with_its_photo(folder: Path, tmp_path: Path) -> None:
    wide = Image.open(io.BytesIO(photo(5, 64))).resize((64, 32))
    (folder / "photo/ant/ant_0.jpg").write_bytes(encode(wide, "JPEG"))
    write(folder, "ant/ant_0.png", half(64, 32))
    sizes = {"small": CleanOptions(size=16), "square": CleanOptions(size=32, square=True)}
    shapes = {"small": (16, 32), "square": (32, 32)}
    for name, options in sizes.items():
        mask = masks_of(prepare(folder, tmp_path / name, clean=options))["photo/ant/ant_0.jpg"]
        assert mask is not None
        assert mask.shape == shapes[name]
        assert (mask == half(*shapes[name][::-1])).all()


def test_a_mask_fits_the_photo_as_it_is_seen(folder: Path, tmp_path: Path) -> None:
    lying = Image.open(io.BytesIO(photo(5, 40))).resize((40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6
    (folder / "photo/ant/ant_0.jpg").write_bytes(encode(lying, "JPEG", exif=exif))
    write(folder, "ant/ant_0.png", half(20, 40))
    mask = masks_of(prepare(folder, tmp_path / "set"))["photo/ant/ant_0.jpg"]
    assert mask is not None
    assert (mask == half(20, 40)).all()


def test_masks_that_do_not_fit_are_named(folder: Path, tmp_path: Path) -> None:
    write(folder, "ant/ant_0.png", half(24, 30))
    (folder / "mask/ant/ant_1.png").write_bytes(b"\x89PNG\r\n\x1a\n, cut")
    write(folder, "ant/ant_7.png", half(24, 24))
    prepared = prepare(folder, tmp_path / "set")
    assert set(masks_of(prepared).values()) == {None}
    said = "\n".join(prepared.manifest.warnings)
    assert "1 mask (first: mask/ant/ant_7.png): no photo of the same class and name" in said
    assert "2 masks left out (first: that of photo/ant/ant_0.jpg: 24 x 30 pixels, but" in said
    report = (tmp_path / "set" / "report.txt").read_text()
    assert "mask left out\tphoto/ant/ant_0.jpg\t24 x 30 pixels, but the photo has 24 x 24\n" in report
    assert "mask left out\tphoto/ant/ant_1.jpg\t" in report
    with pytest.raises(DataError, match="ant_7"):
        prepare(folder, tmp_path / "strict", strict=True)
    (folder / "mask/ant/ant_7.png").unlink()
    with pytest.raises(DataError, match=r"mask of photo/ant/ant_0.jpg: 24 x 30"):
        prepare(folder, tmp_path / "strict", strict=True)


def test_a_second_mask_is_named_and_masks_come_from_any_archive(folder: Path, tmp_path: Path) -> None:
    write(folder, "ant/ant_0.png", half(24, 24))
    write(folder, "ant/ant_0.bmp", half(24, 24))
    prepared = prepare(folder, tmp_path / "set")
    assert prepared.manifest.warnings == (
        "1 mask (first: mask/ant/ant_0.png): the photo has another one; left out",
    )
    with tarfile.open(tmp_path / "pics.tar.gz", "w:gz") as archive:
        archive.add(folder, "")
    packed = prepare(tmp_path / "pics.tar.gz", tmp_path / "packed")
    assert packed.identity == prepared.identity
    assert sorted(p.name for p in tmp_path.iterdir()) == ["packed", "pics", "pics.tar.gz", "set"]


def test_a_changed_mask_is_another_set(folder: Path, tmp_path: Path) -> None:
    plain = prepare(folder, tmp_path / "plain").identity
    write(folder, "ant/ant_0.png", half(24, 24))
    with_mask = prepare(folder, tmp_path / "set")
    assert with_mask.identity != plain
    assert prepare(folder, tmp_path / "set").identity == with_mask.identity
    path = folder / "mask/ant/ant_0.png"
    path.touch()  # another time, the same bytes
    assert prepare(folder, tmp_path / "set").identity == with_mask.identity
    write(folder, "ant/ant_0.png", ~half(24, 24))
    with pytest.raises(DataError, match="changed since"):
        prepare(folder, tmp_path / "set")
