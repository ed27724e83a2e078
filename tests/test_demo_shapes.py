"""The demo's shapes, sketches and photos: deterministic, complete, inside the frame, masks exact."""

from itertools import pairwise

import numpy as np
import pytest

from zssbir_cli.demo import CLASSES, draw_photo, draw_sketch
from zssbir_cli.demo.classes import draw_instance
from zssbir_cli.demo.geometry import resample, tube
from zssbir_cli.demo.photo import draw_scene
from zssbir_cli.errors import UsageError

SOME = ("cup", "bicycle", "house", "snail", "key", "umbrella")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_enough_classes_with_proper_names() -> None:
    assert len(CLASSES) >= 40
    assert list(CLASSES) == sorted(set(CLASSES))
    assert all(name.replace("_", "").isalpha() and name == name.lower() for name in CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_instances_vary_and_fill_their_frame(name: str) -> None:
    forms = set()
    for i in range(12):
        parts = draw_instance(name, rng(i))
        low = np.min([p.points.min(0) - p.width / 2 for p in parts], axis=0)
        high = np.max([p.points.max(0) + p.width / 2 for p in parts], axis=0)
        assert np.isclose((high - low).max(), 2)
        assert np.allclose(low + high, 0)
        assert all(p.points.ndim == 2 and p.points.shape[1] == 2 and len(p.points) >= 2 for p in parts)
        assert all(np.isfinite(p.points).all() and p.tone in range(4) for p in parts)
        forms.add(round(float(np.abs(np.concatenate([p.points for p in parts])).mean()), 5))
    assert len(forms) >= 10


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("name", CLASSES)
def test_sketches_are_ink_inside_a_white_frame(name: str, size: int) -> None:
    for i in range(2):
        image = draw_sketch(name, rng(i), size)
        assert image.shape == (size, size)
        assert image.dtype == np.uint8
        border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (border == 255).all()
        ink = image < 200
        assert 0.003 < ink.mean() < 0.5
        rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
        assert max(np.ptp(rows), np.ptp(columns)) > 0.55 * size


@pytest.mark.parametrize("name", CLASSES)
def test_photos_show_the_object_in_every_class(name: str) -> None:
    for size in (48, 128):
        photo, mask = draw_photo(name, rng(3), size)
        assert photo.shape == (size, size, 3)
        assert photo.dtype == np.uint8
        assert mask.shape == (size, size)
        assert mask.dtype == np.bool_
        assert 0.01 < mask.mean() < 0.8
        assert photo.std() > 5


def test_large_sizes_draw() -> None:
    photo, mask = draw_photo("guitar", rng(1), 224)
    assert photo.shape == (224, 224, 3)
    assert mask.any()
    assert draw_sketch("guitar", rng(1), 224).min() < 120


def test_the_same_generator_state_gives_the_same_bytes() -> None:
    for name in SOME:
        a, b = (draw_photo(name, rng(5), 96, 0.6) for _ in range(2))
        assert (a[0] == b[0]).all()
        assert (a[1] == b[1]).all()
        assert (draw_sketch(name, rng(5)) == draw_sketch(name, rng(5))).all()
        assert (draw_photo(name, rng(6), 96, 0.6)[0] != a[0]).any()
        assert (draw_sketch(name, rng(6)) != draw_sketch(name, rng(5))).any()


@pytest.mark.parametrize("ambiguity", [0.0, 0.4, 1.0])
def test_the_mask_is_where_the_object_changes_the_photo(ambiguity: float) -> None:
    for i, name in enumerate(SOME):
        shown = draw_scene(name, rng(i), 128, ambiguity)
        empty = draw_scene(name, rng(i), 128, ambiguity, with_object=False)
        changed = (shown.photo != empty.photo).any(axis=2)
        near = grown(shown.mask)
        # anti-aliased outlines may reach one pixel beyond the mask and, behind blurred things, a few more
        assert (changed & ~near).sum() <= 0.03 * shown.mask.sum()
        assert (changed & shown.mask).sum() >= 0.9 * shown.mask.sum()
        assert (empty.mask == shown.mask).all()
        assert not (shown.mask & shown.clutter).any()


def grown(mask: np.ndarray) -> np.ndarray:
    """The mask and the pixels that touch it."""
    padded = np.pad(mask, 1)
    return np.any([padded[1 + y : 129 + y, 1 + x : 129 + x] for y in (-1, 0, 1) for x in (-1, 0, 1)], axis=0)


def test_ambiguity_is_how_much_of_other_classes_is_seen() -> None:
    levels = (0.0, 0.25, 0.5, 0.75, 1.0)
    areas = [
        np.mean([draw_scene(CLASSES[i], rng(i), 96, a).clutter.mean() for i in range(16)]) for a in levels
    ]
    assert areas[0] == 0
    assert all(b > a + 0.01 for a, b in pairwise(areas))


def test_ambiguity_hides_the_object_only_in_part() -> None:
    for i in range(16):
        free = draw_scene(CLASSES[i], rng(i), 96, 0.0).mask.sum()
        crowded = draw_scene(CLASSES[i], rng(i), 96, 1.0).mask.sum()
        assert 0.45 * free < crowded <= free


def test_colours_say_nothing_about_the_class() -> None:
    """The mean colour of an object varies far more within a class than between classes."""
    means = np.array(
        [
            [photo[mask].mean(0) for photo, mask in (draw_photo(n, rng(i), 48, 0.0) for i in range(10))]
            for n in SOME
        ]
    )
    assert means.mean(1).std(0).max() < 0.75 * means.std(1).mean()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UsageError, match="'cow'"):
        draw_photo("cow", rng(0))
    with pytest.raises(UsageError, match="'cow'"):
        draw_sketch("cow", rng(0))
    with pytest.raises(UsageError, match=r"1\.5"):
        draw_photo("cup", rng(0), ambiguity=1.5)


def test_paths_are_resampled_and_thickened() -> None:
    square = np.array([(0.0, 0.0), (1, 0), (1, 1), (0, 1)])
    path = resample(square, 0.1, closed=True)
    assert np.allclose(path[0], path[-1])
    assert np.allclose(np.hypot(*np.diff(path, axis=0).T), 0.1)
    (outline,) = tube(np.array([(0.0, 0.0), (1, 0)]), 0.2, closed=False)
    assert np.allclose(np.abs(outline[:, 1]), 0.1)
    outer, inner = tube(square, 0.2, closed=True)
    assert len(outer) == len(inner)
