"""Settings of the triplet baseline. Imports no torch."""

from typing import Literal

from pydantic import Field

from zssbir_cli.section import Section


class TripletConfig(Section):
    """A plain supervised baseline over any backbone: each sketch against the photos of its batch."""

    name: Literal["triplet"] = "triplet"
    margin: float = Field(0.2, ge=0, description="Margin of the triplet loss on cosine distances.")
    triplet_weight: float = Field(1.0, ge=0, description="Weight of the triplet loss.")
    contrast_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the supervised contrastive loss over all sketches and photos of the batch.",
    )
    scale: float = Field(16.0, gt=0, description="Inverse temperature of the contrastive loss.")
    preserve_weight: float = Field(
        0.0,
        ge=0,
        description="Weight that keeps photo embeddings near those of the frozen start (cosine distance), so that "
        "what the pretrained network knows of unseen classes is not forgotten.",
    )
    text_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of the text-anchored head: cross-entropy over the training classes, whose names in the "
        "backbone's own text side are the fixed classifier (CLIP-AT, Sain et al. 2023). For backbones with a text side.",
    )
    text_scale: float = Field(50.0, gt=0, description="Inverse temperature of the text-anchored head.")
    text_prompt: str = Field(
        "a photo of a {}.", description="Prompt of the class names; `ensemble` averages 85 prompts."
    )
    text_file: str | None = Field(
        None,
        description="A checkpoint of the whole open_clip model with the text side; null: downloaded once.",
    )
    centre: bool = Field(
        False,
        description="Subtract the mean of its modality, measured on 256 training images of each without their labels, "
        "from every embedding: takes away what only tells sketches from photos.",
    )
    train_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of the views that are trained on, pixels; null: `data.size`, which retrieval always uses. "
        "Smaller views make things look larger in training than in use, train faster, and retrieve better "
        "(Touvron et al., FixRes, 2019). For convolutional backbones.",
    )
    classes_per_batch: int | None = Field(
        None, ge=2, description="Different classes in a batch; null draws every row's class at random."
    )
