"""AMA's losses: equal to the published programs' values, to naive loops, and differentiable.

golden/ama.npz: outputs of the published loss functions of AMA (DINO, STML and UCDIR lineage) on stored
inputs.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from zssbir_cli.methods.ama import losses


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return {
        k: torch.from_numpy(np.asarray(v))
        for k, v in np.load(Path(__file__).parent / "golden/ama.npz").items()
    }


def unit(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return F.normalize(
        torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype), dim=-1
    )


def test_self_distillation_equals_published_values_over_a_warm_up(golden):
    center = torch.zeros(64)
    student, teacher = golden["dino_student"].view(4, 6, 64), golden["dino_teacher"].view(2, 6, 64)
    for temperature, expected in zip(
        (0.04, 0.055, 0.07, 0.07), golden["dino_losses_epochs_0_1_2_5"], strict=True
    ):
        targets = losses.teacher_targets(teacher, center, temperature=temperature)
        torch.testing.assert_close(
            losses.self_distillation(student, targets), expected.float(), rtol=1e-6, atol=0
        )
        center = center.lerp(teacher.mean((0, 1)), 0.1)
    torch.testing.assert_close(center[None], golden["dino_center"])


def test_self_distillation_equals_naive_pairs():
    student = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(1))
    targets = torch.softmax(torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(2)) * 3, -1)
    pairs = [
        -(targets[q, i] * F.log_softmax(student[v, i] / 0.1, 0)).sum()
        for q in range(2)
        for v in range(5)
        for i in range(3)
        if v != q
    ]
    torch.testing.assert_close(losses.self_distillation(student, targets), torch.stack(pairs).mean())


@pytest.mark.parametrize("modality", ["sketch", "photo"])
@pytest.mark.parametrize("level", [0, 1])
def test_cluster_contrast_equals_published_values(golden, modality, level):
    views = golden[f"cc_student_{modality}"].view(5, 6, 16)
    own = golden[f"cc_assign_{modality}"][level : level + 1, :6]
    loss, _ = losses.cluster_contrast(
        views,
        golden[f"cc_teacher_{modality}"][:6],
        losses.hierarchical_mask(own),
        own,
        [golden[f"cc_prototypes_{modality}"][level]],
        thresholds=[0.2],
    )
    expected = golden[f"cc_level{level}_sketch_photo"][["sketch", "photo"].index(modality)]
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)


def test_two_level_mask_and_contrast_equal_naive_loops():
    generator = torch.Generator().manual_seed(3)
    own = torch.stack(
        [torch.randint(0, 2, (9,), generator=generator), torch.randint(0, 3, (9,), generator=generator)]
    )
    views, teacher, prototypes = (
        unit(4, 9, 6, seed=4),
        unit(9, 6, seed=5),
        [unit(2, 6, seed=6), unit(3, 6, seed=7)],
    )
    thresholds, total, kept = [0.45, 0.3], 0.0, []
    for level in range(2):
        rows = []
        for i in range(9):
            chance = torch.softmax(prototypes[level].float() @ teacher[i].float() / 0.2, 0)
            if chance[own[level, i]] <= thresholds[level]:
                continue
            score = torch.stack([views[0, i] @ views[v, j] / 0.2 for v in range(1, 4) for j in range(9)])
            log_prob = torch.log_softmax(score, 0).view(3, 9)
            same = [j for j in range(9) if all(own[m, i] == own[m, j] for m in range(level + 1))]
            rows.append(log_prob[:, same].mean())
        kept.append(len(rows) / 9)
        total += -torch.stack(rows).mean() / 2
    loss, share = losses.cluster_contrast(
        views, teacher, losses.hierarchical_mask(own), own, prototypes, thresholds=thresholds
    )
    assert 0 < min(kept) < 1  # some rows are dropped, some kept
    torch.testing.assert_close(loss.double(), total, rtol=1e-5, atol=0)
    assert share.tolist() == pytest.approx(kept)


def test_cluster_contrast_without_anchors_is_zero_and_has_a_gradient():
    views, own = unit(3, 4, 5).requires_grad_(), torch.zeros(1, 4, dtype=torch.int64)
    loss, kept = losses.cluster_contrast(
        views, unit(4, 5, seed=1), losses.hierarchical_mask(own), own, [unit(2, 5, seed=2)], thresholds=[1.0]
    )
    loss.backward()
    assert loss.item() == 0.0
    assert kept.tolist() == [0.0]
    assert bool(torch.isfinite(views.grad).all())


def test_largest_own_cluster_probability_is_what_the_docs_say():
    """Why an absolute threshold of 0.2 drops every anchor at K = 1000."""
    for k, expected in ((250, 0.373), (500, 0.229), (1000, 0.129)):
        chance = torch.softmax(torch.eye(k)[0] / 0.2, 0)[0]
        assert chance.item() == pytest.approx(expected, abs=5e-4)


def test_similarity_guidance_equals_published_value_and_gradient(golden):
    student = golden["sg_student"].clone().requires_grad_()
    weights = losses.context_weights(F.normalize(golden["sg_teacher"], dim=1))
    loss = losses.similarity_guidance(student, weights)
    loss.backward()
    torch.testing.assert_close(loss.double(), golden["sg_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(student.grad, golden["sg_grad"], rtol=1e-4, atol=1e-8)


def test_context_weights_are_symmetric_and_bounded_for_small_batches():
    weights = losses.context_weights(unit(4, 8), neighbours=10)
    torch.testing.assert_close(weights, weights.T)
    assert 0 <= float(weights.min()) <= float(weights.max()) <= 1


def test_mutual_alignment_equals_published_values(golden):
    value = losses.pairwise_alignment(
        golden["ma_features"], golden["ma_prototypes_sketch"], golden["ma_prototypes_photo"]
    )
    torch.testing.assert_close(value, golden["ma_pair_loss"], rtol=0, atol=2e-5)  # published: + 1e-6


def test_mutual_alignment_is_the_mean_over_features_and_levels_and_allows_other_k():
    features = [unit(5, 6, seed=1), unit(4, 6, seed=2)]
    sketch, photo = [unit(3, 6, seed=3), unit(5, 6, seed=4)], [unit(2, 6, seed=5), unit(6, 6, seed=6)]
    expected = torch.stack(
        [
            losses.pairwise_alignment(f, a, b).mean()
            for f in features
            for a, b in zip(sketch, photo, strict=True)
        ]
    ).mean()
    torch.testing.assert_close(losses.mutual_alignment(features, sketch, photo), expected)
    assert losses.mutual_alignment(features, sketch, sketch).item() == 0.0


def test_gradients_in_float64():
    """Finite differences, at temperatures that keep every branch active. Losses compute in float32 or
    better."""
    prototypes = [unit(3, 4, seed=8), unit(4, 4, seed=9)]
    weights = losses.context_weights(unit(6, 4, seed=10), neighbours=3)
    assert torch.autograd.gradcheck(
        lambda x: losses.similarity_guidance(x, weights), (unit(6, 4, seed=11).requires_grad_(),)
    )
    assert torch.autograd.gradcheck(
        lambda x: losses.mutual_alignment([x], prototypes[:1], prototypes[1:], temperature=0.5),
        (unit(5, 4, seed=12).requires_grad_(),),
    )
    targets = torch.softmax(
        torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), -1
    )
    assert torch.autograd.gradcheck(
        lambda x: losses.self_distillation(x, targets, temperature=0.7),
        (unit(4, 3, 4, seed=13).requires_grad_(),),
    )
    own = torch.tensor([[0, 1, 0], [0, 1, 2]])
    assert torch.autograd.gradcheck(
        lambda x: losses.cluster_contrast(
            x, unit(3, 4, seed=15), losses.hierarchical_mask(own), own, prototypes, thresholds=[0.01, 0.01]
        )[0],
        (unit(3, 3, 4, seed=14).requires_grad_(),),
    )
