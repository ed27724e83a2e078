"""What a file's header tells of an image is what a closer look finds."""

import io

from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from prepare_helpers import encode, sketch

from zssbir_cli.preparation.clean import is_plain
from zssbir_cli.preparation.whole import plain_image


@cases(150)
@given(st.data())
def test_grey_png_files_are_kept_or_changed_as_pillow_sees_them(data: st.DataObject) -> None:
    """What need not be opened by Pillow ends as if it had been: transparency, frames, camera data, other depths."""
    side = data.draw(st.integers(20, 60))
    image = Image.open(io.BytesIO(sketch(0, side))).convert(
        data.draw(st.sampled_from(["L", "1", "LA", "RGB", "P", "I;16"]))
    )
    extra: dict[str, object] = {}
    if data.draw(st.booleans()):
        extra["transparency"] = 255
    if data.draw(st.booleans()):
        extra["exif"] = Image.Exif()
        extra["exif"][0x0112] = data.draw(st.integers(1, 8))  # type: ignore[index]
    if data.draw(st.booleans()):
        extra |= {"save_all": True, "append_images": [image.copy()]}
    if image.mode not in ("L", "P", "1"):
        extra.pop("transparency", None)
    out = io.BytesIO()
    image.save(out, "PNG", **extra)
    raw = out.getvalue() + data.draw(st.binary(max_size=5))
    found = plain_image(raw)
    with Image.open(io.BytesIO(raw)) as opened:
        assert found is None or (is_plain(opened, raw) and opened.mode == "L" and opened.size == found[:2])
    if not extra and image.mode == "L":
        assert found == (side, side, "L", len(out.getvalue()))
    cut = raw[: data.draw(st.integers(0, len(out.getvalue()) - 1))]
    assert plain_image(cut) is None


@cases(150)
@given(st.data())
def test_jpeg_files_are_kept_or_changed_as_pillow_sees_them(data: st.DataObject) -> None:
    """Most photos are told from their header alone: only those that a closer look would leave as they are."""
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    image = Image.new(data.draw(st.sampled_from(["L", "RGB", "RGB", "CMYK"])), (width, height), 77)
    extra: dict[str, object] = {}
    if data.draw(st.booleans()):
        extra = {"progressive": True, "restart_marker_blocks": 2, "comment": b"\xff\xda of a camera"}
    if data.draw(st.booleans()):
        extra["exif"] = Image.Exif()
        extra["exif"][0x0112] = data.draw(st.integers(1, 8))  # type: ignore[index]
    whole = encode(image, "JPEG", **extra)
    raw = whole + data.draw(st.binary(max_size=5))
    found = plain_image(raw)
    with Image.open(io.BytesIO(raw)) as opened:
        assert found is None or (is_plain(opened, raw) and (*opened.size, opened.mode) == found[:3])
    if "exif" not in extra and image.mode != "CMYK":
        assert found == (width, height, image.mode, len(whole))
    assert plain_image(raw[: data.draw(st.integers(0, len(whole) - 1))]) is None
