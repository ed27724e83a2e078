"""Photos saved again in another part: found by their looks, told and recorded, and not refused."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter
from prepare_helpers import encode, make_folder

from zssbir_cli.data.manifest import NEAR, read_manifest
from zssbir_cli.embedding.own import learnt_from
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.preparation.looks import FLAT, VALUES, look_of, saved_again
from zssbir_cli.types import Modality
from zssbir_cli.workflows.doctor_checks import prepared_set
from zssbir_cli.workflows.prepare import Prepared, prepare_own

SIZE = (187, 141)
"""No multiple of anything."""


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    """A photo: large soft shapes, small ones and grain."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(
            Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC),
            np.float32,
        )
        for n in (4, 12, 40)
    ]
    pixels = np.tensordot([0.6, 0.25, 0.15], layers, 1) + rng.normal(0, 3, (*size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def resized(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture in another size."""
    return image.resize((width, height), Image.Resampling.BICUBIC)


def turned(image: Image.Image) -> bytes:
    """A JPEG that lies on its side, and says so."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode(image.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


ORIGINAL = encode(picture(1), "JPEG", quality=90)
SAVED = {
    "q50": encode(picture(1), "JPEG", quality=50),
    "q95": encode(picture(1), "JPEG", quality=95),
    "progressive": encode(picture(1), "JPEG", quality=85, progressive=True),
    "png": encode(Image.open(io.BytesIO(ORIGINAL)), "PNG"),
    "webp": encode(picture(1), "WEBP", quality=70),
    "grey": encode(picture(1).convert("L"), "JPEG", quality=80),
    "half": encode(resized(picture(1), 93, 70), "JPEG", quality=85),
    "large": encode(resized(picture(1), 1309, 987), "JPEG", quality=85),
    "large png": encode(resized(picture(1), 748, 564), "PNG"),
    "squeezed": encode(resized(picture(1), 224, 224), "JPEG", quality=85),
    "turned": turned(picture(1)),
}


def prepare(source: Path, out: Path, told: list[str] | None = None, **options: object) -> Prepared:
    """The command under test: ant and jar are unseen."""
    choices = Choices(unseen="ant,jar", val_classes=0, **options)
    return prepare_own(
        [source], name="own", out=out, choices=choices, say=[].append if told is None else told.append
    )


def look(raw: bytes, options: CleanOptions | None = None) -> np.ndarray:
    """What `prepare` keeps of a photo's looks."""
    return np.frombuffer(clean(raw, Modality.PHOTO, options or CleanOptions()).look, np.uint8)


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("options", [CleanOptions(), CleanOptions(64), CleanOptions(64, square=True)])
def test_a_photo_saved_again_looks_the_same(how: str, options: CleanOptions) -> None:
    looks = np.stack([look(ORIGINAL, options), look(SAVED[how], options)])
    assert saved_again(looks, np.array([0, 1])) == [(0, 1)]


def test_other_photos_crops_flat_and_tiny_ones_do_not() -> None:
    photo = picture(1)
    soft = picture(1).filter(ImageFilter.GaussianBlur(200))
    others = [picture(2), photo.crop((20, 15, 187, 141)), photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]
    tiny = picture(1, (25, 19))
    looks = np.stack([look(encode(image, "JPEG")) for image in (photo, soft, tiny, *others, soft, tiny)])
    assert looks[1].std() < FLAT
    assert saved_again(looks, np.array([0, 0, 0, 1, 1, 1, 1, 1])) == []


def test_only_sketches_have_no_look() -> None:
    assert len(clean(ORIGINAL, Modality.PHOTO, CleanOptions()).look) == VALUES
    drawing = Image.new("L", (50, 50), 255)
    drawing.paste(0, (10, 10, 40, 14))
    assert clean(encode(drawing, "PNG"), Modality.SKETCH, CleanOptions()).look == b""


def test_all_pairs_are_found_among_many() -> None:
    rng = np.random.default_rng(0)
    looks = np.stack([np.frombuffer(look_of(picture(i, (40, 40))), np.uint8) for i in range(60)])
    looks = np.concatenate([looks, rng.integers(0, 256, (1500, VALUES), np.uint8), looks[:40] ^ 1])
    group = np.repeat([1, 0, 2], [60, 1500, 40])
    mixed = rng.permutation(len(looks))
    found = saved_again(looks[mixed], group[mixed])
    assert {(mixed[a], mixed[b]) for a, b in found} == {(i, 1560 + i) for i in range(40)}


def test_they_are_told_recorded_and_carried(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    (folder / "photo/jar/photo.jpg").write_bytes(ORIGINAL)
    for name in ("q50", "half", "png", "webp"):
        (folder / f"photo/bell/{name}.jpg").write_bytes(SAVED[name])
    (folder / "photo/ant/same part.jpg").write_bytes(SAVED["q95"])
    told: list[str] = []
    made = prepare(folder, tmp_path / "out", told)
    assert {(k.kind, k.what) for k in made.manifest.leaks} == {
        (NEAR, f"photo/bell/{name}.jpg") for name in ("q50", "half", "png", "webp")
    }
    (warning,) = [t for t in told if "look the same" in t]
    assert warning.startswith("warning: 4 photos look the same as one of another part")
    assert warning.count("is in train, and test as photo/") == 3
    assert ", and 1 more. Recorded as leaks" in warning
    report = (tmp_path / "out/report.txt").read_text()
    assert report.count("leak: near copy\tphoto/bell/") == 4
    assert len(learnt_from(made.manifest).leaks) == 4
    assert any(f.what == "leaks" and "leave the copies out" in f.mend for f in prepared_set(tmp_path / "out"))
    assert not prepare(folder, tmp_path / "out").fresh


def test_a_copy_byte_for_byte_is_told_once(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    (folder / "photo/jar/photo.jpg").write_bytes(ORIGINAL)
    (folder / "photo/bell/same.jpg").write_bytes(ORIGINAL)
    leaks = prepare(folder, tmp_path / "out", allow_leak=True).manifest.leaks
    assert [k.kind for k in leaks] == ["image"]


def test_a_continued_run_knows_what_the_first_one_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "own")
    for name, place in (("q50", "bell"), ("half", "jar")):
        (folder / f"photo/{place}/{name}.jpg").write_bytes(SAVED[name])
    whole = prepare(folder, tmp_path / "whole").manifest
    with monkeypatch.context() as m:
        m.setattr("zssbir_cli.preparation.build._check_any_left", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            prepare(folder, tmp_path / "out")
    monkeypatch.setattr("zssbir_cli.preparation.build.clean", lambda *_: 1 / 0)
    made = prepare(folder, tmp_path / "out").manifest
    assert made.leaks == whole.leaks != ()


def test_older_sets_are_used_as_they_are(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    (folder / "photo/jar/photo.jpg").write_bytes(ORIGINAL)
    (folder / "photo/bell/again.jpg").write_bytes(SAVED["q50"])
    made = prepare(folder, tmp_path / "out")
    file = made.root / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "leaks": []}))
    again = prepare(folder, tmp_path / "out")
    assert not again.fresh
    assert again.manifest.identity == read_manifest(made.root).identity


@pytest.mark.parametrize(("contrast", "alike", "apart"), [(60, 2.0, 3.5), (12, 0.8, 2.0)])
def test_how_much_two_looks_may_differ(contrast: float, alike: float, apart: float) -> None:
    """By less where there is little contrast to compare."""
    rng = np.random.default_rng(0)
    scattered, off = (rng.permutation(np.linspace(-1.7, 1.7, VALUES)) for _ in range(2))
    one, near, far = (np.rint(128 + contrast * scattered + by * off) for by in (0, alike, apart))
    looks = np.stack([one, near, far]).astype(np.uint8)
    assert saved_again(looks, np.array([0, 1, 1])) == [(0, 1)]
