"""AMA: student and teacher over unlabelled, unpaired sketches and photos (Yin et al., AAAI 2024).

Departures from the published code, which does not run: contrastive clustering is the function that exists
there, with its mask made anew per level; similarity guidance compares student globals with teacher globals of
the same modality; k-means clusters unit features; the teacher's state, centres and clusters are in checkpoints;
a shared centre takes in both modalities at once, where the published one moves between their two losses.
"""

import copy
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from zssbir_cli.compute import distributed
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.ama import losses
from zssbir_cli.methods.ama.clustering import Clusters, recluster
from zssbir_cli.methods.ama.config import AmaConfig
from zssbir_cli.methods.ama.head import DinoHead, load_networks
from zssbir_cli.methods.ama.losses import complaints, teacher_monitors
from zssbir_cli.methods.base import Batch, Method, Position, Probe, StepOutput, measure_means
from zssbir_cli.models.centring import Centring
from zssbir_cli.models.encoder import Encoder, build_encoder, check_input
from zssbir_cli.recipe.schema import ModelConfig, Recipe
from zssbir_cli.types import Modality

log = logging.getLogger("zssbir")
_Views = dict[Modality, Tensor]  # crop-major, [V, B, ...]; the first two views are the globals


class AmaMethod(Method):
    """Teacher and student encoders with DINO heads, centres, and the clusters of the training images.

    Batches (see `data.AmaItems`), uint8: `<modality>_global` [B, 2, C, S, S], `<modality>_local` [B, n, C, s, s],
    `photo_drawing` [B, d, 1, S, S]; int64: `<modality>_index` [B].
    """

    uses_labels = False

    centers: Tensor

    def __init__(self, config: AmaConfig, student: Encoder) -> None:
        super().__init__()
        self.config = config
        self.student, self.student_head = student, DinoHead(student.dim, config.head)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_head = copy.deepcopy(self.student_head).requires_grad_(False)
        self.centring = Centring(student.dim) if config.centre else None
        self.register_buffer(
            "centers", torch.zeros(1 if config.centers == "shared" else 2, config.head.out_dim)
        )
        levels = len(config.clusters.k)
        self.clusters = torch.nn.ModuleDict({m.word: Clusters(levels, student.dim) for m in Modality})
        self.cluster_weight, self.pairing = 0.0, False
        self._last: Mapping[str, Tensor] = {}
        self._said: set[str] = set()

    def train(self, mode: bool = True) -> "AmaMethod":
        """As `nn.Module.train`; the teacher stays in eval mode (and so without stochastic depth)."""
        super().train(mode)
        self.teacher.eval()
        self.teacher_head.eval()
        return self

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """The teacher's unit embedding: uint8 [B, C, H, W] -> float32 [B, D]."""
        unit = self._features(images)
        return self.centring(unit, modality) if self.centring else unit

    def _features(self, images: Tensor) -> Tensor:
        return F.normalize(self.teacher(images).embedding.float(), dim=1)

    def before_retrieval(self, probe: Probe) -> None:
        """Measure the modalities' means."""
        if self.centring:
            measure_means(self.centring, probe, self._features)

    def retrieval_state(self) -> dict[str, Tensor]:
        """The teacher's encoder and the modalities' means."""
        return {k: v for k, v in self.state_dict().items() if k.startswith(("teacher.", "centring."))}

    def forward(self, batch: Batch) -> StepOutput:
        """The weighted sum of the losses that are on at this step, and their values."""
        config, logs = self.config, dict[str, Tensor]()
        with torch.no_grad():
            teacher = self._teach(batch)
            known = self._logits(self.teacher_head, teacher)
        student = self._learn(batch)
        views = self._logits(self.student_head, student)
        grouped = self._clusters(Modality.SKETCH).ready
        with torch.autocast(self.centers.device.type, enabled=False):
            targets = {m: self._targets(m, known[m]) for m in Modality}
            self._watch(targets, teacher, logs)
            self._move_centers(torch.stack([known[m].float().mean((0, 1)) for m in Modality]))
            total = self._distill(views, targets, logs)
            if self.cluster_weight > 0 and grouped:
                total = total + self.cluster_weight * self._contrast(batch, student, teacher, logs)
            if self.pairing and config.guidance > 0:
                total = total + config.guidance * self._guide(student, teacher, logs)
            if self.pairing and config.alignment > 0 and grouped:
                total = total + config.alignment * self._align(student, logs)
        self._last = logs
        return StepOutput(total, logs)

    # ---- features and logits

    def _teach(self, batch: Batch) -> _Views:
        sets = [batch[f"{m.word}_global"].transpose(0, 1) for m in Modality]
        parts = self._encode(self.teacher, sets)
        return dict(zip(Modality, parts, strict=True))

    def _learn(self, batch: Batch) -> _Views:
        """One pass over all crops of the global size and one over all local ones."""
        large = [batch[f"{m.word}_global"].transpose(0, 1) for m in Modality]
        drawings = batch["photo_drawing"].transpose(0, 1)
        large += [drawings] if drawings.shape[0] else []
        sketch, photo, *drawn = self._encode(self.student, large)
        views = {Modality.SKETCH: [sketch], Modality.PHOTO: [photo]}
        if batch["photo_local"].shape[1]:
            locals_ = self._encode(self.student, [batch[f"{m.word}_local"].transpose(0, 1) for m in Modality])
            for modality, part in zip(Modality, locals_, strict=True):
                views[modality].append(part)
        views[Modality.PHOTO] += drawn
        return {modality: torch.cat(parts) for modality, parts in views.items()}

    @staticmethod
    def _encode(encoder: Encoder, sets: list[Tensor]) -> list[Tensor]:
        """uint8 sets [V, B, C, H, W] of one size through one pass -> [V, B, D] float32 each."""
        images = torch.cat([encoder.normalise(x.flatten(0, 1)) for x in sets])
        features = encoder.features(images).embedding.float()
        parts = torch.split(features, [x.shape[0] * x.shape[1] for x in sets])
        return [part.view(x.shape[0], x.shape[1], -1) for part, x in zip(parts, sets, strict=True)]

    @staticmethod
    def _logits(head: DinoHead, features: _Views) -> _Views:
        """[V, B, D] -> [V, B, K] of both modalities in one pass, in bf16 under autocast."""
        rows = [x.flatten(0, 1) for x in features.values()]
        parts = torch.split(head(torch.cat(rows)), [len(x) for x in rows])
        return {m: part.view(*x.shape[:2], -1) for part, (m, x) in zip(parts, features.items(), strict=True)}

    # ---- losses

    def _distill(self, views: _Views, targets: _Views, logs: dict[str, Tensor]) -> Tensor:
        config, total = self.config, self.centers.new_zeros(())
        weights = {Modality.SKETCH: config.distill_sketch, Modality.PHOTO: config.distill_photo}
        for modality in Modality:
            loss = losses.self_distillation(
                views[modality], targets[modality], temperature=config.student_temperature
            )
            total = total + weights[modality] * loss
            logs[f"loss/distill_{modality.word}"] = loss.detach()
        return total

    def _targets(self, modality: Modality, logits: Tensor) -> Tensor:
        center = self.centers[0 if len(self.centers) == 1 else int(modality)]
        return losses.teacher_targets(logits, center, temperature=self.config.teacher_temperature)

    @torch.no_grad()
    def _watch(self, targets: _Views, teacher: _Views, logs: dict[str, Tensor]) -> None:
        logs["monitor/center_norm"] = self.centers.norm(dim=1).mean()
        for modality in Modality:
            seen = teacher_monitors(targets[modality], teacher[modality].flatten(0, 1))
            logs |= {f"monitor/{what}_{modality.word}": value for what, value in seen.items()}

    def _contrast(self, batch: Batch, student: _Views, teacher: _Views, logs: dict[str, Tensor]) -> Tensor:
        config, parts = self.config, []
        for modality in Modality:
            clusters = self._clusters(modality)
            prototypes = clusters.prototypes()
            views = F.normalize(distributed.gather(student[modality].transpose(0, 1)).transpose(0, 1), dim=-1)
            anchors = F.normalize(distributed.gather(teacher[modality][0]), dim=-1)
            own = clusters.labels[:, distributed.gather(batch[f"{modality.word}_index"])].long()
            loss, kept = losses.cluster_contrast(
                views,
                anchors,
                losses.hierarchical_mask(own),
                own,
                prototypes,
                temperature=config.cluster_temperature,
                thresholds=[config.cc_threshold / (len(p) if config.cc_relative else 1) for p in prototypes],
            )
            parts.append(loss)
            logs[f"loss/cluster_{modality.word}"] = loss.detach()
            logs |= {f"clusters/kept_{modality.word}_{level}": share for level, share in enumerate(kept)}
        return parts[0] + parts[1]

    def _guide(self, student: _Views, teacher: _Views, logs: dict[str, Tensor]) -> Tensor:
        parts = []
        for modality in Modality:
            known = F.normalize(_items(teacher[modality]), dim=1)
            weights = losses.context_weights(known, neighbours=self.config.neighbours)
            parts.append(
                losses.similarity_guidance(F.normalize(_items(student[modality][:2]), dim=1), weights)
            )
            logs[f"loss/guidance_{modality.word}"] = parts[-1].detach()
        return parts[0] + parts[1]

    def _align(self, student: _Views, logs: dict[str, Tensor]) -> Tensor:
        loss = losses.mutual_alignment(
            [F.normalize(_items(student[modality][:2]), dim=1) for modality in Modality],
            self._clusters(Modality.SKETCH).prototypes(),
            self._clusters(Modality.PHOTO).prototypes(),
            temperature=self.config.alignment_temperature,
        )
        logs["loss/alignment"] = loss.detach()
        return loss

    # ---- state that moves along

    def _clusters(self, modality: Modality) -> Clusters:
        module = self.clusters[modality.word]
        assert isinstance(module, Clusters)
        return module

    @torch.no_grad()
    def _move_centers(self, means: Tensor) -> None:
        """They count from the next step on. means: this rank's mean teacher logits [2, K], sketches first."""
        means = distributed.all_mean(means)
        if len(self.centers) == 1:
            means = means.mean(0, keepdim=True)
        self.centers.lerp_(means, 1 - self.config.center_momentum)

    def before_step(self, progress: Position) -> None:
        """The ramp of contrastive clustering and the switch of guidance and alignment."""
        config = self.config
        ramp = config.cluster_full - config.cluster_start
        since = progress.epoch_fraction - config.cluster_start
        done = min(1.0, max(0.0, since / ramp)) if ramp else 1.0
        self.cluster_weight = config.cluster * done if progress.epoch >= config.cluster_start else 0.0
        self.pairing = progress.epoch >= config.pairing_start

    @torch.no_grad()
    def after_step(self, progress: Position, skipped: Tensor) -> None:
        """The teacher follows the student: t <- m t + (1 - m) s, head included; batch-norm statistics are the student's."""
        share = (1 - self.config.momentum) * (1 - skipped)
        for teacher, student in ((self.teacher, self.student), (self.teacher_head, self.student_head)):
            for average, weight in zip(teacher.parameters(), student.parameters(), strict=True):
                average.lerp_(weight, share.to(average.dtype))
            for own, other in zip(teacher.buffers(), student.buffers(), strict=True):
                own.copy_(torch.where(skipped.bool(), own, other))

    def before_epoch(self, epoch: int, probe: Probe) -> dict[str, float]:
        """Re-cluster the un-augmented training images by the teacher's features, when clusters are in use."""
        for message in complaints({name: float(value) for name, value in self._last.items()}):
            self._say(message)
        config = self.config
        since = epoch - config.cluster_start
        if since < 0 or since % config.clusters.every or (config.cluster == 0 and config.alignment == 0):
            return {}
        self.eval()
        device = self.centers.device
        features = {m: probe.features(m, self._features).to(device) for m in Modality}
        return recluster({m: self._clusters(m) for m in Modality}, features, config.clusters, self._say)

    def _say(self, message: str) -> None:
        if message not in self._said and distributed.is_main():
            log.warning("%s", message)
        self._said.add(message)


def _items(views: Tensor) -> Tensor:
    """Views of the local batch [V, B, D] -> rows of the global batch [W * B * V, D]."""
    return distributed.gather(views.transpose(0, 1).contiguous()).flatten(0, 1)


def build(recipe: Recipe, load_weights: bool) -> AmaMethod:
    """Build the method; raises CheckpointError for weights that cannot be had or do not fit."""
    config = recipe.method
    assert isinstance(config, AmaConfig)
    model = recipe.model
    if model.projection:
        raise UsageError("model.projection does not apply to ama, whose head is method.head: set it to 0")
    if recipe.train.ema is not None:
        raise UsageError(
            "train.ema does not apply to ama, whose teacher already is an average: see method.momentum"
        )
    model = _any_size(model)
    from_file = load_weights and model.weights not in ("pretrained", "none")
    method = AmaMethod(config, build_encoder(model, recipe.data.size, load_weights and not from_file))
    if from_file:
        load_networks(
            Path(model.weights).expanduser(),
            (method.student, method.student_head),
            (method.teacher, method.teacher_head),
            method.centers,
            heads=config.head_weights == "auto",
        )
        check_input(method.student, model, recipe.data.size)
    elif load_weights and model.weights == "pretrained":
        log.warning("model.weights: pretrained fills the encoders; the DINO heads start random")
    if load_weights:
        _check_crops(method.student, model, config)
    return method


def _check_crops(encoder: Encoder, model: ModelConfig, config: AmaConfig) -> None:
    """Raises UsageError when the backbone does not take crops of these sizes."""
    views = config.views
    if views.global_size:
        check_input(encoder, model, views.global_size, "method.views.global_size")
    if views.locals:
        check_input(encoder, model, views.local_size, "method.views.local_size")


def _any_size(model: ModelConfig) -> ModelConfig:
    """Vision transformers of timm take crops of several sizes only when asked to."""
    from timm.models import is_model_in_modules

    if "dynamic_img_size" in model.options or not is_model_in_modules(
        model.backbone, ["vision_transformer", "deit", "eva"]
    ):
        return model
    return model.model_copy(update={"options": {**model.options, "dynamic_img_size": True}})
