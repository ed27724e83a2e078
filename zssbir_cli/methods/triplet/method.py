"""The triplet baseline: the worked example of the method boundary."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from zssbir_cli.engine.distributed import gather
from zssbir_cli.methods.base import Batch, Method, ParamGroup, StepOutput
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.methods.triplet.losses import batch_triplet, cosine_classification, cosine_distance
from zssbir_cli.models.encoder import Encoder, build_encoder
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality


class Triplet(Method):
    """One encoder for sketches and photos; an optional linear projection, classifier and frozen start."""

    def __init__(self, encoder: Encoder, config: TripletConfig, projection: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projection = nn.Linear(encoder.dim, projection) if projection else nn.Identity()
        dim = projection or encoder.dim
        self.start = copy.deepcopy(encoder).requires_grad_(False) if config.preserve_weight else None
        self.prototypes = (
            nn.Parameter(torch.randn(classes, dim) * dim**-0.5) if config.classify_weight else None
        )

    def train(self, mode: bool = True) -> "Triplet":
        """As `nn.Module.train`; the frozen start stays in eval mode."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    def forward(self, batch: Batch) -> StepOutput:
        """batch: sketch [B, 1, S, S] and photo [B, 3, S, S] uint8, label int64 [B] (label of both)."""
        sketch, photo, labels = batch["sketch"], batch["photo"], batch["label"]
        count = len(labels)
        both = torch.cat([self.encoder.normalise(sketch), self.encoder.normalise(photo)])
        raw = self.encoder.features(both).embedding
        with torch.autocast(raw.device.type, enabled=False):
            raw = raw.float()
            z = functional.normalize(self.projection(raw), dim=1)
            logs = self._losses(z[:count], z[count:], raw[count:], photo, labels)
        loss = torch.stack(list(logs.values())).sum()
        return StepOutput(loss, {f"loss/{name}": value.detach() for name, value in logs.items()})

    def _losses(
        self, sketch: Tensor, photo: Tensor, raw: Tensor, images: Tensor, labels: Tensor
    ) -> dict[str, Tensor]:
        config, out = self.config, {}
        if config.triplet_weight:
            everything = gather(sketch), gather(photo), gather(labels)
            out["triplet"] = config.triplet_weight * batch_triplet(*everything, config.margin)
        if self.prototypes is not None:
            both, twice = torch.cat([sketch, photo]), torch.cat([labels, labels])
            out["classify"] = config.classify_weight * cosine_classification(
                both, self.prototypes, twice, config.scale
            )
        if self.start is not None:
            with torch.no_grad():
                target = self.start(images).embedding.float()
            out["preserve"] = config.preserve_weight * cosine_distance(raw, target)
        return out

    @torch.no_grad()
    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """uint8 images [B, C, S, S] -> unit embeddings float32 [B, D]; both modalities share the encoder."""
        return functional.normalize(self.projection(self.encoder(images).embedding).float(), dim=1)

    def param_groups(self) -> list[ParamGroup]:
        """The encoder with the projection, and the classifier with its own learning rate."""
        own = [*self.encoder.parameters(), *self.projection.parameters()]
        groups: list[ParamGroup] = [{"params": [p for p in own if p.requires_grad]}]
        if self.prototypes is not None:
            groups.append({"params": [self.prototypes], "lr_scale": self.config.classifier_lr_scale})
        return groups

    def retrieval_state(self) -> dict[str, Tensor]:
        """Everything but the frozen start and the classifier."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith(("start.", "prototypes"))}


def build(recipe: Recipe, classes: int, load_weights: bool) -> Triplet:
    """Build from a recipe; `classes`: number of labels of the data set."""
    assert isinstance(recipe.method, TripletConfig)
    encoder = build_encoder(recipe.model, recipe.data.size, load_weights)
    return Triplet(encoder, recipe.method, recipe.model.projection, classes)
