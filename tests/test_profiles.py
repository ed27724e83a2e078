"""Photos in wide colours are brought to sRGB, the same in a prepared set as where a folder is embedded; all others keep
their bytes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from zssbir_cli.data.images import decode_photo
from zssbir_cli.preparation.clean import CleanOptions, clean, photo
from zssbir_cli.types import Modality

P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
SRGB = ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D65, D50 = np.array([0.3127 / 0.329, 1, 0.3583 / 0.329]), np.array([0.9642, 1, 0.8249])


def to_xyz(primaries: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Linear RGB of these primaries and the white of D65 -> XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    return columns * np.linalg.solve(columns, D65)


def profile(primaries: tuple[tuple[float, float], ...]) -> bytes:
    """A profile with the tone curve of sRGB: what Pillow makes of sRGB, with other primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    adapt = np.linalg.inv(BRADFORD) @ np.diag((BRADFORD @ D50) / (BRADFORD @ D65)) @ BRADFORD
    columns = (adapt @ to_xyz(primaries)).T
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True):
        entry = data.index(name, 128)
        start = int.from_bytes(data[entry + 4 : entry + 8], "big") + 8
        data[start : start + 12] = b"".join(round(v * 65536).to_bytes(4, "big", signed=True) for v in column)
    return bytes(data)


def linear(x: np.ndarray) -> np.ndarray:
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def in_srgb(pixels: np.ndarray) -> np.ndarray:
    """P3 pixels as sRGB has them, by the formulas."""
    x = linear(pixels / 255) @ (np.linalg.inv(to_xyz(SRGB)) @ to_xyz(P3)).T
    x = np.clip(x, 0, 1)
    return 255 * np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)


def picture() -> np.ndarray:
    """Smooth colours, uint8 [64, 64, 3]."""
    y, x = np.mgrid[:64, :64] * 4
    return np.stack([x, y, 255 - (x + y) // 2], -1).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str, icc: bytes | None, **options: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, icc_profile=icc, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_wide_colours_become_srgb_wherever_they_are_read(kind: str) -> None:
    options = (
        {"quality": 100, "subsampling": 0} if kind == "JPEG" else {"lossless": 1} if kind == "WEBP" else {}
    )
    raw = encoded(picture(), kind, profile(P3), **options)
    found = photo(raw).astype(float)
    assert np.abs(found - in_srgb(picture())).mean() < 2
    assert np.abs(found - picture()).mean() > 6  # what they would be without
    stored = clean(raw, Modality.PHOTO, CleanOptions())
    assert stored.data is not None
    assert "colours converted to sRGB" in stored.note
    again = decode_photo(np.frombuffer(stored.data, np.uint8)).permute(1, 2, 0).numpy()
    assert np.abs(again - found).mean() < 3  # a JPEG of it
    assert np.array_equal(photo(stored.data), again)


def test_a_large_photo_is_converted_at_a_part_of_its_size_too() -> None:
    large = picture().repeat(20, 0).repeat(20, 1)
    raw = encoded(large, "JPEG", profile(P3), quality=98)
    small = photo(raw, size=160)
    assert small.shape == (320, 320, 3)
    assert np.abs(small.astype(float) - in_srgb(picture().repeat(5, 0).repeat(5, 1))).mean() < 3


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("icc", [profile(SRGB), None, b"no profile at all"])
def test_srgb_and_damaged_profiles_change_nothing(kind: str, icc: bytes | None) -> None:
    raw = encoded(picture(), kind, icc)
    assert clean(raw, Modality.PHOTO, CleanOptions())[:2] == (raw, "")
    assert np.array_equal(photo(raw), photo(encoded(picture(), kind, None)))


def test_a_grey_photo_keeps_its_bytes() -> None:
    raw = encoded(picture()[..., 0], "JPEG", profile(P3))
    assert clean(raw, Modality.PHOTO, CleanOptions())[:2] == (raw, "")
