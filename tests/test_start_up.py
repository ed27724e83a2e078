"""What a command imports: timm and torchvision take longer to import than PyTorch, and are left out where no network is built."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from prepare_helpers import make_folder
from retrieval_helpers import make_run
from torch import nn
from torchvision.transforms.v2 import functional as tvf

from zssbir_cli.compute.precision import Precision
from zssbir_cli.data.square import resize
from zssbir_cli.embedding.ready import KEPT, keep_ready, load_ready, ready_file
from zssbir_cli.files import cache_folder
from zssbir_cli.models import timm_records
from zssbir_cli.models.timm_records import find_backbone
from zssbir_cli.types import Modality

LATE = ("timm", "torchvision", "torch._dynamo")


@pytest.fixture(autouse=True)
def _no_network_is_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests search with the same weights."""
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path / "cache"))


def imported(*arguments: str | Path, late: tuple[str, ...] = LATE) -> list[str]:
    """Which of the modules `late` a command has imported at its end."""
    code = (
        "import sys\nfrom zssbir_cli.__main__ import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"print('imported', *[m for m in {late!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("line", [["recipes"], ["recipes", "nowhere"], ["--help"]])
def test_objects_that_stay_are_not_searched_for_garbage(line: list[str]) -> None:
    """Neither when thousands of them are imported, nor when the process ends, which would take a second with timm."""
    code = (
        "import gc, sys\nfrom zssbir_cli.__main__ import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print('frozen', gc.get_freeze_count() > 1000, gc.get_threshold()[0] >= 10_000, gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "frozen True True True"


def test_eval_and_embed_build_no_network_for_rows_at_hand(
    tmp_path: Path, tiny_recipe: Path, photo_gallery: tuple[Path, Path]
) -> None:
    run = make_run(tmp_path / "run", tiny_recipe)
    assert "timm" in imported("eval", "--no-baselines", "--run", run)
    assert imported("eval", "--no-baselines", "--run", run) == []
    embed = ("embed", "--run", run, "--photos", photo_gallery[0], "--out", tmp_path / "e.h5")
    assert "timm" in imported(*embed)
    assert imported(*embed) == []


def test_own_pictures_are_prepared_without_what_only_benchmarks_and_the_demo_need(tmp_path: Path) -> None:
    late = (
        "torch",
        "yaml",
        "http.client",
        "multiprocessing.connection",
        "xml.parsers.expat",
        "zssbir_cli.demo",
    )
    source = make_folder(tmp_path / "own")
    assert imported("prepare", source, "--unseen", "2", "--out", tmp_path / "set", late=late) == []


def test_the_second_search_builds_no_network(photo_gallery: tuple[Path, Path], tmp_path: Path) -> None:
    photos, run = photo_gallery
    query = next(photos.rglob("*.jpg"))
    results = [tmp_path / f"{i}.json" for i in (1, 2)]
    search = ("search", "--like", query, "--photos", photos, "--run", run, "--out")
    assert "timm" in imported(*search, results[0])
    assert imported(*search, results[1]) == []
    assert results[0].read_text() == results[1].read_text()


class Method(nn.Module):
    """Rows of three numbers; `odd` ones depend on how many images come at once."""

    def __init__(self, *, odd: bool = False) -> None:
        super().__init__()
        self.odd, self.scale = odd, nn.Parameter(torch.tensor([1.0, 2.0, 3.0]))

    def embed(self, images: torch.Tensor, modality: Modality) -> torch.Tensor:
        rows = images.float().mean((2, 3)).expand(-1, 3) * self.scale + int(modality)
        return rows * 2 if self.odd and len(images) > 1 else rows


FP32 = Precision("fp32", torch.device("cpu"))


def test_a_ready_network_gives_the_same_bits(tmp_path: Path) -> None:
    method, file = Method().eval(), tmp_path / "n.pt"
    assert keep_ready(file, method, 32, FP32)
    found = load_ready(file, FP32.device)
    assert found is not None
    images = torch.randint(0, 256, (5, 1, 32, 32), dtype=torch.uint8)
    assert found[1] == FP32
    for modality in Modality:
        assert torch.equal(found[0].embed(images, modality), method.embed(images, modality))


def test_a_network_that_cannot_be_traced_is_not_kept(tmp_path: Path) -> None:
    assert not keep_ready(tmp_path / "n.pt", Method(odd=True).eval(), 32, FP32)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_network_is_not_used(tmp_path: Path, place: int) -> None:
    file = tmp_path / "n.pt"
    assert keep_ready(file, Method().eval(), 32, FP32)
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)
    assert load_ready(file, FP32.device) is None


def test_the_networks_used_last_are_kept(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.pt" for i in range(KEPT)]
    for i, file in enumerate(files):
        keep_ready(file, Method().eval(), 32, FP32)
        os.utime(file, (i, i))
    os.utime(files[0], (99, 99))
    keep_ready(tmp_path / "new.pt", Method().eval(), 32, FP32)
    assert set(tmp_path.iterdir()) == {files[0], *files[2:], tmp_path / "new.pt"}


def test_networks_are_told_apart() -> None:
    assert (
        len(
            {ready_file(*key) for key in (("a", "b", "c"), ("a", "b", "d"), ("a", "d", "c"), ("d", "b", "c"))}
        )
        == 4
    )


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of timm's records, in an empty cache."""
    monkeypatch.setenv("ZSSBIR_CACHE", str(tmp_path / "cache"))
    find_backbone.cache_clear()
    return cache_folder() / f"timm-{timm.__version__}.json"


@pytest.mark.parametrize("name", ["mobilenetv2_100", "test_vit.r160_in1k", "efficientnet_cc_b0_4e"])
def test_the_record_of_a_backbone_is_timms(kept: Path, name: str) -> None:
    found, config = find_backbone(name), timm.get_pretrained_cfg(name)
    assert found is not None
    assert config is not None
    assert (found.mean, found.std, found.size) == (config.mean, config.std, config.input_size[1])
    assert found.has_weights == timm.is_model_pretrained(name)
    assert found.hub == (config.hf_hub_id or "")
    find_backbone.cache_clear()
    assert kept.is_file()
    assert find_backbone(name) == found


def test_unknown_names_are_not_kept(kept: Path) -> None:
    assert find_backbone("mobilnet") is None
    assert find_backbone("mobilenetv2_100.nonsense") is None
    assert not kept.exists()


@pytest.mark.parametrize("text", ["", "[]", '{"test_vit": {}}', '{"test_vit": 1}'])
def test_a_damaged_record_is_written_again(kept: Path, text: str) -> None:
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert find_backbone("test_vit") is not None
    assert "test_vit" in json.loads(kept.read_text())


@pytest.mark.parametrize("in_bytes", [True, False])
def test_resizing_is_torchvisions(in_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.transforms.v2.functional import _geometry

    monkeypatch.setattr("zssbir_cli.data.square._IN_BYTES", in_bytes)
    monkeypatch.setattr(_geometry, "_do_native_uint8_resize_on_cpu", lambda interpolation: in_bytes)
    rng = np.random.default_rng(0)
    for height, width, size in ((40, 90, 32), (33, 17, 64), (200, 121, 96), (50, 60, 50)):
        pixels = torch.from_numpy(rng.integers(0, 256, (height + 4, width + 4, 3), dtype=np.uint8))
        last = pixels.permute(2, 0, 1)
        for image in (last, last.contiguous(), last[:1], last[:, 2:-2, 3:-1]):
            assert torch.equal(resize(image, size), tvf.resize(image, [size, size], antialias=True))


def test_the_cache_may_be_read_only(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(timm_records.files, "write_json", refuse)
    assert find_backbone("test_vit") is not None
