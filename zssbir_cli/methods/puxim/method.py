"""PuXIM: one encoder for sketches and photos, trained to forget what the linguistic mask hides.

"Purified Zero-Shot Sketch-Based Image Retrieval", IEEE Transactions on Multimedia. Where the published
program differs from its paper we build the evident intent; docs/puxim.md lists each departure.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zssbir_cli.compute.distributed import gather, rank
from zssbir_cli.errors import UsageError
from zssbir_cli.methods.base import Batch, Method, StepOutput
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.puxim.decoder import MatchDecoder, interaction_loss, other_class
from zssbir_cli.methods.puxim.losses import keep_mask, reconstruction_loss, to_grid, triplet_loss
from zssbir_cli.methods.puxim.vxl import LazyScorer
from zssbir_cli.methods.triplet.method import batch_triplet, supervised_contrast
from zssbir_cli.models.encoder import Encoder, Features, build_encoder
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality


class Puxim(Method):
    """Triplet + purified masked matching.

    A batch holds `sketch` [B, 1, S, S], `photo` and, with drawn negatives, `negative` [B, 3, S, S] (uint8); their
    labels `photo_label`, `negative_label` [B]; and with stored masks `photo_scores`, `negative_scores` [B, h, w].
    """

    def __init__(
        self, config: PuximConfig, encoder: Encoder, projection: int = 0, scorer: LazyScorer | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projection = nn.Linear(encoder.dim, projection) if projection else nn.Identity()
        # The class token of a photo is always kept; a CNN has none.
        self.class_token = encoder.prefix_tokens > 0 and encoder.dim == encoder.token_dim
        self.decoder = None
        if config.interaction > 0:
            self.decoder = MatchDecoder(
                encoder.token_dim,
                config.decoder_width,
                layers=config.decoder_layers,
                heads=config.decoder_heads,
                ff=config.decoder_ff,
                dropout=config.decoder_dropout,
            )
        self._scorer = scorer  # not a module: CLIP is no part of the parameters or of checkpoints

    def forward(self, batch: Batch) -> StepOutput:
        """One encoder pass over sketches, photos and negatives; the weighted sum of the terms."""
        n = len(batch["sketch"])
        photos = torch.cat([batch["photo"], batch["negative"]]) if "negative" in batch else batch["photo"]
        features = self.encoder(torch.cat([batch["sketch"].expand(-1, 3, -1, -1), photos]))
        keep = self._keep(batch, photos, features)
        c, extra = self.config, {}
        with torch.autocast(photos.device.type, enabled=False):  # similarities need more than bf16
            losses = self._embedding_losses(batch, features.embedding)
        if c.reconstruction > 0:
            losses["reconstruction"] = (
                c.reconstruction,
                reconstruction_loss(features.tokens[n:], keep, c.target),
            )
        if self.decoder is not None:
            tokens, keep = self._with_class_token(features, keep)
            loss, extra["match_accuracy"] = self._interaction(self.decoder, batch, tokens, keep)
            losses["interaction"] = c.interaction, loss
        total = torch.stack([weight * loss for weight, loss in losses.values()]).sum()
        return StepOutput(total, {f"loss/{k}": v.detach() for k, (_, v) in losses.items()} | extra)

    def _embedding_losses(self, batch: Batch, embedding: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Triplet and contrastive term, each with its weight; `embedding` [2B or 3B, D]."""
        c, out = self.config, {}
        z = self.projection(embedding if embedding.dtype.itemsize >= 4 else embedding.float())
        sketch, photo = z[: len(batch["sketch"])], z[len(batch["sketch"]) : 2 * len(batch["sketch"])]
        sketches = photos = labels = z
        if c.contrast > 0 or c.negatives == "batch":
            sketches, photos, labels = gather(unit(sketch)), gather(unit(photo)), gather(batch["photo_label"])
        if c.triplet > 0 and c.negatives == "batch":
            out["triplet"] = c.triplet, batch_triplet(sketches, photos, labels, c.margin)
        elif c.triplet > 0:
            negative = z[2 * len(sketch) :]
            out["triplet"] = c.triplet, triplet_loss(sketch, photo, negative, c.margin, c.distance)
        if c.contrast > 0:
            both = torch.cat([sketches, photos])
            out["contrast"] = c.contrast, supervised_contrast(both, labels.repeat(2), c.scale)
        return out

    def _interaction(
        self, decoder: MatchDecoder, batch: Batch, tokens: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The interaction of this rank's sketches; negatives of the batch come from the photos of all ranks."""
        n = len(batch["sketch"])
        sketch, photo = tokens[:n], tokens[n:]
        own = torch.arange(n, device=tokens.device)
        if self.config.negatives == "drawn":
            return interaction_loss(decoder, sketch, photo, keep=keep, own=own, negative=own + n)
        negative = other_class(gather(batch["photo_label"]))
        own = own + rank() * n
        return interaction_loss(
            decoder, sketch, gather(photo), keep=gather(keep), own=own, negative=negative[own]
        )

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """The class token (a CNN's pooled features) at unit length, [B, D]."""
        return normalize(self.projection(self.encoder(images).embedding).float(), dim=-1)

    def retrieval_state(self) -> dict[str, Tensor]:
        """All but the match decoder, which is for training only."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("decoder.")}

    @torch.no_grad()
    def _keep(self, batch: Batch, photos: Tensor, features: Features) -> Tensor:
        """Which patch tokens of the photos are kept, bool [B or 2B, N]."""
        c = self.config
        if c.masks == "none":
            return torch.ones(len(photos), features.tokens.shape[1], dtype=torch.bool, device=photos.device)
        if self._scorer is not None:
            scores = self._scorer(photos, _both(batch, "label"))
        else:
            scores = _both(batch, "scores")
        return keep_mask(to_grid(scores, features.grid), c.mask_ratio, c.rule, c.threshold)

    def _with_class_token(self, features: Features, keep: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens of all images and the photos' mask, class token (always kept) in front."""
        if not self.class_token:
            return features.tokens, keep
        tokens = torch.cat([features.embedding[:, None], features.tokens], 1)
        return tokens, torch.cat([keep.new_ones(len(keep), 1), keep], 1)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scorer": None}


def unit(x: Tensor) -> Tensor:
    """Rows at unit length, in float32 or better."""
    return normalize(x if x.dtype.itemsize >= 4 else x.float(), dim=1)


def _both(batch: Batch, what: str) -> Tensor:
    """`what` of the photos and, if there are any, of the drawn negatives."""
    names = ("photo", "negative") if "negative" in batch else ("photo",)
    return torch.cat([batch[f"{name}_{what}"] for name in names])


def build(recipe: Recipe, load_weights: bool = True) -> Puxim:
    """Build PuXIM from a recipe; see `methods.table.build_method`."""
    config = recipe.method
    assert isinstance(config, PuximConfig)
    encoder = build_encoder(recipe.model, recipe.data.size, load_weights)
    if config.stem:
        add_stem(encoder.backbone, encoder.token_dim)
    scorer = LazyScorer(config.vxl, recipe.data.root) if config.masks == "online" else None
    return Puxim(config, encoder, recipe.model.projection, scorer)


class AveragedStem(nn.Module):
    """(patch embedding + convolution stem) / 2, in place of a ViT's patch embedding.

    The stem is 7/2, 3/2, 3/2 and 3/2 convolutions with 64-128-256-D channels and ReLU between, randomly
    initialised, as in the published code; an option, because it perturbs pretrained tokens. Other attributes
    are those of the wrapped patch embedding.
    """

    def __init__(self, patch_embed: nn.Module, dim: int) -> None:
        super().__init__()
        self.inner = patch_embed
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, 2, 3),
            nn.ReLU(),
            nn.Conv2d(64, 128, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(128, 256, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(256, dim, 3, 2, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> patch tokens [B, N, D]."""
        out: Tensor = (self.inner(x) + self.stem(x).flatten(2).transpose(1, 2)) / 2
        return out

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "inner":
                raise
            return getattr(self.inner, name)


def add_stem(backbone: nn.Module, dim: int) -> None:
    """Put the stem before a ViT's blocks. Raises UsageError for a backbone without 16-pixel patches."""
    patch_embed = getattr(backbone, "patch_embed", None)
    if tuple(getattr(patch_embed, "patch_size", ())) != (16, 16) or not isinstance(patch_embed, nn.Module):
        raise UsageError("method.stem needs a ViT with 16-pixel patches; set method.stem to false")
    backbone.patch_embed = AveragedStem(patch_embed, dim)
