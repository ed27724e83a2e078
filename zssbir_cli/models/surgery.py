"""CLIP Surgery (Li et al. 2023): a CLIP image tower whose patch tokens say where a text is in the picture.

The last n blocks get a second path in which every token attends by the similarity of *values* and which
skips the MLPs: its patch tokens stay local, while the class token keeps CLIP's own path. Nothing is
trained, and the tower shares CLIP's parameters.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zssbir_cli.errors import UsageError


class SurgeryTower(nn.Module):
    """Dual-path view of an open_clip ViT image tower.

    Args:
        visual: `model.visual` of an open_clip ViT with a class token; its parameters are shared, not copied.
        blocks: how many of the last blocks have the second path, 1 to the tower's depth (published: 6).

    Errors: UsageError: the tower is not such a ViT, or `blocks` exceeds its depth.
    """

    def __init__(self, visual: nn.Module, blocks: int = 6) -> None:
        super().__init__()
        _check(visual, blocks)
        self.visual: Any = visual
        self.blocks = blocks

    @property
    def patch(self) -> int:
        """Side of a patch in pixels."""
        return int(self.visual.image_size[0] // self.visual.grid_size[0])

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images [B, 3, H, W] -> tokens [B, 1 + N, C] in the joint space, class token first, not
        yet of unit length; N = (H // patch) * (W // patch)."""
        v = self.visual
        x = self._embed(images.to(v.class_embedding.dtype))
        layers = list(v.transformer.resblocks)
        start = len(layers) - self.blocks
        for block in layers[:start]:
            x = block(x)
        new = x
        for block in layers[start:]:
            original, local = _dual_attention(block, block.ln_1(x))
            new = new + block.ls_1(local)  # no MLP and no norm on this path
            x = x + block.ls_1(original)
            x = x + block.ls_2(block.mlp(block.ln_2(x)))
        tokens: Tensor = v.ln_post(torch.cat([x[:, :1], new[:, 1:]], 1))
        return tokens @ v.proj if v.proj is not None else tokens

    def _embed(self, images: Tensor) -> Tensor:
        """Patches, class token and position, [B, 1 + N, width]."""
        v = self.visual
        x = v.conv1(images)
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        cls = v.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        position = resize_position(v.positional_embedding, v.grid_size, grid)
        out: Tensor = v.ln_pre(torch.cat([cls, x], 1) + position.to(x.dtype))
        return out


def _check(visual: Any, blocks: int) -> None:
    layers = list(getattr(getattr(visual, "transformer", None), "resblocks", []))
    plain = bool(layers) and all(isinstance(getattr(b, "attn", None), nn.MultiheadAttention) for b in layers)
    if not plain or getattr(visual, "attn_pool", None) is not None or visual.pool_type != "tok":
        raise UsageError(
            f"CLIP Surgery needs a plain open_clip ViT with a class token, not {type(visual).__name__}: "
            "choose a vxl.model such as ViT-B-16-quickgelu"
        )
    if not 1 <= blocks <= len(layers):
        depth = len(layers)
        raise UsageError(f"vxl.blocks is {blocks}, but the tower has {depth} blocks: choose 1 to {depth}")


def _dual_attention(block: Any, h: Tensor) -> tuple[Tensor, Tensor]:
    """Original and value-value self-attention of one block on h = ln_1(x) [B, L, D], each after the shared
    output projection, [B, L, D]."""
    attn: nn.MultiheadAttention = block.attn
    batch, length, width = h.shape
    qkv = F.linear(h, attn.in_proj_weight, attn.in_proj_bias)
    q, k, v = qkv.view(batch, length, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    paths = torch.cat([F.scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(v, v, v)])
    out: Tensor = attn.out_proj(paths.transpose(1, 2).reshape(2 * batch, length, width))
    return out[:batch], out[batch:]


def resize_position(position: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Positional embedding [1 + h*w, D] for another grid, bicubic; the parameter is untouched."""
    if tuple(old) == tuple(new):
        return position
    grid = position[1:].float().view(1, *old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=True)
    return torch.cat([position[:1].float(), grid.flatten(2).squeeze(0).T])


def feature_surgery(tokens: Tensor, text: Tensor) -> Tensor:
    """Similarity of every token to every text after removing what all the texts share.

    With f the tokens, t the texts and w_n = softmax_n(2 CLS . t_n) / mean_n(...):
    S[b,i,n] = sum_c (f t_n w_n - mean_n f t_n w_n) = f_i . (w_n t_n - mean_n w_n t_n).

    Args:
        tokens: unit-length tokens [B, I, C], class token first.
        text: unit-length texts [N, C], or [B, N, C] when each image has its own. N = 1 gives zeros: use
            `single_text_similarity`.

    Returns: [B, I, N], higher = more like the text.
    """
    if text.dim() == 2:
        text = text.expand(len(tokens), -1, -1)
    weight = (2 * tokens[:, :1] @ text.transpose(1, 2)).softmax(-1)  # [B, 1, N]
    weight = weight / weight.mean(-1, keepdim=True)
    weighted = text * weight.transpose(1, 2)
    return tokens @ (weighted - weighted.mean(1, keepdim=True)).transpose(1, 2)


def single_text_similarity(tokens: Tensor, text: Tensor, empty: Tensor) -> Tensor:
    """Surgery for one text: S = f . (t - t_empty), t_empty the embedding of the empty prompt.

    tokens [B, I, C], text [N, C] or [B, N, C], empty [C], all of unit length -> [B, I, N].
    """
    return tokens @ (text - empty).transpose(-1, -2)
