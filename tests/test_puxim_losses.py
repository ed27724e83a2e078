"""PuXIM's losses, masks and match decoder: formulas, gradients in float64, no mixing across samples."""

import pytest
import torch
from torch import nn

from zssbir_cli.errors import UsageError
from zssbir_cli.methods.puxim.decoder import MatchDecoder, interaction_loss, other_class
from zssbir_cli.methods.puxim.losses import (
    keep_mask,
    masked_count,
    reconstruction_loss,
    to_grid,
    triplet_loss,
)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_published_number_of_masked_tokens() -> None:
    assert masked_count(196, 0.7) == 138
    assert masked_count(196, 0.0) == 0
    assert masked_count(4, 0.99) == 3


def test_lowest_scores_are_masked() -> None:
    scores = torch.tensor([[0.3, 0.9, 0.1, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0, 1.0]])
    keep = keep_mask(scores, 0.5)  # int(2.5) + 1 = 3 of 5 masked
    assert keep.tolist() == [[False, True, False, True, False], [True, True, False, False, False]]
    assert keep_mask(scores, 0.0).all()
    assert keep_mask(scores, 0.5, "threshold", 0.5).tolist()[0] == [False, True, False, True, True]


def test_random_rule_keeps_as_many_and_ignores_scores() -> None:
    torch.manual_seed(0)
    scores = torch.arange(40.0).expand(500, -1)
    keep = keep_mask(scores, 0.7, "random")
    assert (keep.sum(1) == 40 - 29).all()
    assert abs(keep[:, :20].float().mean() - keep[:, 20:].float().mean()) < 0.03


def test_score_maps_move_to_the_token_grid() -> None:
    scores = torch.zeros(1, 4, 4)
    scores[0, :2, 2:] = 1
    assert to_grid(scores, (2, 2)).tolist() == [[0, 1, 0, 0]]
    assert to_grid(scores, (4, 4)).view(4, 4).equal(scores[0])
    assert to_grid(scores, (8, 8)).view(8, 8)[1, 6] == 1


def test_reconstruction_is_its_formula() -> None:
    x, keep = rand(2, 5, 3), torch.tensor([[1, 0, 1, 0, 0], [0, 1, 1, 1, 0]]).bool()
    m = keep[..., None].double()
    torch.testing.assert_close(reconstruction_loss(x, keep), nn.functional.mse_loss(x, m * x))
    torch.testing.assert_close(reconstruction_loss(x, keep), (x[~keep] ** 2).sum() / x.numel())
    norm = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(reconstruction_loss(x, keep, "norm"), nn.functional.mse_loss(x, m * norm))
    assert reconstruction_loss(torch.tensor([[[1.0, 1.0], [2.0, 0.0]]]), torch.tensor([[True, False]])) == 1


def test_reconstruction_leaves_kept_tokens_alone() -> None:
    x = rand(2, 5, 3).requires_grad_()
    keep = keep_mask(rand(2, 5, seed=1), 0.5)
    (grad,) = torch.autograd.grad(reconstruction_loss(x, keep), x)
    assert grad[keep].abs().max() == 0
    assert (grad[~keep] * x[~keep] > 0).all()


def test_triplet_is_torch_and_the_example() -> None:
    a, p, n = rand(3, 4, 6)
    torch.testing.assert_close(triplet_loss(a, p, n, 1.0), nn.TripletMarginLoss(1.0, 2)(a, p, n))
    one, two = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert triplet_loss(one, one, two, 1.2, "cosine") == pytest.approx(0.2)


def test_share_is_a_share_and_cannot_be_met_by_shrinking() -> None:
    tokens, keep = torch.tensor([[[1.0, 1.0], [2.0, 0.0]]]), torch.tensor([[True, False]])
    assert reconstruction_loss(tokens, keep, "share") == pytest.approx(4 / 6)
    x, keep = rand(2, 5, 3).requires_grad_(), keep_mask(rand(2, 5, seed=1), 0.5)
    energy = x.square().sum(2)
    share = ((energy * ~keep).sum(1) / energy.sum(1)).mean()
    torch.testing.assert_close(reconstruction_loss(x, keep, "share"), share)
    torch.testing.assert_close(reconstruction_loss(0.01 * x, keep, "share"), share)
    (grad,) = torch.autograd.grad(reconstruction_loss(x, keep, "share"), x)
    torch.testing.assert_close((grad * x).sum((1, 2)), torch.zeros(2).double())  # no pull along the scale
    assert reconstruction_loss(torch.zeros(1, 2, 3), torch.tensor([[True, False]]), "share") == 0


@pytest.mark.parametrize("target", ["mask", "share", "norm"])
def test_gradients_of_the_losses(target: str) -> None:
    keep = torch.tensor([[True, False, True], [False, False, True]])
    x = rand(2, 3, 4).requires_grad_()
    if target != "norm":
        assert torch.autograd.gradcheck(lambda t: reconstruction_loss(t, keep, target), (x,))
    else:  # the target is a constant, which finite differences cannot see
        goal = nn.functional.layer_norm(x.detach(), (4,)) * keep[..., None]
        (grad,) = torch.autograd.grad(reconstruction_loss(x, keep, "norm"), x)
        torch.testing.assert_close(grad, 2 * (x - goal) / x.numel())
    a, p, n = (t.requires_grad_() for t in rand(3, 4, 6))
    for distance in ("euclidean", "cosine"):
        assert torch.autograd.gradcheck(lambda *v, d=distance: triplet_loss(*v, 1.0, d), (a, p, n))


def decoder(dim: int = 8, **options: int) -> MatchDecoder:
    torch.manual_seed(3)
    return MatchDecoder(dim, layers=2, heads=2, ff=12, dropout=0.0, **options).double()


def test_gradients_of_the_interaction() -> None:
    head = decoder()
    keep = torch.tensor([[True, False, True], [True, True, False], [False, True, True], [True, False, False]])
    inputs = [t.requires_grad_() for t in rand(3, 2, 3, 8)]
    rows = torch.arange(2)

    def loss(s: torch.Tensor, p: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return interaction_loss(head, s, torch.cat([p, n]), keep, rows, rows + 2)[0]

    assert torch.autograd.gradcheck(loss, inputs)


def test_samples_are_not_mixed() -> None:
    head = decoder()
    sketch, photo = rand(4, 5, 8).requires_grad_(), rand(4, 6, 8, seed=1).requires_grad_()
    keep = keep_mask(rand(4, 6, seed=2), 0.5)
    logits = head(sketch, photo, keep)
    for i in range(4):  # row i of the result depends on sample i and on nothing else
        grads = torch.autograd.grad(logits[i].sum(), (sketch, photo), retain_graph=True)
        others = [j for j in range(4) if j != i]
        for grad in grads:
            assert grad[i].abs().max() > 0
            assert grad[others].abs().max() == 0
        torch.testing.assert_close(head(sketch[i : i + 1], photo[i : i + 1], keep[i : i + 1])[0], logits[i])
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(head(sketch[order], photo[order], keep[order]), logits[order])


def test_masked_photo_tokens_are_not_seen() -> None:
    head = decoder(width=4)
    sketch, photo, keep = rand(2, 5, 8), rand(2, 6, 8, seed=1), keep_mask(rand(2, 6, seed=2), 0.5)
    changed = torch.where(keep[..., None], photo, torch.full_like(photo, 1e6))
    torch.testing.assert_close(head(sketch, changed, keep), head(sketch, photo, keep))
    assert not torch.allclose(head(sketch, photo + 1, keep), head(sketch, photo, keep))


def test_next_photo_of_another_class() -> None:
    assert other_class(torch.tensor([7, 7, 3, 7, 1])).tolist() == [2, 2, 3, 4, 0]
    assert other_class(torch.tensor([2, 2])).tolist() == [0, 1]


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(UsageError, match="decoder_heads 4"):
        MatchDecoder(10, heads=4)
