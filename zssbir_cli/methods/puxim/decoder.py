"""The interaction of purified masked matching: does this sketch show what is left of that photo?"""

import torch
from torch import Tensor, nn

from zssbir_cli.errors import UsageError


class Attention(nn.Module):
    """Multi-head attention of `x` over `memory`, with a mask over the memory.

    Explicit matrix products on the CPU, where the backward pass of fused attention in bf16 is several times
    slower; fused attention elsewhere.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor | None = None) -> Tensor:
        """x [B, L, D], memory [B, M, D], keep bool [B, M] (True = may be attended to) -> [B, L, D]."""
        batch, length, width = x.shape
        q = self.query(x).view(batch, length, self.heads, -1).transpose(1, 2)
        k, v = self.key_value(memory).view(batch, memory.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mask = None if keep is None else keep[:, None, None, :]
        if x.device.type == "cpu":
            weight = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
            if mask is not None:
                weight = weight.masked_fill(~mask, float("-inf"))
            y = weight.softmax(-1).to(v.dtype) @ v
        else:
            y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out: Tensor = self.out(y.transpose(1, 2).reshape(batch, length, width))
        return out


class DecoderLayer(nn.Module):
    """Self-attention over the sketch, cross-attention to the photo, feed-forward; norms come after, as in
    `nn.TransformerDecoderLayer`."""

    def __init__(self, width: int, heads: int, ff: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads)
        self.cross_attention = Attention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, ff), nn.ReLU(), nn.Dropout(dropout), nn.Linear(ff, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, keep: Tensor) -> Tensor:
        """x [B, L, D], memory [B, M, D], keep bool [B, M] -> [B, L, D]."""
        x = self.norms[0](x + self.dropout(self.self_attention(x, x)))
        x = self.norms[1](x + self.dropout(self.cross_attention(x, memory, keep)))
        out: Tensor = self.norms[2](x + self.dropout(self.feed_forward(x)))
        return out


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
        self.layers = nn.ModuleList(DecoderLayer(width, heads, ff, dropout) for _ in range(layers))
        self.head = nn.Linear(width, 2)

    def forward(self, sketch: Tensor, photo: Tensor, keep: Tensor) -> Tensor:
        """Logits [B, 2] (no match, match).

        Args:
            sketch: tokens [B, L, D]. photo: tokens [B, M, D].
            keep: bool [B, M], True = token of the photo that may be seen; at least one per photo.
        """
        x, memory = self.enter(sketch), self.enter(photo)
        for layer in self.layers:
            x = layer(x, memory, keep)
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
