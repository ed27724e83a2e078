"""The four losses of AMA (Yin et al., AAAI 2024), as functions of whole global batches.

Crop-major tensors are [crops, B, D]; under several ranks the caller gathers first, so that each loss is
the loss of the global batch.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def self_distillation(student: Tensor, targets: Tensor, *, temperature: float = 0.1) -> Tensor:
    """DINO's cross-entropy between teacher and student views of the same image (Caron et al. 2021).

    student: logits [V, B, K], the first Q views being the ones the teacher saw; targets: teacher
    probabilities [Q, B, K] (see `teacher_targets`), no gradient. Mean over images and over the pairs of a
    teacher view q and a student view v != q of  -sum_k targets_qk log softmax(student_v / temperature)_k.

    The log-softmax is kept for the backward pass, which has a closed form: with a 65,536-way head every pass
    over the logits counts.
    """
    queries, views = targets.shape[0], student.shape[0]
    pairs = 1 - torch.eye(queries, views, device=student.device, dtype=targets.dtype)
    loss: Tensor = _CrossEntropy.apply(
        student, targets, pairs / (pairs.sum() * student.shape[1]), temperature
    )
    return loss


class _CrossEntropy(torch.autograd.Function):
    """-sum_qvbk weights_qv targets_qbk log softmax_k(student_vb / temperature), for targets that sum to 1."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
        log_prob = F.log_softmax(_wide(student) / temperature, dim=2)
        ctx.save_for_backward(log_prob, targets, weights)
        ctx.temperature, ctx.dtype = temperature, student.dtype
        dots = torch.bmm(targets.transpose(0, 1), log_prob.permute(1, 2, 0)).sum(0)
        return -(dots * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        log_prob, targets, weights = ctx.saved_tensors
        pull = weights.T * (grad / ctx.temperature)  # [V, Q]
        found = log_prob.exp().mul_(pull.sum(1)[:, None, None])
        found.transpose(0, 1).baddbmm_(-pull.expand(found.shape[1], *pull.shape), targets.transpose(0, 1))
        return found.to(ctx.dtype), None, None, None


def teacher_targets(logits: Tensor, center: Tensor, *, temperature: float = 0.04) -> Tensor:
    """softmax((logits - center) / temperature), float32; logits [Q, B, K], center [1, K]."""
    return torch.softmax((_wide(logits) - center) / temperature, dim=-1)


def hierarchical_mask(assignments: Tensor) -> Tensor:
    """Which images share a cluster at this and at every coarser level: [L, B] int64 -> bool [L, B, B].

    Level l of the result is prod_{l' <= l} 1[c_l'(i) = c_l'(j)]. (The published loop grows the mask from
    B x B to B x 9B inside itself and fails at its second level.)
    """
    same = assignments[:, :, None] == assignments[:, None, :]
    return same.cumprod(0).bool()


def cluster_contrast(
    student: Tensor,
    teacher: Tensor,
    masks: Tensor,
    assignments: Tensor,
    prototypes: Sequence[Tensor],
    *,
    temperature: float = 0.2,
    thresholds: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """Contrastive clustering: crops of images of the same cluster attract (after UCDIR, Hu et al. 2022).

    student: unit [V, B, D]; teacher: unit [B, D], first global view; masks: bool [L, B, B];
    assignments: int64 [L, B]; prototypes: per level unit [K_l, D]; thresholds: smallest probability
    softmax_K(teacher_i . C_l / temperature)[own cluster] of an anchor that counts, one per level.

    With s = student_0 . student_1.. / temperature, a level's loss is the negative mean over kept anchors i
    of mean_{j in mask_i} log softmax(s_i)_j, the mask tiled over the other V - 1 crops. Returns the mean
    over levels and the kept share of anchors [L]; a level without anchors contributes 0.
    """
    others = student.shape[0] - 1
    scores = student[0] @ student[1:].flatten(0, 1).T / temperature
    log_prob = F.log_softmax(_wide(scores), dim=1)
    per_other = log_prob.view(log_prob.shape[0], others, -1).sum(1)
    losses, kept = [], []
    for mask, assignment, prototype, threshold in zip(
        masks, assignments, prototypes, thresholds, strict=True
    ):
        row_mean = (per_other * mask).sum(1) / (mask.sum(1) * others)
        own = torch.softmax(teacher @ prototype.T / temperature, dim=1)
        keep = (own.gather(1, assignment[:, None])[:, 0] > threshold).to(row_mean.dtype)
        losses.append(-(row_mean * keep).sum() / keep.sum().clamp(min=1))
        kept.append(keep.mean())
    return torch.stack(losses).mean(), torch.stack(kept)


def context_weights(teacher: Tensor, *, sigma: float = 1.0, neighbours: int = 10) -> Tensor:
    """Semantic similarity of teacher embeddings [N, D] (unit) -> W [N, N] in 0-1 (STML, Kim et al. 2022).

    W = (W_P + W_C) / 2 with W_P = exp(-||t_i - t_j||^2 / sigma). W_C compares the sets R(i) of k-reciprocal
    neighbours: |R(i) & R(j)| / |R(i)| for j in R(i), averaged over the k/2 nearest neighbours of i and
    symmetrised.
    """
    count = teacher.shape[0]
    neighbours = min(neighbours, count)
    pair = torch.exp(-torch.cdist(teacher, teacher).square() / sigma)
    nearest = pair.topk(neighbours, dim=1).indices
    near = torch.zeros_like(pair).scatter_(1, nearest, 1.0)
    mutual = near * near.T
    overlap = (mutual @ mutual.T) / mutual.sum(1, keepdim=True).clamp(min=1) * mutual
    half = overlap[nearest[:, : max(1, round(neighbours / 2))]].mean(1)
    return (pair + (half + half.T) / 2) / 2


def similarity_guidance(student: Tensor, weights: Tensor, *, delta: float = 1.0) -> Tensor:
    """STML's relaxed contrastive loss of student embeddings [N, D] (unit) given `weights` [N, N].

    With d_ij = ||s_i - s_j|| / mean_j ||s_i - s_j||:
    1 / (N (N - 1)) sum_{i != j} [ W_ij d_ij^2 + (1 - W_ij) relu(delta - d_ij)^2 ].
    """
    count = student.shape[0]
    distance = torch.cdist(student, student, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance / distance.mean(1, keepdim=True)
    off = 1 - torch.eye(count, device=student.device, dtype=student.dtype)
    pairs = weights * distance.square() + (1 - weights) * F.relu(delta - distance).square()
    return (pairs * off).sum() / (count * (count - 1))


def pairwise_alignment(
    features: Tensor, sketch: Tensor, photo: Tensor, *, temperature: float = 0.01
) -> Tensor:
    """How differently two sets of prototypes see a batch's geometry, one value per item: [N, D] -> [N].

    features: unit [N, D]; sketch, photo: unit prototypes [K, D] of the two modalities. With
    P^m = softmax(features . C^m / temperature) and D^m_ij = 1 - cos(P^m_i, P^m_j): ||D^A_i - D^B_i||^2
    (UCDIR's distance of distances).
    """
    rows = []
    for prototypes in (sketch, photo):
        chance = F.normalize(torch.softmax(features @ prototypes.T / temperature, dim=1), dim=1)
        rows.append(1 - chance @ chance.T)
    return (rows[0] - rows[1]).square().sum(1)


def mutual_alignment(
    features: Sequence[Tensor],
    sketch: Sequence[Tensor],
    photo: Sequence[Tensor],
    *,
    temperature: float = 0.01,
) -> Tensor:
    """Mean of `pairwise_alignment` over items, over feature sets (sketch globals, photo globals) and
    levels."""
    return torch.stack(
        [
            pairwise_alignment(f, a, b, temperature=temperature).mean()
            for f in features
            for a, b in zip(sketch, photo, strict=True)
        ]
    ).mean()


def _wide(x: Tensor) -> Tensor:
    """At least float32: half-precision logits are summed in it."""
    return x if x.dtype == torch.float64 else x.float()


def teacher_monitors(targets: Tensor, features: Tensor) -> dict[str, Tensor]:
    """Of one modality's teacher: probabilities [Q, B, K] and embeddings [Q * B, D] -> scalars.

    entropy: mean entropy of a target, as a share of log K; 1 = uniform targets, nothing to learn. spread:
    mutual information between image and prototype, as a share of its largest value, log(B); 0 = all images have
    the same target. rank: effective rank of the centred unit embeddings, (tr G)^2 / ||G||^2, between 1 and
    their number; 1 = they lie on a line.
    """
    flat = targets.flatten(0, 1)
    entropy = -(flat * flat.clamp(min=1e-12).log()).sum(1).mean()
    usage = targets.mean(0)  # the same image's views count as one
    mean = usage.mean(0)
    spread = (usage * (usage.clamp(min=1e-12).log() - mean.clamp(min=1e-12).log())).sum(1).mean()
    unit = F.normalize(features.float(), dim=1)
    gram = unit - unit.mean(0)
    gram = gram @ gram.T
    return {
        "entropy": entropy / math.log(max(2, targets.shape[2])),
        "spread": spread / math.log(max(2, targets.shape[1])),
        "rank": gram.trace().square() / gram.square().sum().clamp(min=1e-12),
    }


def complaints(values: Mapping[str, float]) -> list[str]:
    """What is wrong, in words, given an epoch's last logs (names as `AmaMethod` logs them)."""
    found = []
    for modality in ("sketch", "photo"):
        if values.get(f"monitor/spread_{modality}", 1.0) < 0.01:
            found.append(
                f"the teacher gives all {modality} images the same target (collapse): lower optim.lr, raise "
                "method.momentum or lower method.teacher_temperature"
            )
        if values.get(f"monitor/rank_{modality}", 9.0) < 2.0:
            found.append(
                f"the {modality} embeddings vary along one line only (effective rank below 2): collapsed, or "
                "hardly trained yet"
            )
    for name, value in values.items():
        if name.startswith("clusters/kept_") and value == 0.0:
            modality, level = name.removeprefix("clusters/kept_").split("_")
            found.append(
                f"contrastive clustering keeps no {modality} image at level {level}: lower method.cc_threshold, or "
                "make it relative to 1/K with method.cc_relative=true"
            )
    return found
