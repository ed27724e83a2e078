"""Loading in processes of every kind: the same bits as in one."""

import pytest
import torch
from prepare_helpers import make_folder
from torch.utils.data import DataLoader, Dataset

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.inputs.datasets import EvalImages, RowItems
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.recipe.schema import DataConfig
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import prepare_own

CONFIG = DataConfig(size=24, flip=True, crop_scale=0.5, sketch_jitter=0.7, color_jitter=0.5)
KEYS = [[(epoch, i, (i % 3, i % 2, (i + 1) % 2)) for i in range(5)] for epoch in range(3)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> PreparedSet:
    """A few pictures of a few classes. Read only."""
    root = tmp_path_factory.mktemp("loading")
    source = make_folder(root / "pictures", photos=3, sketches=3)
    choices = Choices(unseen="1", val_classes=1)
    return PreparedSet.open(prepare_own([source], out=root / "set", choices=choices).root)


class Views(Dataset[dict[str, torch.Tensor]]):
    """Augmented training items, and the photo of each as it is."""

    def __init__(self, prepared: PreparedSet) -> None:
        sketches, photos = (prepared.images(Part.TRAIN, m) for m in (Modality.SKETCH, Modality.PHOTO))
        photos.read(0)  # an open file must not come along
        self.rows, self.photos = RowItems(sketches, photos, CONFIG, seed=3), EvalImages(photos, 24)

    def __getitem__(self, key: tuple[int, int, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        return {**self.rows[key], "plain": self.photos[key[2][1]]}


def batches(prepared: PreparedSet, workers: int, method: str | None) -> list[dict[str, torch.Tensor]]:
    """All batches of `KEYS`."""
    views = Views(prepared)
    return list(DataLoader(views, batch_sampler=KEYS, num_workers=workers, multiprocessing_context=method))


@pytest.mark.parametrize(("workers", "method"), [(1, "fork"), (2, "fork"), (2, "spawn"), (2, "forkserver")])
def test_any_number_and_kind_of_workers_give_the_same_bits(
    prepared: PreparedSet, workers: int, method: str
) -> None:
    expected, found = batches(prepared, 0, None), batches(prepared, workers, method)
    assert len(expected) == len(found) == 3
    for a, b in zip(expected, found, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
