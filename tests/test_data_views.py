"""From decoded images to batches: ink crop, views, plans; equal on any worker, moved together."""

import io

import numpy as np
import pytest
import torch
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from zssbir_cli.data.images import decode_sketch
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import ink_box, square_sketch
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import (
    Crop,
    RowItems,
    crop_image,
    crop_map,
    item_rng,
    jitter_color,
    jitter_sketch,
    sample_crop,
)
from zssbir_cli.inputs.sampling import ClassIndex, RowPlan
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality, Part


def drawing(size: int, ink: int, width: int, where: tuple[int, int, int, int]) -> torch.Tensor:
    image = Image.new("L", (size, size), 255)
    ImageDraw.Draw(image).ellipse(where, outline=ink, width=width)
    return torch.from_numpy(np.array(image))[None]


def test_thin_grey_and_bold_black_lines_become_alike() -> None:
    thin = square_sketch(drawing(1000, 170, 3, (600, 100, 900, 400)), 64)
    bold = square_sketch(drawing(256, 0, 9, (10, 10, 240, 240)), 64)
    for view in (thin, bold):
        assert view.shape == (1, 64, 64)
        assert int(view.min()) < 30  # ink is dark
        box = ink_box(view)
        assert box is not None
        assert max(box[:2]) <= 6  # fills the square, up to the margin
        assert min(box[2:]) >= 58
    near = torch.nn.functional.max_pool2d((bold < 128).float(), 3, 1, 1) > 0
    assert ((thin < 128) & near).sum() / (thin < 128).sum() > 0.9  # the same circle, to a pixel


def test_aspect_ratio_is_kept_and_blank_stays_blank() -> None:
    image = torch.full((1, 200, 300), 255, dtype=torch.uint8)
    assert square_sketch(image, 32).eq(255).all()
    faint = image.clone()
    faint[0, 50, 50] = 245  # fainter than ink
    assert square_sketch(faint, 32).eq(255).all()
    image[0, 20:180, 100:104] = 0  # a vertical bar stays a vertical bar
    view = square_sketch(image, 64)
    box = ink_box(view)
    assert box is not None
    assert box[2] - box[0] > 10 * (box[3] - box[1])


@pytest.mark.parametrize("mode", ["inverted", "transparent", "transparent-light"])
def test_polarity_and_transparency_do_not_matter(mode: str) -> None:
    plain = drawing(128, 0, 5, (10, 10, 110, 110))
    grey = plain[0].numpy()
    if mode == "inverted":
        picture = Image.fromarray(255 - grey)
    else:
        alpha = 255 - grey
        ink = np.full_like(grey, 255 if mode.endswith("light") else 0)
        picture = Image.fromarray(np.stack([ink, ink, ink, alpha], -1), "RGBA")
    file = io.BytesIO()
    picture.save(file, "PNG")
    cleaned = clean(file.getvalue(), Modality.SKETCH, CleanOptions()).data
    assert cleaned is not None
    read = decode_sketch(np.frombuffer(cleaned, np.uint8))
    assert (read.int() - plain.int()).abs().max() <= 1


def test_image_and_score_map_move_together() -> None:
    """A bright marker in the photo and in its score map stay in the same place under crop and flip."""
    photo = torch.zeros(3, 224, 224, dtype=torch.uint8)
    photo[:, 32:48, 160:176] = 255
    scores = torch.zeros(14, 14)
    scores[2, 10] = 1
    found = 0
    for trial in range(60):
        crop = sample_crop(np.random.default_rng(trial), 0.3, flip=True)
        view = crop_image(photo, crop, 224)
        seen = crop_map(scores, crop)
        if view.max() < 255 or seen.max() < 0.5:
            continue  # the marker was cut off
        rows, columns = torch.nonzero(view[0] > 127, as_tuple=True)
        cell = divmod(int(seen.argmax()), 14)
        assert abs(float(rows.float().mean()) / 16 - 0.5 - cell[0]) <= 0.75
        assert abs(float(columns.float().mean()) / 16 - 0.5 - cell[1]) <= 0.75
        found += 1
    assert found > 20
    torch.testing.assert_close(crop_map(scores, Crop()), scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(crop_map(scores, Crop(flip=True)), scores.flip(1), atol=1e-5, rtol=0)


def test_jitter_changes_the_drawing_but_keeps_it_a_drawing() -> None:
    image = square_sketch(drawing(128, 0, 3, (20, 20, 100, 100)), 64)
    assert jitter_sketch(image, np.random.default_rng(0), 0) is image
    views = [jitter_sketch(image, np.random.default_rng(s), 1.0) for s in range(5)]
    assert all(v.shape == image.shape and v.dtype == torch.uint8 and int(v.min()) < 128 for v in views)
    assert len({v.numpy().tobytes() for v in views}) == 5
    photo = torch.randint(0, 255, (3, 16, 16), dtype=torch.uint8)
    assert jitter_color(photo, np.random.default_rng(0), 0.0) is photo
    assert not torch.equal(jitter_color(photo, np.random.default_rng(0), 1.0), photo)


@cases(60)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.integers(0, 10**6), st.integers(0, 3))
def test_plan_rows_pair_classes_rightly(labels: list[int], seed: int, negatives: int) -> None:
    sketches, photos = np.array(labels), np.array([*labels[::-1], 9, 9])
    make = lambda: RowPlan.build(  # noqa: E731
        sketches, photos, batch_size=8, steps_per_epoch=3, seed=seed, negatives=negatives, classes_per_batch=4
    )
    if len(set(labels)) < 2:
        with pytest.raises(DataError, match="at least 2"):
            make()
        return
    plan = make()
    rows = plan.batches(1)
    assert rows.shape == (3, 8, 2 + negatives)
    assert (sketches[rows[..., 0]] == photos[rows[..., 1]]).all()
    for column in range(2, 2 + negatives):
        assert (photos[rows[..., column]] != sketches[rows[..., 0]]).all()
    assert (rows == make().batches(1)).all()
    assert max(len(set(sketches[b[:, 0]])) for b in rows) == min(4, len(set(labels)))


def test_plan_draws_every_image_including_the_first_and_the_only_one() -> None:
    """The published sampler never draws file 0 and fails on classes of one image."""
    sketches, photos = np.array([0, 1, 1, 1]), np.array([0, 1, 1])
    plan = RowPlan.build(sketches, photos, batch_size=16, steps_per_epoch=20, seed=0)
    rows = np.concatenate([plan.batches(e).reshape(-1, 2) for e in range(2)])
    assert set(rows[:, 0]) == {0, 1, 2, 3}
    assert set(rows[:, 1]) == {0, 1, 2}
    assert not (plan.batches(0) == plan.batches(1)).all()


def test_class_index_finds_all_images_of_a_class() -> None:
    index = ClassIndex(np.array([3, 1, 3, 2, 1]))
    assert index.classes.tolist() == [1, 2, 3]
    assert sorted(index.order[index.starts[2] : index.starts[3]].tolist()) == [0, 2]
    assert index.only(np.array([3])).order.tolist() == [0, 2]


def test_items_depend_on_their_place_only(tiny_demo: object) -> None:
    prepared = PreparedSet.open(tiny_demo)  # type: ignore[arg-type]
    images = [prepared.images(Part.TRAIN, m) for m in Modality]
    config = DataConfig(size=32, flip=True, crop_scale=0.5, sketch_jitter=1, color_jitter=1)
    one, two = RowItems(*images, config, seed=3), RowItems(*images, config, seed=3)
    key = (2, 17, (0, 1, 5))
    first, again = one[key], two[key]
    assert set(first) == {"sketch", "photo", "photo_1", "label"}
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(one[(2, 18, (0, 1, 5))]["photo"], first["photo"])
    assert int(first["label"]) == int(images[0].labels[0])
    assert item_rng(0, 1, 2).random() != item_rng(0, 2, 1).random()
