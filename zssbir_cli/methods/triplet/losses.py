"""Losses of the triplet baseline, as pure functions of a batch."""

import torch
from torch import Tensor
from torch.nn import functional


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


def cosine_classification(embeddings: Tensor, prototypes: Tensor, labels: Tensor, scale: float) -> Tensor:
    """Cross-entropy of scaled cosines: embeddings [N, D], prototypes [C, D], labels int64 [N] -> scalar.

    softmax_c(scale * cos(z, w_c)): the normalised softmax of Zhai and Wu 2019 ("Classification is a strong
    baseline for deep metric learning").
    """
    logits = scale * functional.normalize(embeddings, dim=1) @ functional.normalize(prototypes, dim=1).T
    return functional.cross_entropy(logits, labels)


def cosine_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean of 1 - cos(a_i, b_i) over the rows of a, b [N, D] -> scalar."""
    return (1 - torch.cosine_similarity(a, b, dim=1)).mean()
