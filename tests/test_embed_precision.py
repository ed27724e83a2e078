"""Embedding in bf16: close to fp32, or not done; what `auto` keeps, and how rows of both kinds stand in one file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from retrieval_helpers import follow, make_run, photos

from zssbir_cli.compute import precision as precisions
from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.embedding import embedder as embedders
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.types import Modality

CPU = torch.device("cpu")
Machine = Callable[[bool], None]


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def faster_in_bf16(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Makes this a machine that is faster in bf16, or not; any bf16 is close enough there."""
    monkeypatch.setattr(embedders, "LEAST_COSINE", -1.0)
    return lambda fast: monkeypatch.setattr(precisions, "cpu_has_fast_bf16", lambda: fast)


def test_bf16_stays_close_to_fp32(run: Path) -> None:
    images = torch.randint(
        0, 255, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    exact = Embedder(RunWeights(run), CPU, precision="fp32").method.embed(images, Modality.PHOTO)
    fast = Embedder(RunWeights(run), CPU, precision="bf16")
    with torch.inference_mode(), fast.precision.autocast():
        rounded = fast.method.embed(images, Modality.PHOTO).float()
    assert torch.cosine_similarity(exact, rounded).min() >= embedders.LEAST_COSINE
    assert fast.info().precision == fast.precision.name


def test_bf16_that_strays_falls_back_to_fp32(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders, "LEAST_COSINE", 1.1)
    assert Embedder(RunWeights(run), CPU, precision="bf16").precision.name == "fp32"


def test_a_pass_that_continues_on_another_device_keeps_the_precisions_apart(
    tmp_path: Path, run: Path, faster_in_bf16: Machine
) -> None:
    folder = photos(tmp_path / "photos", 8)
    faster_in_bf16(True)

    def stop(_: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow(run, folder, out=tmp_path / "a.h5", progress=stop)
    faster_in_bf16(False)
    mixed = read_embeddings(follow(run, folder, out=tmp_path / "a.h5").path)
    exact = read_embeddings(follow(run, folder, out=tmp_path / "b.h5").path)
    assert mixed.info.precision == "fp32"
    np.testing.assert_allclose(mixed.embedding, exact.embedding, atol=1e-6)


def test_auto_keeps_what_a_machine_that_is_faster_in_bf16_embedded(
    tmp_path: Path, run: Path, faster_in_bf16: Machine
) -> None:
    folder = photos(tmp_path / "photos", 4)
    faster_in_bf16(True)
    made = read_embeddings(follow(run, folder).path)
    faster_in_bf16(False)
    photos(folder, 6)
    kept = follow(run, folder)
    found = read_embeddings(kept.path)
    assert (kept.new, kept.kept, made.info.precision, found.info.precision) == (2, 4, "bf16", "bf16")
    exact = follow(run, folder, precision="fp32")
    assert (exact.new, read_embeddings(exact.path).info.precision) == (6, "fp32")
