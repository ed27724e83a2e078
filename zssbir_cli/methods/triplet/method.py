"""The triplet baseline: the worked example of the method boundary."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.compute.distributed import gather
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Batch, Method, Probe, StepOutput, measure_means
from zssbir_cli.methods.triplet.anchors import MeanAnchors, TextAnchors
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.models.centring import Centring
from zssbir_cli.models.clip_text import TextEncoder
from zssbir_cli.models.encoder import Encoder, build_encoder
from zssbir_cli.models.text_tower import check_text_side, load_text_side
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality

MOST_PHOTOS = 2000
"""Training photos that the means of `MeanAnchors` are taken over, spread evenly; all where a class has none among them."""


class Triplet(Method):
    """One encoder for sketches and photos, an optional linear projection, an optional frozen copy of the start that
    photo embeddings are kept near, and an optional head of class names (see `anchors`)."""

    def __init__(
        self,
        encoder: Encoder,
        config: TripletConfig,
        projection: int,
        text_source: Callable[[], TextEncoder] | None = None,
    ) -> None:
        """`text_source` loads the text side when the head needs it; without it the anchors are random."""
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projection = nn.Linear(encoder.dim, projection) if projection else nn.Identity()
        self.centring = Centring(projection or encoder.dim) if config.centre else None
        self.anchors = TextAnchors(encoder.dim) if config.text_weight else None
        self.means = MeanAnchors(projection or encoder.dim) if config.class_weight else None
        self.text_source = text_source
        self.start = copy.deepcopy(encoder).requires_grad_(False) if config.preserve_weight else None

    def train(self, mode: bool = True) -> "Triplet":
        """As `nn.Module.train`; the frozen start stays in eval mode."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    def forward(self, batch: Batch) -> StepOutput:
        """batch: sketch [B, 1, S, S] and photo [B, 3, S, S] uint8, label int64 [B] (label of both)."""
        photo, labels = self.encoder.normalise(batch["photo"]), batch["label"]
        both = torch.cat([self.encoder.normalise(batch["sketch"]), photo])
        raw = self.encoder.features(both).embedding
        with torch.autocast(raw.device.type, enabled=False):
            sketch, photo_z = functional.normalize(self.projection(raw.float()), dim=1).chunk(2)
            losses = self._batch_losses(sketch, photo_z, labels)
            if self.anchors is not None:
                head = self.anchors(torch.cat([sketch, photo_z]), labels.repeat(2), self.config.text_scale)
                losses["text"] = self.config.text_weight * head
            if self.means is not None:
                head = self.means(torch.cat([sketch, photo_z]), labels.repeat(2), self.config.scale)
                losses["class"] = self.config.class_weight * head
        if self.start is not None:
            with torch.no_grad():
                target = self.start.features(photo).embedding
            near = cosine_distance(raw[len(labels) :].float(), target.float())
            losses["preserve"] = self.config.preserve_weight * near
        total = torch.stack(list(losses.values())).sum()
        return StepOutput(total, {f"loss/{name}": value.detach() for name, value in losses.items()})

    def _batch_losses(self, sketch: Tensor, photo: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Losses over the global batch: unit embeddings [B, D] of this rank."""
        config, out = self.config, {}
        everything = gather(sketch), gather(photo), gather(labels)
        if config.triplet_weight:
            out["triplet"] = config.triplet_weight * batch_triplet(*everything, config.margin)
        if config.contrast_weight:
            both, twice = torch.cat(everything[:2]), everything[2].repeat(2)
            out["contrast"] = config.contrast_weight * supervised_contrast(both, twice, config.scale)
        return out

    @torch.no_grad()
    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, S, S] -> unit embeddings float32 [B, D]; both modalities share the encoder."""
        raw = self._embed(images)
        return self.centring(raw, modality) if self.centring else functional.normalize(raw, dim=1)

    def _embed(self, images: Tensor) -> Tensor:
        out: Tensor = self.projection(self.encoder(images).embedding)
        return out.float()

    def before_retrieval(self, probe: Probe) -> None:
        """Measure the modalities' means."""
        if self.centring:
            measure_means(self.centring, probe, self._embed)

    def before_epoch(self, epoch: int, probe: Probe) -> dict[str, float]:
        """Embed the names of the training classes and photos of them, once."""
        if self.means is not None and not self.means.ready:
            self.eval()
            classes = probe.class_names()
            every = set(classes) <= set(probe.labels(Modality.PHOTO, MOST_PHOTOS).tolist())
            most = MOST_PHOTOS if every else None
            photos = probe.features(Modality.PHOTO, self._embed, most)
            self.means.fill(classes, photos, probe.labels(Modality.PHOTO, most))
        if self.anchors is not None and not self.anchors.ready:
            encode = self.text_source() if self.text_source else None
            self.anchors.fill(probe.class_names(), encode, self.config.text_prompt)
        return {}

    def retrieval_state(self) -> dict[str, Tensor]:
        """Everything but the frozen start and the anchors."""
        left_out = ("start.", "anchors.", "means.")
        return {k: v for k, v in self.state_dict().items() if not k.startswith(left_out)}


def build(recipe: Recipe, load_weights: bool = True) -> Triplet:
    """Build the method from a recipe."""
    assert isinstance(recipe.method, TripletConfig)
    source = _text_source(recipe) if recipe.method.text_weight else None
    encoder = build_encoder(recipe.model, recipe.data.size, load_weights)
    if recipe.method.train_size not in (None, recipe.data.size) and not encoder.any_size:
        raise UsageError(
            f"method.train_size {recipe.method.train_size}: {recipe.model.backbone} takes images of data.size "
            f"({recipe.data.size}) only; leave it out, or choose a convolutional backbone"
        )
    return Triplet(encoder, recipe.method, recipe.model.projection, source)


def _text_source(recipe: Recipe) -> Callable[[], TextEncoder] | None:
    """What loads the text side of the recipe's backbone; None for random weights. Raises UsageError."""
    method, model = recipe.method, recipe.model
    assert isinstance(method, TripletConfig)
    if model.projection:
        raise UsageError(
            "method.text_weight: the text anchors have the backbone's dimensions; set model.projection to 0"
        )
    if model.weights == "none":
        return None
    try:
        check_text_side(model.backbone)
    except UsageError as error:
        raise UsageError(f"method.text_weight {method.text_weight:g}: {error}; or set it to 0") from None
    file = Path(method.text_file).expanduser() if method.text_file else None
    return partial(load_text_side, model.backbone, file, "set method.text_file to it")


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
