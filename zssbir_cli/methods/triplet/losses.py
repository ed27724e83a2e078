"""Losses of the triplet baseline, as pure functions of a batch."""

import torch
from torch import Tensor


def batch_triplet(sketch: Tensor, photo: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Triplet loss over all negatives of a batch, in both directions.

    sketch, photo: [B, D], unit length, row i of both from class labels[i]. With d the cosine distance and P
    the pairs (i, j) of different classes, the mean over the violating pairs of P of
    max(0, margin + d(s_i, p_i) - d(s_i, p_j)) plus that of max(0, margin + d(s_j, p_j) - d(s_i, p_j)); 0 when
    none violates. Source: FaceNet's triplet loss (Schroff et al. 2015), averaged over the non-zero terms
    (Hermans et al. 2017).

        >>> eye = torch.eye(2)
        >>> float(batch_triplet(eye, eye, torch.tensor([0, 1]), 0.2))
        0.0
    """
    distance = 1 - sketch @ photo.T
    positive = distance.diagonal()
    negative = labels[:, None] != labels[None]
    total = distance.new_zeros(())
    for anchor in (positive[:, None], positive[None]):
        terms = (margin + anchor - distance).clamp(min=0) * negative
        total = total + terms.sum() / (terms.detach() > 0).sum().clamp(min=1)
    return total


def cross_modal_contrast(sketch: Tensor, photo: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Supervised contrastive loss between the modalities of a batch, in both directions.

    sketch, photo: [B, D], unit length, row i of both from class labels[i]. With c_ij = scale * cos(s_i, p_j)
    and P(i) the rows of i's class: mean_i of -1/|P(i)| sum_{j in P(i)} log softmax_j(c_ij), averaged with
    the same of c transposed. Source: Khosla et al. 2020 (L_out), across modalities.

        >>> one = torch.ones(1, 2) / 2**0.5
        >>> float(cross_modal_contrast(one, one, torch.tensor([0]), 16.0))
        0.0
    """
    scores = scale * sketch @ photo.T
    target = (labels[:, None] == labels[None]).to(scores.dtype)
    target = target / target.sum(1, keepdim=True)
    terms = [-(target * s.log_softmax(1)).sum(1).mean() for s in (scores, scores.T)]
    return (terms[0] + terms[1]) / 2


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos(a_i, b_i) over the rows of a, b [N, D] -> scalar."""
    return (1 - torch.cosine_similarity(a, b, dim=1)).mean()
