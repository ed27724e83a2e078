"""PuXIM: one encoder for sketches and photos, trained to forget what the linguistic mask hides.

"Purified Zero-Shot Sketch-Based Image Retrieval", IEEE Transactions on Multimedia. Where the published
program differs from its paper we build the evident intent; docs/puxim.md lists each departure.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from zssbir_cli.methods.base import Batch, Method, StepOutput
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.puxim.decoder import MatchDecoder, interaction_loss
from zssbir_cli.methods.puxim.losses import reconstruction_loss, triplet_loss
from zssbir_cli.methods.puxim.masks import keep_mask, to_grid
from zssbir_cli.methods.puxim.stem import add_stem
from zssbir_cli.methods.puxim.vxl import LazyScorer
from zssbir_cli.models.encoder import Encoder, Features, build_encoder
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Modality


class Puxim(Method):
    """Triplet + purified masked matching.

    A batch holds `sketch` [B, 1, S, S], `photo` and `negative` [B, 3, S, S] (uint8), and, unless masks are
    `none`, `photo_scores` and `negative_scores` [B, h, w], or with `online` masks their labels [B].
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
                config.decoder_layers,
                config.decoder_heads,
                config.decoder_ff,
                config.decoder_dropout,
            )
        self._scorer = scorer  # not a module: CLIP is no part of the parameters or of checkpoints

    def forward(self, batch: Batch) -> StepOutput:
        """One encoder pass over sketches, photos and negatives; the weighted sum of the three terms."""
        n = len(batch["sketch"])
        photos = torch.cat([batch["photo"], batch["negative"]])
        features = self.encoder(torch.cat([batch["sketch"].expand(-1, 3, -1, -1), photos]))
        keep = self._keep(batch, photos, features)
        c, total, logs = self.config, features.embedding.new_zeros((), dtype=torch.float32), {}
        if c.triplet > 0:
            anchor, positive, negative = self.projection(features.embedding).chunk(3)
            loss = triplet_loss(anchor, positive, negative, c.margin, c.distance)
            total, logs["loss/triplet"] = total + c.triplet * loss, loss.detach()
        if c.reconstruction > 0:
            loss = reconstruction_loss(features.tokens[n:], keep, c.target)
            total, logs["loss/reconstruction"] = total + c.reconstruction * loss, loss.detach()
        if self.decoder is not None:
            tokens, keep = self._with_class_token(features, keep)
            sketch, positive, negative = tokens.chunk(3)
            loss, accuracy = interaction_loss(self.decoder, sketch, positive, negative, keep)
            total, logs["loss/interaction"] = total + c.interaction * loss, loss.detach()
            logs["match_accuracy"] = accuracy
        return StepOutput(total, logs)

    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """The class token (a CNN's pooled features) at unit length, [B, D]."""
        return normalize(self.projection(self.encoder(images).embedding).float(), dim=-1)

    def retrieval_state(self) -> dict[str, Tensor]:
        """All but the match decoder, which is for training only."""
        return {k: v for k, v in self.state_dict().items() if not k.startswith("decoder.")}

    @torch.no_grad()
    def _keep(self, batch: Batch, photos: Tensor, features: Features) -> Tensor:
        """Which patch tokens of the 2B photos are kept, bool [2B, N]."""
        c = self.config
        if c.masks == "none":
            return torch.ones(len(photos), features.tokens.shape[1], dtype=torch.bool, device=photos.device)
        if self._scorer is not None:
            labels = torch.cat([batch["photo_label"], batch["negative_label"]])
            scores = self._scorer(photos, labels)
        else:
            scores = torch.cat([batch["photo_scores"], batch["negative_scores"]])
        return keep_mask(to_grid(scores, features.grid), c.mask_ratio, c.rule, c.threshold)

    def _with_class_token(self, features: Features, keep: Tensor) -> tuple[Tensor, Tensor]:
        """All tokens of the 3B images and the 2B photos' mask, class token (always kept) in front."""
        if not self.class_token:
            return features.tokens, keep
        tokens = torch.cat([features.embedding[:, None], features.tokens], 1)
        return tokens, torch.cat([keep.new_ones(len(keep), 1), keep], 1)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_scorer": None}


def build(recipe: Recipe, load_weights: bool = True) -> Puxim:
    """Build PuXIM from a recipe; see `methods.table.build_method`."""
    config = recipe.method
    assert isinstance(config, PuximConfig)
    encoder = build_encoder(recipe.model, recipe.data.size, load_weights)
    if config.stem:
        add_stem(encoder.backbone, encoder.token_dim)
    scorer = LazyScorer(config.vxl, recipe.data.root) if config.masks == "online" else None
    return Puxim(config, encoder, recipe.model.projection, scorer)
