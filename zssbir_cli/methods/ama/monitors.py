"""Watching for collapse: what a self-distilled teacher does when it goes wrong."""

import math
from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor


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
                f"contrastive clustering keeps no {modality} image at level {level}: lower "
                f"method.cc_threshold, "
                "or make it relative to 1/K with method.cc_relative=true"
            )
    return found
