"""What counts as a picture: by suffix, by content, and what is junk."""

import io
from pathlib import Path

import pytest
from PIL import Image

from zssbir_cli.embedding.folder import PhotoFiles
from zssbir_cli.embedding.listing import list_photos
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.folder import picture_files
from zssbir_cli.preparation.kinds import is_junk, is_picture_head, is_picture_name, may_be_picture

PICTURE = Image.radial_gradient("L").resize((40, 30))


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    PICTURE.convert("RGB").save(out, kind)
    return out.getvalue()


def test_pictures_are_known_by_their_suffix_in_any_case() -> None:
    names = "a.jpg a.JPEG a.jfif a.Pjpeg a.avif a.HEIC a.heif a.svg a.SVGZ a.tif a.png x.y/a.webp a.jp2"
    assert all(is_picture_name(n) and may_be_picture(n) for n in names.split())
    assert not any(is_picture_name(n) or may_be_picture(n) for n in ("a.txt", "a.ndjson", "a.mp4", "png.md"))


def test_names_that_say_nothing_are_looked_into() -> None:
    assert all(may_be_picture(n) for n in ("IMG_0001", "n01.5", "a.jpg_large", "sketch/cat/7"))
    assert not any(is_picture_name(n) for n in ("IMG_0001", "n01.5", "a.jpg_large"))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM"])
def test_content_tells_a_picture(kind: str) -> None:
    assert is_picture_head(encoded(kind)[:64])


def test_content_tells_what_is_no_picture() -> None:
    texts = (b"", b"MIT License", b"#!/bin/sh\n", b"%PDF-1.7", b"<html><body>", b"PK\3\4", b"BM is short")
    assert not any(is_picture_head(t) for t in texts)
    assert is_picture_head(b'\xef\xbb\xbf<?xml version="1.0"?>\n<!-- x -->\n<svg width="1">')


def test_web_pages_are_no_drawings() -> None:
    page = b"<?xml version='1.0'?>\n<!DOCTYPE html><html><body><svg></svg>"
    assert not is_picture_head(page)
    assert not is_picture_head(b"<HTML><svg>")


@pytest.mark.parametrize("name", ["._a.png", ".DS_Store", "Thumbs.db", "THUMBS.DB", "__MACOSX", "@eaDir"])
def test_junk(name: str) -> None:
    assert is_junk(name)
    assert not is_junk(name.strip(".@_") + ".jpg")


def test_a_folder_is_listed_by_suffix_and_content_without_junk(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name, data in {
        "a.jfif": encoded("JPEG"), "deep/noext": encoded("PNG"), "deep/7.1": encoded("GIF"), "._a.png": b"\0\5\26\7",
        "README": b"words", "notes.txt": encoded("PNG"), "broken.heic": b"x",
    }.items():  # fmt: skip
        (tmp_path / name).write_bytes(data)
    expected = ["a.jfif", "broken.heic", "deep/7.1", "deep/noext"]
    assert [str(p.relative_to(tmp_path)) for p in picture_files(tmp_path)[0]] == expected
    assert picture_files(tmp_path)[1] == "1 .txt, 1 without a suffix"
    (tmp_path / "gone.jpg").symlink_to("nowhere.jpg")
    expected.insert(4, "gone.jpg")
    listing = list_photos(tmp_path)
    assert list(listing.names) == expected
    photos = PhotoFiles(listing, 8)
    assert photos[0].shape == photos[3].shape == (3, 8, 8)
    assert photos.failed.tolist() == [0, 0, 0, 0, 0]
    photos[4]
    assert photos.failed.tolist() == [0, 0, 0, 0, 1]
    assert listing.others == "1 .txt, 1 without a suffix"


def test_a_folder_without_pictures_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt", "c.mp4", "README"):
        (tmp_path / name).write_text("words")
    with pytest.raises(DataError, match=r"2 \.txt, 1 \.mp4, 1 without a suffix"):
        picture_files(tmp_path)
    with pytest.raises(DataError, match=r"2 \.txt"):
        list_photos(tmp_path)
