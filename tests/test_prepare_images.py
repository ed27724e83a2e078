"""Every kind of bad or odd image: handled or left out with its name and a reason, never a crash."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw, features
from prepare_helpers import encode, make_folder, photo, sketch

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.jpeg import decode_jpeg
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import resize_photo
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import MAX_SIDE, CleanOptions, clean
from zssbir_cli.preparation.clean import photo as read_photo
from zssbir_cli.types import Modality
from zssbir_cli.workflows.prepare import prepare_own


def stored(raw: bytes, modality: Modality = Modality.PHOTO, **options: object) -> np.ndarray:
    """The pixels that come back after cleaning, [H, W, C]."""
    result = clean(raw, modality, CleanOptions(**options))
    assert result.data is not None, result.note
    decode = decode_sketch if modality is Modality.SKETCH else decode_photo
    return decode(np.frombuffer(result.data, np.uint8)).numpy().transpose(1, 2, 0)


def ramp(mode: str = "RGB", side: int = 32) -> Image.Image:
    """A smooth picture in a given mode."""
    x = np.linspace(0, 255, side, dtype=np.uint8)
    rgb = np.stack(
        [np.tile(x, (side, 1)), np.tile(x[:, None], (1, side)), np.full((side, side), 90, np.uint8)], 2
    )
    return Image.fromarray(rgb).convert(mode)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "zero bytes"),
        (b"hello, I am no image at all", "not an image"),
        (photo(1)[:200], "does not decode"),
        (photo(1, side=200)[:-40], "cut short"),
        (sketch(1)[:-20], "does not decode"),
        (sketch(1)[:60] + b"\xff" + sketch(1)[61:], "does not decode"),
        (b"GIF89a", "does not decode"),
        (encode(Image.new("RGB", (80, 60)), "WEBP")[:40], "does not decode"),
        (b"\0\0\0\x1cftypavif" + bytes(40), "does not decode" if features.check("avif") else "AVIF"),
        (b"<!DOCTYPE html><html><svg/></html>", "not an image but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (bytes(300), "nothing but zero bytes"),
    ],
)
def test_unusable_files_are_left_out_with_a_reason(raw: bytes, reason: str) -> None:
    result = clean(raw, Modality.PHOTO, CleanOptions())
    assert result.data is None
    assert reason in result.note


def test_good_files_keep_their_bytes() -> None:
    for raw, modality in (
        (photo(1), Modality.PHOTO),
        (sketch(1), Modality.SKETCH),
        (sketch(2), Modality.PHOTO),
    ):
        result = clean(raw, modality, CleanOptions())
        assert (result.data, result.note) == (raw, "")


def test_what_a_phone_appends_is_cut_off() -> None:
    result = clean(photo(1) + b"MotionPhoto" + random.randbytes(5000), Modality.PHOTO, CleanOptions())
    assert result.data == photo(1)
    assert "behind the end" in result.note


@pytest.mark.parametrize("mode", ["CMYK", "P", "L", "1", "LA", "RGBA", "YCbCr", "LAB"])
def test_pixel_modes_keep_the_picture(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode == "LAB" else "PNG"
    grey = mode in ("L", "LA", "1")
    expected = np.asarray(ramp("L" if grey else "RGB").convert("RGB")).astype(int)
    error = np.abs(stored(encode(ramp(mode), kind)).astype(int) - expected)
    assert error.mean() < (130 if mode == "1" else 12)


def test_sixteen_bits_floats_and_deep_tiffs() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16))
    floating = Image.fromarray(np.linspace(0, 1, 32 * 32).reshape(32, 32).astype(np.float32))
    for raw in (encode(deep, "PNG"), encode(deep, "TIFF"), encode(floating, "TIFF")):
        pixels = stored(raw)
        assert pixels.min() < 10
        assert pixels.max() > 245
        assert abs(float(pixels.mean()) - 127) < 5


@pytest.mark.parametrize("white", [255, 4095])
def test_fewer_bits_in_a_file_of_sixteen(white: int) -> None:
    """Microscopes, scanners and careless programs leave 8 or 12 bits in the lower end: no black picture."""
    few = Image.fromarray(np.linspace(0, white, 32 * 32).reshape(32, 32).astype(np.uint16))
    for kind in ("PNG", "TIFF"):
        assert abs(float(stored(encode(few, kind)).mean()) - 127) < 5


def test_transparent_photos_lie_on_white() -> None:
    image = Image.new("RGBA", (16, 16), (0, 0, 0, 0))
    assert (
        clean(encode(image, "PNG"), Modality.PHOTO, CleanOptions()).note == "blank: all of it is transparent"
    )
    image.putpixel((15, 15), (0, 0, 0, 255))
    assert stored(encode(image, "PNG"))[:8, :8].min() > 250


@pytest.mark.parametrize("ink", [(0, 0, 0, 255), (255, 255, 255, 255), (90, 90, 90, 255)])
def test_sketches_come_out_as_dark_ink_on_white(ink: tuple[int, int, int, int]) -> None:
    pixels = np.zeros((20, 20, 4), np.uint8)
    pixels[8:12, 3:17] = ink
    grey = stored(encode(Image.fromarray(pixels), "PNG"), Modality.SKETCH)[..., 0]
    assert grey[0, 0] == 255
    assert grey[10, 10] < 128
    drawn = np.full((20, 20), 0, np.uint8)
    drawn[8:12, 3:17] = 255  # white chalk on a blackboard
    for options in ({}, {"size": 16}):
        board = stored(encode(Image.fromarray(drawn), "PNG"), Modality.SKETCH, **options)[..., 0]
        assert board[0, 0] == 255
        assert board[board.shape[0] // 2, board.shape[1] // 2] < 40


def test_first_frame_of_animations() -> None:
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue", "green")]
    for kind in ("GIF", "WEBP", "PNG"):
        raw = encode(frames[0], kind, save_all=True, append_images=frames[1:])
        result = clean(raw, Modality.PHOTO, CleanOptions())
        assert "first one used" in result.note
        red = stored(raw)[8, 8]
        assert red[0] > 200
        assert red[2] < 60


def test_exif_orientation_is_applied() -> None:
    image = Image.fromarray(
        np.concatenate([np.full((20, 40, 3), 250, np.uint8), np.zeros((20, 40, 3), np.uint8)])
    )
    tags = image.getexif()
    tags[0x0112] = 6
    assert stored(encode(image.resize((60, 30)), "JPEG", exif=tags)).shape == (60, 30, 3)
    assert stored(encode(image.resize((60, 30)), "JPEG", exif=tags), size=10).shape == (20, 10, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_every_format_is_turned_upright(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    upright = Image.new("RGB", (128, 64), "white")
    upright.paste((20, 30, 60), (8, 8, 14, 56))
    tags = Image.Exif()
    tags[0x0112] = 6
    raw = encode(upright.transpose(Image.Transpose.ROTATE_90), kind, exif=tags.tobytes())
    for modality in Modality:
        pixels = stored(raw, modality).astype(int)
        assert pixels.shape[:2] == (64, 128)
        assert pixels[30, 11, 0] < 100 < pixels[30, -11, 0]


def damaged(raw: bytes, seed: int) -> bytes:
    """The same JPEG with 64 other bytes somewhere in its compressed data; both ends stay."""
    dice = random.Random(seed)
    start = raw.rindex(b"\xff\xda") + 20
    at = dice.randrange(start, len(raw) - 100)
    return raw[:at] + bytes(dice.randrange(255) for _ in range(64)) + raw[at + 64 :]


def test_jpegs_damaged_in_the_middle_are_left_out() -> None:
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8))
    for modality, size in ((Modality.PHOTO, None), (Modality.PHOTO, 32), (Modality.SKETCH, None)):
        for raw in (encode(noisy, "JPEG"), encode(noisy, "JPEG", progressive=True)):
            assert clean(raw, modality, CleanOptions(size)).data
            results = [clean(damaged(raw, i), modality, CleanOptions(size)) for i in range(20)]
            left_out = [r for r in results if r.data is None]
            assert len(left_out) > 15
            assert all(r.note.startswith("does not decode: ") for r in left_out)
            broken = next(i for i, r in enumerate(results) if "Corrupt JPEG" in r.note)
            with pytest.raises(DataError, match="does not decode: Corrupt JPEG"):
                read_photo(damaged(raw, broken), size)


def test_padding_before_the_end_of_a_jpeg_is_no_damage() -> None:
    raw = photo(1)
    for padded in (raw[:-2] + bytes(9) + raw[-2:], raw[:-2] + b"\xff" * 9 + raw[-2:]):
        result = clean(padded, Modality.PHOTO, CleanOptions())
        assert (result.data, result.note) == (padded, "")
        assert np.array_equal(read_photo(padded), stored(raw))


def test_strict_decoding_gives_the_same_pixels() -> None:
    for number in range(3):
        raw = np.frombuffer(photo(number, side=61), np.uint8)
        assert np.array_equal(read_photo(raw.tobytes()), decode_photo(raw).permute(1, 2, 0).numpy())
        assert np.array_equal(decode_jpeg(raw, "GRAY"), decode_sketch(raw)[0].numpy())


def test_enormous_images() -> None:
    big = stored(encode(Image.new("L", (3 * MAX_SIDE, 30), 200), "PNG"))
    assert big.shape == (10, MAX_SIDE, 3)
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n"
    for body in (b"IHDR" + head, b"IDAT" + zlib.compress(bytes(100))):
        raw += struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    result = clean(raw, Modality.PHOTO, CleanOptions())
    assert result.data is None
    assert "enormous" in result.note


def test_bad_images_are_named_in_the_report_or_an_error(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    (root / "photo" / "ant" / "zero.jpg").write_bytes(b"")
    (root / "photo" / "dog" / "cut.JPG").write_bytes(photo(5)[:100])
    (root / "sketch" / "cup" / "clear.png").write_bytes(encode(Image.new("RGBA", (9, 9)), "PNG"))
    choices = Choices(unseen="ant,bell")
    result = prepare_own([root], out=tmp_path / "out", choices=choices)
    report = (tmp_path / "out" / "report.txt").read_text().splitlines()
    assert result.manifest.skipped == 3
    assert "skipped\tphoto/ant/zero.jpg\tzero bytes" in report
    assert any(r.startswith("skipped\tphoto/dog/cut.JPG\tdoes not decode") for r in report)
    assert "skipped\tsketch/cup/clear.png\tblank: no ink found" in report
    assert (
        sum(len(PreparedSet.open(tmp_path / "out").images(p, m)) for p, m in result.manifest.counts) == 8 * 9
    )
    with pytest.raises(DataError, match=r"photo/ant/zero.jpg: zero bytes \(--strict"):
        prepare_own([root], out=tmp_path / "s", choices=Choices(unseen="ant,bell", strict=True))


SEEDS = [
    photo(3),
    sketch(3),
    encode(ramp("P"), "GIF"),
    encode(ramp(), "WEBP"),
    encode(ramp(), "TIFF"),
    encode(ramp(), "BMP"),
]
SEEDS += [encode(ramp(), "JPEG", progressive=True), encode(ramp("RGBA"), "PNG"), encode(ramp(), "PPM")]


@cases(150)
@given(
    seed=st.sampled_from(SEEDS),
    cut=st.integers(0, 4000),
    edits=st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=6),
    sketchy=st.booleans(),
    options=st.sampled_from([CleanOptions(), CleanOptions(16)]),
)
@example(seed=encode(ramp("P"), "GIF"), cut=0, edits=[(1279, 32)], sketchy=True, options=CleanOptions())
def test_damaged_files_never_crash_and_what_is_kept_decodes(
    seed: bytes, cut: int, edits: list[tuple[int, int]], sketchy: bool, options: CleanOptions
) -> None:
    raw = bytearray(seed[: len(seed) - cut] if cut < len(seed) else seed)
    for at, value in edits:
        if raw:
            raw[at % len(raw)] = value
    result = clean(bytes(raw), Modality.SKETCH if sketchy else Modality.PHOTO, options)
    if result.data is None:
        assert result.note
    else:
        decode = decode_sketch if sketchy else decode_photo
        assert decode(np.frombuffer(result.data, np.uint8)).ndim == 3


@cases(150)
@given(st.binary(max_size=200))
def test_decoding_noise_is_a_clear_error(noise: bytes) -> None:
    for decode in (decode_photo, decode_sketch):
        for raw in (noise, b"\x89PNG\r\n\x1a\n" + noise, b"\xff\xd8" + noise + b"\xff\xd9"):
            with pytest.raises(DataError, match="does not decode"):
                decode(np.frombuffer(raw, np.uint8))


def test_a_large_photo_is_decoded_at_a_part_of_its_size() -> None:
    waves = np.sin(np.arange(1200)[:, None, None] / 40 + np.arange(1600)[None, :, None] / 60 + np.arange(3))
    raw = encode(Image.fromarray((127 + 120 * waves).astype(np.uint8)), "JPEG")
    whole = read_photo(raw)
    assert whole.shape == (1200, 1600, 3)
    for size, factor in ((601, 1), (300, 2), (150, 4), (75, 8), (40, 8)):
        small = read_photo(raw, size)
        assert small.shape == (1200 // factor, 1600 // factor, 3)
        means = whole.reshape(1200 // factor, factor, 1600 // factor, factor, 3).mean((1, 3))
        assert np.abs(small - means).mean() < 1
    tags = Image.Exif()
    tags[0x0112] = 6
    turned = encode(
        Image.open(io.BytesIO(raw)).transpose(Image.Transpose.ROTATE_90), "JPEG", exif=tags.tobytes()
    )
    assert np.abs(read_photo(turned, 150).astype(int) - read_photo(raw, 150)).mean() < 2


@pytest.mark.parametrize("side", [(2049, 2047), (1201, 999), (1003, 1204), (2048, 1536)])
def test_a_part_of_an_odd_size_is_not_a_moved_picture(side: tuple[int, int]) -> None:
    """An eighth of 2,049 pixels is 256 and a bit: taken for 257, all things would lie up to 7 pixels further left."""
    coarse = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    raw = encode(Image.fromarray(coarse).resize(side, Image.Resampling.BICUBIC), "JPEG", quality=95)
    whole, small = (torch.from_numpy(read_photo(raw, size).copy()).permute(2, 0, 1) for size in (None, 64))
    off = (resize_photo(whole, 64).float() - resize_photo(small, 64).float()).abs()
    assert off.mean() < 0.8


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_colour_profile_that_libpng_dislikes_is_not_told_at_each_decoding(
    mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """libpng writes to file descriptor 2 itself, into the middle of a progress line."""
    image = Image.new("L", (40, 40), 255)
    ImageDraw.Draw(image).ellipse((5, 5, 30, 34), outline=0, width=3)
    plain, odd = io.BytesIO(), io.BytesIO()
    image.convert(mode).save(plain, "PNG")
    image.convert(mode).save(odd, "PNG", icc_profile=bytes(200), dpi=(96, 96))
    for modality in Modality:
        kept = clean(odd.getvalue(), modality, CleanOptions())
        assert kept.data is not None
    for decode in (decode_photo, decode_sketch):
        found, wanted = (decode(np.frombuffer(f.getvalue(), np.uint8)) for f in (odd, plain))
        assert torch.equal(found, wanted)
    assert capfd.readouterr().err == ""
