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


def supervised_contrast(embeddings: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Supervised contrastive loss over a batch of sketches and photos together.

    embeddings: [N, D], unit length; labels: [N]. With c_ij = scale * cos(z_i, z_j) and P(i) the other rows of
    i's class: the mean over the rows with a non-empty P of -1/|P(i)| sum_{j in P(i)} log softmax_{j != i}(c_ij).
    Source: Khosla et al. 2020 (L_out).

        >>> one = torch.ones(2, 2) / 2**0.5
        >>> float(supervised_contrast(one, torch.tensor([0, 0]), 16.0))
        0.0
    """
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    scores = (scale * embeddings @ embeddings.T).masked_fill(itself, -torch.inf)
    same = (labels[:, None] == labels[None]) & ~itself
    terms = scores.log_softmax(1).masked_fill(~same, 0).sum(1) / same.sum(1).clamp(min=1)
    return -terms.sum() / same.any(1).sum().clamp(min=1)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos(a_i, b_i) over the rows of a, b [N, D] -> scalar."""
    return (1 - torch.cosine_similarity(a, b, dim=1)).mean()
