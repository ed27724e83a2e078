"""Settings of PuXIM. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from zssbir_cli.section import Section


class VxlConfig(Section):
    """The VxL sampler: the frozen vision-language model that scores a photo's patches for its class name."""

    model: str = Field(
        "ViT-B-16-quickgelu",
        description="An open_clip ViT, or `offline`: the small CLIP in the package (drawn pictures only).",
    )
    weights: str = Field(
        "openai", description="An open_clip tag (downloaded once) or a weight file; unused by `offline`."
    )
    size: int | None = Field(
        None, ge=16, le=1024, description="Side of CLIP's input, pixels; default: the model's."
    )
    blocks: int = Field(6, ge=1, description="Last blocks with CLIP Surgery's second path.")
    prompt: str = Field(
        "a photo of {}",
        description="Prompt with {} for the class name, or `ensemble` (85 prompts, averaged).",
    )
    against: Literal["article", "empty", "classes"] = Field(
        "article",
        description="What the class name is contrasted with: `article` the text 'a' (published), `empty` the "
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
    masks: str = Field(
        "cached",
        description="`cached`: scores computed once and stored beside the shards; `online`: in every step; "
        "`none`: keep every token; or a file of scores (see docs/puxim.md).",
    )
    vxl: VxlConfig = VxlConfig()
    mask_ratio: float = Field(0.7, ge=0, lt=1, description="Share of a photo's tokens that is masked.")
    rule: Literal["lowest", "random", "threshold"] = Field(
        "lowest",
        description="Which tokens are masked: the `lowest` scores, `random` ones (a control), or all below "
        "`threshold` of the way from the photo's lowest to its highest score.",
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="Used by `rule: threshold`.")
    triplet: float = Field(1.0, ge=0, description="Weight of the triplet term.")
    margin: float = Field(1.0, ge=0, description="Margin of the triplet term.")
    distance: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="Distance of the triplet term, between the embeddings before normalisation."
    )
    negatives: Literal["drawn", "batch"] = Field(
        "drawn",
        description="`drawn`: each row has a photo of another class (published); `batch`: the photos of other "
        "classes in the batch, all of them for the triplet term, so that a third less is encoded.",
    )
    contrast: float = Field(
        0.0, ge=0, description="Weight of the supervised contrastive loss over the batch (as in `triplet`)."
    )
    scale: float = Field(16.0, gt=0, description="Inverse temperature of the contrastive loss.")
    classes_per_batch: int | None = Field(
        None, ge=2, description="Different classes in a batch; null draws every row's class at random."
    )
    reconstruction: float = Field(0.05, ge=0, description="Weight of the masked reconstruction term.")
    target: Literal["mask", "norm", "share"] = Field(
        "mask",
        description="Reconstruction target: the masked tokens, or these normalised token by token; `share` divides a "
        "photo's tokens by their root mean square first (for CNNs, whose tokens have no fixed scale).",
    )
    interaction: float = Field(0.1, ge=0, description="Weight of the interaction (match or no match) term.")
    decoder_layers: int = Field(4, ge=1, description="Layers of the match decoder.")
    decoder_heads: int = Field(4, ge=1, description="Attention heads of the match decoder.")
    decoder_ff: int = Field(1024, ge=1, description="Feed-forward width of the match decoder.")
    decoder_width: int | None = Field(
        None, ge=1, description="Width of the match decoder; default: the encoder's."
    )
    decoder_dropout: float = Field(0.1, ge=0, lt=1, description="Dropout rate of the match decoder.")
    stem: bool = Field(
        False,
        description="Average the patch embedding with a 4-layer convolution stem, as the published code does "
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
