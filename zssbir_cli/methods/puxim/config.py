"""Settings of PuXIM. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from zssbir_cli.section import Section, key


class VxlConfig(Section):
    """The VxL sampler: the frozen vision-language model that scores a photo's patches for its class name."""

    model: str = key(
        "ViT-B-16-quickgelu",
        "An open_clip ViT, or `offline`: the small CLIP in the package (drawn pictures only).",
    )
    weights: str = key("openai", "An open_clip tag (downloaded once) or a weight file; unused by `offline`.")
    size: int | None = key(None, "Side of CLIP's input, pixels; default: the model's.", ge=16, le=1024)
    blocks: int = key(6, "Last blocks with CLIP Surgery's second path.", ge=1)
    prompt: str = key(
        "a photo of {}", "Prompt with {} for the class name, or `ensemble` (85 prompts, averaged)."
    )
    against: Literal["article", "empty", "classes"] = key(
        "article",
        "What the class name is contrasted with: `article` the text 'a' (published), `empty` the "
        "empty prompt, `classes` the other training classes.",
    )
    class_names: dict[str, str] = Field(
        default_factory=dict, description="Words to use for a class instead of its cleaned name."
    )

    @model_validator(mode="after")
    def _prompt_has_a_place(self) -> Self:
        if self.prompt != "ensemble" and "{}" not in self.prompt:
            raise ValueError(f"prompt {self.prompt!r} has no {{}} for the class name")
        return self


class PuximConfig(Section):
    """PuXIM (purified masked matching): forget the background of photos, match the rest with sketches."""

    name: Literal["puxim"] = "puxim"
    masks: str = key(
        "cached",
        "`cached`: scores computed once and stored beside the shards; `online`: in every step; "
        "`none`: keep every token; or a file of scores (see docs/puxim.md).",
    )
    vxl: VxlConfig = VxlConfig()
    mask_ratio: float = key(0.7, "Share of a photo's tokens that is masked.", ge=0, lt=1)
    rule: Literal["lowest", "random", "threshold"] = key(
        "lowest",
        "Which tokens are masked: the `lowest` scores, `random` ones (a control), or all below "
        "`threshold` of the way from the photo's lowest to its highest score.",
    )
    threshold: float = key(0.5, "Used by `rule: threshold`.", gt=0, lt=1)
    triplet: float = key(1.0, "Weight of the triplet term.", ge=0)
    margin: float = key(1.0, "Margin of the triplet term.", ge=0)
    distance: Literal["euclidean", "cosine"] = key(
        "euclidean", "Distance of the triplet term, between the embeddings before normalisation."
    )
    negatives: Literal["drawn", "batch"] = key(
        "drawn",
        "`drawn`: each row has a photo of another class (published); `batch`: the photos of other "
        "classes in the batch, all of them for the triplet term, so that a third less is encoded.",
    )
    contrast: float = key(
        0.0, "Weight of the supervised contrastive loss over the batch (as in `triplet`).", ge=0
    )
    scale: float = key(16.0, "Inverse temperature of the contrastive loss.", gt=0)
    classes_per_batch: int | None = key(
        None,
        "Different classes in a batch (all, where there are fewer); null draws every row's class at random.",
        ge=2,
    )
    reconstruction: float = key(0.05, "Weight of the masked reconstruction term.", ge=0)
    target: Literal["mask", "norm", "share"] = key(
        "mask",
        "Reconstruction target: the masked tokens, or these normalised token by token; `share` divides a "
        "photo's tokens by their root mean square first (for CNNs, whose tokens have no fixed scale).",
    )
    interaction: float = key(0.1, "Weight of the interaction (match or no match) term.", ge=0)
    decoder_layers: int = key(4, "Layers of the match decoder.", ge=1)
    decoder_heads: int = key(4, "Attention heads of the match decoder.", ge=1)
    decoder_ff: int = key(1024, "Feed-forward width of the match decoder.", ge=1)
    decoder_width: int | None = key(None, "Width of the match decoder; default: the encoder's.", ge=1)
    decoder_dropout: float = key(0.1, "Dropout rate of the match decoder.", ge=0, lt=1)
    stem: bool = key(
        False,
        "Average the patch embedding with a 4-layer convolution stem, as the published code does "
        "(ViTs with 16-pixel patches).",
    )

    @model_validator(mode="after")
    def _terms_make_sense(self) -> Self:
        if self.triplet == self.reconstruction == self.interaction == self.contrast == 0:
            raise ValueError("all terms are off: give triplet, reconstruction or interaction a weight")
        if self.negatives == "batch" and self.distance != "cosine":
            raise ValueError("negatives: batch needs distance: cosine")
        if self.masks == "none" and self.reconstruction > 0:
            raise ValueError("masks: none leaves nothing to reconstruct: set reconstruction to 0")
        return self
