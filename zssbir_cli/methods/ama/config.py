"""Settings of AMA. Imports no torch."""

from typing import Literal, Self

from pydantic import Field, model_validator

from zssbir_cli.section import Section


class ViewsConfig(Section):
    """The crops of each image (DINO's multi-crop augmentation)."""

    global_size: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Side of the global crops, pixels; null: `data.size`, which retrieval and clustering always use. "
        "Smaller crops make things look larger in training than in use, and train faster (Touvron et al., FixRes, "
        "2019). For convolutional backbones and vision transformers with `dynamic_img_size`.",
    )
    local_size: int = Field(96, ge=16, le=1024, description="Side of the local crops, pixels.")
    locals: int = Field(8, ge=0, le=32, description="Local crops per image, seen by the student only.")
    global_scale: tuple[float, float] = Field(
        (0.6, 1.0), description="Share of the area a global crop keeps."
    )
    local_scale: tuple[float, float] = Field((0.2, 0.6), description="Share of the area a local crop keeps.")
    blur: float = Field(2.0, ge=0, description="Largest standard deviation of the blur, pixels.")
    color: float = Field(1.0, ge=0, le=2, description="Strength of the colour jitter; 1 = DINO's.")
    drawings: int = Field(
        0,
        ge=0,
        le=8,
        description="Further crops of each photo, global in size, turned into line drawings by an edge "
        "filter and seen "
        "by the student only: they tie photos to sketches without labels. Not in the published method (0).",
    )
    drawing_scale: tuple[float, float] = Field((0.6, 1.0), description="Share of the area such a crop keeps.")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("global_scale", "local_scale", "drawing_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} [{low}, {high}] is not a range within 0-1")
        return self


class HeadConfig(Section):
    """The DINO head behind the encoder, of student and teacher."""

    out_dim: int = Field(65536, ge=2, description="Prototypes of the last layer.")
    hidden: int = Field(2048, ge=1, description="Width of the hidden layers.")
    bottleneck: int = Field(256, ge=1, description="Width before the last layer.")
    layers: int = Field(3, ge=1, description="Linear layers before the last one.")
    train_norm: bool = Field(False, description="Also learn the norms of the last layer's rows.")


class ClusterConfig(Section):
    """k-means of the teacher's features of all training images, per modality, once per epoch."""

    k: tuple[int, ...] = Field(
        (250, 500, 1000), min_length=1, description="Clusters per level, coarse to fine."
    )
    share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="Upper limit on a level's clusters, as a share of the modality's training images.",
    )
    iterations: int = Field(20, ge=1, description="Largest number of passes over the data.")
    restarts: int = Field(1, ge=1, description="Random starts; the best result is kept (published: 5).")
    every: int = Field(1, ge=1, description="Epochs between clusterings.")
    warm_start: bool = Field(
        False, description="Start from the last epoch's centroids: fewer passes, at times a worse optimum."
    )


class AmaConfig(Section):
    """AMA (asymmetric mutual alignment): unsupervised; training labels never reach it."""

    name: Literal["ama"] = "ama"
    views: ViewsConfig = ViewsConfig()
    head: HeadConfig = HeadConfig()
    clusters: ClusterConfig = ClusterConfig()
    head_weights: Literal["auto", "none"] = Field(
        "auto",
        description="`auto`: from the checkpoint that `model.weights` names when it holds DINO heads, else "
        "random (said "
        "in the log); `none`: always random.",
    )
    momentum: float = Field(0.999, ge=0, lt=1, description="EMA momentum of the teacher, head included.")
    centers: Literal["shared", "separate"] = Field(
        "shared", description="DINO centre: one for both modalities (published) or one each."
    )
    center_momentum: float = Field(0.9, ge=0, lt=1, description="EMA momentum of the centre.")
    student_temperature: float = Field(
        0.1, gt=0, description="Temperature of the student's outputs in self-distillation."
    )
    teacher_temperature: float = Field(
        0.04, gt=0, description="Temperature of the teacher's outputs in self-distillation."
    )
    distill_sketch: float = Field(2.0, ge=0, description="Weight of self-distillation, sketches.")
    distill_photo: float = Field(1.0, ge=0, description="Weight of self-distillation, photos.")
    cluster: float = Field(0.5, ge=0, description="Weight of contrastive clustering at the end of its ramp.")
    cluster_start: int = Field(
        20, ge=0, description="Epoch (from 0) of the first clustering; the ramp starts here."
    )
    cluster_full: int = Field(100, ge=0, description="Epoch at which the ramp ends.")
    cluster_temperature: float = Field(0.2, gt=0, description="Temperature of contrast and of the threshold.")
    cc_threshold: float = Field(
        0.2, ge=0, description="Anchors count when their own cluster's probability is above this."
    )
    cc_relative: bool = Field(
        False,
        description="Take cc_threshold as a multiple of 1/K (chance) instead of an absolute probability.",
    )
    guidance: float = Field(0.02, ge=0, description="Weight of similarity guidance.")
    neighbours: int = Field(10, ge=2, description="Neighbours of similarity guidance's context.")
    alignment: float = Field(0.1, ge=0, description="Weight of mutual alignment.")
    alignment_temperature: float = Field(
        0.01, gt=0, description="Temperature of the cluster assignments in mutual alignment."
    )
    pairing_start: int = Field(40, ge=0, description="Epoch from which guidance and alignment count.")
    centre: bool = Field(
        False,
        description="Subtract the mean of its modality, measured on 256 training images of each without their labels, "
        "from every embedding: takes away what only tells sketches from photos.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.distill_sketch == self.distill_photo == 0:
            raise ValueError("distill_sketch and distill_photo are both 0: the heads would learn nothing")
        if self.cluster_full < self.cluster_start:
            raise ValueError(
                f"cluster_full {self.cluster_full} lies before cluster_start {self.cluster_start}"
            )
        if list(self.clusters.k) != sorted(set(self.clusters.k)):
            raise ValueError(f"clusters.k {list(self.clusters.k)} must increase from level to level")
        if self.alignment > 0 and self.pairing_start < self.cluster_start:
            raise ValueError(
                f"alignment needs prototypes: pairing_start {self.pairing_start} lies before cluster_start "
                f"{self.cluster_start}"
            )
        return self
