"""The interaction of purified masked matching: does this sketch show the unmasked part of that photo?"""

import torch
from torch import Tensor, nn

from zssbir_cli.errors import UsageError


class MatchDecoder(nn.Module):
    """Match or no match: sketch tokens are queries, the kept photo tokens keys and values.

    The published decoder ran with the batch where the tokens should be, so samples of a batch were mixed,
    and its keys and values were not masked; here every sample stands alone, and each layer has its own
    weights.
    """

    def __init__(
        self,
        dim: int,
        width: int | None = None,
        *,
        layers: int = 4,
        heads: int = 4,
        ff: int = 1024,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        width = width or dim
        if width % heads:
            raise UsageError(
                f"the match decoder's width {width} is not a multiple of method.decoder_heads {heads}: "
                "change decoder_heads or set decoder_width"
            )
        self.enter = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(width, heads, ff, dropout, batch_first=True) for _ in range(layers)
        )
        self.head = nn.Linear(width, 2)

    def forward(self, sketch: Tensor, photo: Tensor, keep: Tensor) -> Tensor:
        """Logits [B, 2] (no match, match).

        Args:
            sketch: tokens [B, L, D]. photo: tokens [B, M, D].
            keep: bool [B, M], True = token of the photo that may be seen; at least one per photo.
        """
        x, memory = self.enter(sketch), self.enter(photo)
        for layer in self.layers:
            x = layer(x, memory, memory_key_padding_mask=~keep)
        logits: Tensor = self.head(x).mean(1)
        return logits


def interaction_loss(
    decoder: MatchDecoder, sketch: Tensor, photo: Tensor, keep: Tensor, own: Tensor, negative: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of 2B decisions: sketch i matches photo `own[i]`, but not photo `negative[i]`.

    sketch: tokens [B, L, D]. photo: tokens [P, L, D]. keep: bool [P, L]. own, negative: int64 [B], rows of photos.
    Returns the loss and the share of right decisions (detached), scalars.
    """
    shown = torch.cat([own, negative])
    logits = decoder(sketch.repeat(2, 1, 1), photo[shown], keep[shown])
    logits = logits if logits.dtype.itemsize == 8 else logits.float()
    label = (own.repeat(2) == shown).long()  # a row without a negative is shown its own photo twice
    right = (logits.detach().argmax(1) == label).float().mean()
    return nn.functional.cross_entropy(logits, label), right


def other_class(labels: Tensor) -> Tensor:
    """For each row of a batch the next row (cyclically) of another class, int64 [B]; the row itself when all
    rows are of one class."""
    rows = torch.arange(len(labels), device=labels.device)
    ahead = (rows[None] - rows[:, None]) % len(labels)
    return (ahead + len(labels) * (labels[:, None] == labels[None])).argmin(1)
