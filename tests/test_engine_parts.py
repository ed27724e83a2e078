"""Parts of the engine by themselves: schedules, optimizers, precisions, the average, the embedding pass."""

import pytest
import torch
from torch import nn

from zssbir_cli.compute import precision
from zssbir_cli.compute.precision import Precision, choose_device, cpu_has_fast_bf16
from zssbir_cli.compute.seeds import seed_all
from zssbir_cli.embedding.embedder import embed_all
from zssbir_cli.engine.averages import Ema
from zssbir_cli.engine.step import build_optimizer, lr_at
from zssbir_cli.errors import UsageError
from zssbir_cli.recipe.schema import OptimConfig

CPU = Precision("fp32", torch.device("cpu"))


def test_schedule():
    config = OptimConfig(lr=1.0, warmup_steps=4, final_lr=0.1)
    assert [lr_at(s, 14, config) for s in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert lr_at(4, 14, config) == 1.0
    assert lr_at(9, 14, config) == pytest.approx(0.55)
    assert lr_at(14, 14, config) == pytest.approx(0.1)
    assert lr_at(13, 14, OptimConfig(lr=1.0, schedule="constant")) == 1.0


def test_adamw_spares_biases_and_keeps_group_settings():
    net = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    groups = [
        {"params": list(net[0].parameters()), "lr_scale": 0.1},
        {"params": list(net[1].parameters()), "lr_scale": 1.0},
    ]
    optimizer = build_optimizer(groups, OptimConfig(weight_decay=0.05))
    found = [(len(g["params"]), g["weight_decay"], g["lr_scale"]) for g in optimizer.param_groups]
    assert found == [(1, 0.05, 0.1), (1, 0.0, 0.1), (2, 0.0, 1.0)]


def test_nothing_to_train_is_an_error():
    net = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(UsageError, match="no trainable"):
        build_optimizer([{"params": list(net.parameters())}], OptimConfig())


def test_devices_and_precisions_that_are_not_there():
    assert choose_device("cpu").type == "cpu"
    for name in ("tpu", "cuda:x", "cpu:1"):
        with pytest.raises(UsageError, match="--device"):
            choose_device(name)
    cpu = torch.device("cpu")
    for name in ("fp16", "tf32"):
        with pytest.raises(UsageError, match="needs a CUDA GPU"):
            Precision.choose(name, cpu)
    assert Precision.choose("auto", cpu).name == ("bf16" if cpu_has_fast_bf16() else "fp32")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("vendor_id : AuthenticAMD\nflags : sse2 avx512_bf16", True),
        ("vendor_id : GenuineIntel\nflags : sse2 avx512_bf16", False),
        ("flags : sse2 amx_bf16", True),
        ("flags : sse2 avx2", False),
        ("", False),
    ],
)
def test_bf16_on_a_cpu_follows_the_processor(monkeypatch, line, found):
    monkeypatch.setattr(precision.Path, "read_text", lambda *_: f"processor : 0\n{line}\n")
    monkeypatch.setattr(precision.platform, "machine", lambda: "x86_64")
    cpu_has_fast_bf16.cache_clear()
    try:
        assert cpu_has_fast_bf16() == found
    finally:
        cpu_has_fast_bf16.cache_clear()


def test_bf16_autocast_computes_in_bf16():
    with Precision.choose("bf16", torch.device("cpu")).autocast():
        assert nn.Linear(4, 4)(torch.ones(2, 4)).dtype is torch.bfloat16


@pytest.mark.parametrize("workers", [0, 2])
def test_embed_all_keeps_order_and_every_row(workers):
    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 11

        def __getitem__(self, i):
            return torch.full((3, 2, 2), i, dtype=torch.uint8)

    def embed(images):
        return torch.stack([images.float().mean((1, 2, 3)), images[:, 0, 0, 0] * 2.0], 1)

    done = []
    result = embed_all(
        embed,
        Images(),
        batch_size=4,
        workers=workers,
        precision=CPU,
        progress=lambda _, n, __: done.append(n),
    )
    assert torch.equal(result, torch.arange(11).float()[:, None] * torch.tensor([1.0, 2.0]))
    assert done == [0, 4, 8, 11]


def test_ema_follows_its_formula():
    module = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        module.weight.fill_(0.0)
        ema = Ema(module, 0.5)
        expected = 0.0
        for n in range(12):
            module.weight.fill_(float(n))
            ema.update(torch.tensor(0.0))
            decay = min(0.5, (1 + n) / (10 + n))
            expected = decay * expected + (1 - decay) * n
    assert float(ema.average["weight"]) == pytest.approx(expected)


def test_seeds_depend_on_every_part_of_their_key():
    def draw(*key: int) -> float:
        seed_all(*key)
        return float(torch.rand(()))

    assert draw(0, 1, 0) == draw(0, 1, 0)
    assert len({draw(0, 1, 0), draw(1, 0, 0), draw(0, 0, 1), draw(10), draw(1, 0), draw(0, -1)}) == 6
