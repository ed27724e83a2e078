"""Settings of the triplet baseline. Imports no torch."""

from typing import Literal, Self

from pydantic import model_validator

from zssbir_cli.section import Section, key


class TripletConfig(Section):
    """A plain supervised baseline over any backbone: each sketch against the photos of its batch."""

    name: Literal["triplet"] = "triplet"
    margin: float = key(0.2, "Margin of the triplet loss on cosine distances.", ge=0)
    triplet_weight: float = key(1.0, "Weight of the triplet loss.", ge=0)
    contrast_weight: float = key(
        0.0, "Weight of the supervised contrastive loss over all sketches and photos of the batch.", ge=0
    )
    scale: float = key(16.0, "Inverse temperature of the contrastive loss.", gt=0)
    preserve_weight: float = key(
        0.0,
        "Weight that keeps photo embeddings near those of the frozen start (cosine distance), so that "
        "what the pretrained network knows of unseen classes is not forgotten.",
        ge=0,
    )
    class_weight: float = key(
        0.0,
        "Weight of a head of class means: cross-entropy over the training classes, at `scale`, with the means of their "
        "photos' embeddings before training as the fixed classifier.",
        ge=0,
    )
    text_weight: float = key(
        0.0,
        "Weight of the text-anchored head: cross-entropy over the training classes, whose names in the "
        "backbone's own text side are the fixed classifier (CLIP-AT, Sain et al. 2023). For backbones with a text side.",
        ge=0,
    )
    text_scale: float = key(50.0, "Inverse temperature of the text-anchored head.", gt=0)
    text_prompt: str = key("a photo of a {}.", "Prompt of the class names; `ensemble` averages 85 prompts.")
    text_file: str | None = key(
        None, "A checkpoint of the whole open_clip model with the text side; null: downloaded once."
    )
    centre: bool = key(
        False,
        "Subtract the mean of its modality, measured on 256 training images of each without their labels, "
        "from every embedding: takes away what only tells sketches from photos.",
    )
    train_size: int | None = key(
        None,
        "Side of the views that are trained on, pixels; null: `data.size`, which retrieval always uses. "
        "Smaller views make things look larger in training than in use, train faster, and retrieve better "
        "(Touvron et al., FixRes, 2019). For convolutional backbones.",
        ge=16,
        le=1024,
    )
    classes_per_batch: int | None = key(
        None,
        "Different classes in a batch (all, where there are fewer); null draws every row's class at random.",
        ge=2,
    )

    @model_validator(mode="after")
    def _terms_make_sense(self) -> Self:
        weights = (
            self.triplet_weight,
            self.contrast_weight,
            self.preserve_weight,
            self.class_weight,
            self.text_weight,
        )
        if not any(weights):
            raise ValueError("all terms are off: give triplet_weight, contrast_weight or another one a value")
        if self.text_weight and self.text_prompt != "ensemble" and "{}" not in self.text_prompt:
            raise ValueError(f"text_prompt {self.text_prompt!r} has no {{}} for the class name")
        return self
