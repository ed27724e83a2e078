"""Batch norm as a part of the convolution before it: the same function, gradients and state dict."""

import copy

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from zssbir_cli.models.folding import fold_batchnorm

NETWORKS = {
    "mobilenetv2_035": {},
    "test_efficientnet": {"pad_type": "same"},
    "resnet10t": {},
    "test_resnet": {},
}


def build(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=0, **options)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -1, 1)
    return model.double()


def norms_skipped(model: nn.Module) -> int:
    return sum(type(m).__name__ in ("_Norm", "_NormAct") for m in model.modules())


@pytest.mark.parametrize("name", NETWORKS)
def test_same_output_and_gradients_with_fixed_statistics(name: str) -> None:
    plain, folded = build(name, **NETWORKS[name]).eval(), build(name, **NETWORKS[name]).eval()
    assert fold_batchnorm(folded)
    assert norms_skipped(folded) > 5
    assert list(folded.state_dict()) == list(plain.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    a, b = plain(images), folded(images)
    torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)
    for model, out in ((plain, a), (folded, b)):
        out.square().sum().backward()
        assert all(p.grad is not None for p in model.parameters())
    for p, q in zip(plain.parameters(), folded.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        torch.testing.assert_close(q.grad, p.grad, rtol=1e-6, atol=1e-8 * float(p.grad.abs().max() + 1))


@pytest.mark.parametrize("kernel", [2, 3, 5, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, 3, (1, 2)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (65, 64), (7, 12), (2, 3)])
def test_padding_of_tensorflow(kernel: object, stride: object, dilation: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    layers = (Conv2dSame(3, 4, kernel, stride=stride, dilation=dilation, bias=False), nn.BatchNorm2d(4))
    plain = nn.Sequential(*layers).double().eval()
    folded = copy.deepcopy(plain)
    assert fold_batchnorm(folded)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(folded(images), plain(images), rtol=1e-9, atol=1e-9)


def test_layers_that_collect_statistics_work_as_before() -> None:
    plain, folded = build("mobilenetv2_035").train(), build("mobilenetv2_035").train()
    fold_batchnorm(folded)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(folded(images), plain(images))
    for (name, a), b in zip(plain.state_dict().items(), folded.state_dict().values(), strict=True):
        torch.testing.assert_close(b, a, msg=name)


def test_a_copy_uses_its_own_norms() -> None:
    folded = build("test_resnet").eval()
    fold_batchnorm(folded)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = folded(images)
    other = copy.deepcopy(folded)
    with torch.no_grad():
        for part in folded.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.mul_(3)
    torch.testing.assert_close(other(images), before)
    assert not torch.allclose(folded(images), before)


class Crossed(nn.Module):
    """Lists a norm behind a convolution whose output does not go through it."""

    def __init__(self, size_matters: bool = False) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.size = 96 if size_matters else 0

    def forward(self, x: Tensor) -> Tensor:
        if self.size and x.shape[-1] != self.size:
            raise ValueError("another size")
        return self.conv(x) + self.norm(x)


@pytest.mark.parametrize("size_matters", [False, True])
def test_what_would_change_the_network_is_left_alone(size_matters: bool) -> None:
    model = Crossed(size_matters).eval()
    images = torch.randn(2, 3, 96, 96)
    before = model(images)
    assert not fold_batchnorm(model)
    assert torch.equal(model(images), before)
    assert norms_skipped(model) == 0


def test_transformers_have_nothing_to_fold() -> None:
    assert not fold_batchnorm(timm.create_model("test_vit", num_classes=0))
