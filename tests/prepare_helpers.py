"""Small picture folders for the tests of `prepare`."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bell", "cup", "dog", "egg", "fan", "hat", "jar")


def photo(seed: int, side: int = 24) -> bytes:
    """A small JPEG, different for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return encode(Image.fromarray(pixels).resize((side, side)), "JPEG")


def sketch(seed: int, side: int = 24) -> bytes:
    """A small grey PNG: dark marks on white."""
    pixels = np.full((side, side), 255, np.uint8)
    pixels[4:-4, 4:-4] = np.where(np.random.default_rng(seed).random((side - 8, side - 8)) < 0.3, 0, 255)
    return encode(Image.fromarray(pixels), "PNG")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    """The image as a file of that kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def make_folder(root: Path, classes: tuple[str, ...] = CLASSES, photos: int = 5, sketches: int = 4) -> Path:
    """`sketch/<class>/*` and `photo/<class>/*` with different images throughout."""
    for number, name in enumerate(classes):
        for kind, n in (("photo", photos), ("sketch", sketches)):
            folder = root / kind / name
            folder.mkdir(parents=True)
            for i in range(n):
                seed = number * 1000 + i
                data = photo(seed) if kind == "photo" else sketch(seed)
                (folder / f"{name}_{i}.{'jpg' if kind == 'photo' else 'png'}").write_bytes(data)
    return root


def make_zip(path: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip with these members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def files_of(root: Path) -> dict[str, bytes]:
    """All files below a folder by relative path."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def tiny_png(number: int, side: int = 4) -> bytes:
    """A valid grey PNG of a few pixels that encode `number`; quick to make by the thousand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = number.to_bytes(side, "big")
    raw = b"".join(b"\0" + bytes([pixels[i]]) + b"\xff" * (side - 1) for i in range(side))
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    )
