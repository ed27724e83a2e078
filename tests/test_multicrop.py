"""The multi-crop views: what they are cut from, their distributions, their independence of anything but the item."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as tv

from zssbir_cli.methods.ama import views as multicrop
from zssbir_cli.methods.ama.config import ViewsConfig
from zssbir_cli.methods.ama.views import (
    as_drawing,
    color_jitter,
    crop_box,
    drawing_views,
    jitter_matrix,
    multi_crop,
)

VIEWS = ViewsConfig(local_size=24, locals=3, drawings=2)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photo(size: int = 64, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Blobs of moderate colours, so that clipping matters little."""
    small = rng(seed).uniform(60, 200, (5, 5, 3))
    picture = np.asarray(
        Image.fromarray(small.astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    )
    return picture if channels == 3 else picture[..., :1]


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_and_types(channels):
    wide, near = multi_crop(tensor(photo(channels=channels)), VIEWS, 40, rng())
    assert (wide.shape, near.shape) == ((2, channels, 40, 40), (3, channels, 24, 24))
    assert wide.dtype == near.dtype == torch.uint8
    assert drawing_views(tensor(photo(channels=channels)), VIEWS, 40, rng()).shape == (2, 1, 40, 40)
    bare = ViewsConfig(locals=0)
    assert multi_crop(tensor(photo(channels=channels)), bare, 224, rng())[1].shape == (0, channels, 96, 96)
    assert drawing_views(tensor(photo()), bare, 224, rng()).shape == (0, 1, 224, 224)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (300, 2), (7, 900)])
def test_odd_image_sizes(shape):
    image = torch.full((3, *shape), 128, dtype=torch.uint8)
    wide, near = multi_crop(image, VIEWS, 40, rng())
    assert wide.shape[2:] == (40, 40)
    assert near.shape[2:] == (24, 24)
    assert drawing_views(image, VIEWS, 40, rng()).shape == (2, 1, 40, 40)


def test_the_generator_decides_everything():
    image = tensor(photo())
    np.random.seed(1)
    torch.manual_seed(1)
    first = [*multi_crop(image, VIEWS, 40, rng(7)), drawing_views(image, VIEWS, 40, rng(7))]
    np.random.seed(2)
    torch.manual_seed(2)
    again = [*multi_crop(image, VIEWS, 40, rng(7)), drawing_views(image, VIEWS, 40, rng(7))]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], multi_crop(image, VIEWS, 40, rng(8))[0])
    assert not torch.equal(first[1][0], first[1][1])


def test_crop_boxes_have_torchvisions_distribution():
    shape, scale = (60, 90), (0.2, 0.6)
    ours = np.array([crop_box(*shape, scale, r) for r in [rng(1)] for _ in range(4000)], float)
    torch.manual_seed(0)
    blank = torch.zeros(3, *shape)
    theirs = np.array(
        [tv.RandomResizedCrop.get_params(blank, list(scale), [3 / 4, 4 / 3]) for _ in range(4000)], float
    )
    for boxes in (ours, theirs):
        boxes[:, 0] += boxes[:, 2] / 2  # centre
        boxes[:, 1] += boxes[:, 3] / 2
    error = theirs.std(0) / math.sqrt(2000)
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.06)
    area = ours[:, 2] * ours[:, 3] / (60 * 90)
    assert 0.19 < area.min() < area.max() < 0.61


def test_colour_jitter_has_torchvisions_distribution():
    image = photo()
    torch.manual_seed(0)
    jitter, source = tv.ColorJitter(0.4, 0.4, 0.2, 0.1), Image.fromarray(image)
    theirs = [np.asarray(jitter(source)) for _ in range(500)]
    generator, mean = rng(0), image.reshape(-1, 3).mean(0).astype(np.float32)
    ours = [multicrop.cv2.transform(image, jitter_matrix(mean, generator)) for _ in range(500)]

    def moments(images: list[np.ndarray]) -> np.ndarray:
        x = np.stack(images).astype(float)
        levels = x.mean((1, 2, 3))
        return np.array([levels.mean(), levels.std(), x.std((1, 2, 3)).mean(), x.std(3).mean()])

    np.testing.assert_allclose(moments(ours), moments(theirs), rtol=0.08)


def test_jitter_is_affine_and_keeps_grey_grey():
    for seed in range(20):
        matrix = jitter_matrix(np.full(3, 100, np.float32), rng(seed))
        out = matrix[:, :3] @ np.full(3, 77.0) + matrix[:, 3]
        np.testing.assert_allclose(out, out[0], rtol=1e-2)
    np.testing.assert_allclose(
        jitter_matrix(np.full(3, 9.0, np.float32), rng(), 0.0), np.eye(3, 4), atol=1e-3
    )


def test_one_channel_is_jittered_as_three_equal_ones():
    grey = photo(channels=1)
    for seed in range(10):
        one = color_jitter(grey, rng(seed))
        three = color_jitter(np.repeat(grey, 3, 2), rng(seed))
        assert int(np.abs(one.astype(int) - three[..., :1]).max()) <= 1


def test_first_global_is_blurred_second_may_be_solarised():
    noise = rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    plain = ViewsConfig(local_size=24, locals=0, global_scale=(1, 1), local_scale=(1, 1), blur=2, color=0)
    rough, bright = [], []
    for seed in range(60):
        wide, _ = multi_crop(tensor(noise), plain, 40, rng(seed))
        rough.append([float(v.float().diff(dim=2).abs().mean()) for v in wide])
        light = multi_crop(tensor(np.full((64, 64, 3), 250, np.uint8)), plain, 40, rng(seed))[0]
        bright.append([float(v.float().mean()) for v in light])
    rough, bright = np.array(rough), np.array(bright)
    assert rough[:, 0].mean() < 0.6 * rough[:, 1].mean()
    assert (bright[:, 0] > 200).all()
    assert 0.05 < (bright[:, 1] < 100).mean() < 0.4  # chance 0.2


def test_drawings_are_dark_strokes_on_white_where_the_edges_are():
    image = np.full((96, 96, 3), 200, np.uint8)
    image[30:66, 30:66] = (40, 80, 60)
    for seed in range(8):
        paper = as_drawing(image, rng(seed))
        assert paper.shape == (96, 96, 1)
        ink = 255 - paper[..., 0].astype(int)
        assert ink[:20].mean() < 5  # empty ground stays white
        assert ink[44:52, 44:52].mean() < 5  # so does the inside
        assert ink[26:34, 40:56].max() > 100  # the edge is drawn
    assert not np.array_equal(as_drawing(image, rng(0)), as_drawing(image, rng(1)))
