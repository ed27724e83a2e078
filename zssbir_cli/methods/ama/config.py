"""Settings of AMA. Imports no torch."""

from typing import Literal, Self

from pydantic import model_validator

from zssbir_cli.section import Section, key


class ViewsConfig(Section):
    """The crops of each image (DINO's multi-crop augmentation)."""

    global_size: int | None = key(
        None,
        "Side of the global crops, pixels; null: `data.size`, which retrieval and clustering always use. "
        "Smaller crops make things look larger in training than in use, and train faster (Touvron et al., FixRes, "
        "2019). For convolutional backbones and vision transformers with `dynamic_img_size`.",
        ge=16,
        le=1024,
    )
    local_size: int = key(96, "Side of the local crops, pixels.", ge=16, le=1024)
    locals: int = key(8, "Local crops per image, seen by the student only.", ge=0, le=32)
    global_scale: tuple[float, float] = key((0.6, 1.0), "Share of the area a global crop keeps.")
    local_scale: tuple[float, float] = key((0.2, 0.6), "Share of the area a local crop keeps.")
    blur: float = key(2.0, "Largest standard deviation of the blur, pixels.", ge=0)
    color: float = key(1.0, "Strength of the colour jitter; 1 = DINO's.", ge=0, le=2)
    drawings: int = key(
        0,
        "Further crops of each photo, global in size, turned into line drawings by an edge filter and seen by "
        "the student only: they tie photos to sketches without labels. Not in the published method (0).",
        ge=0,
        le=8,
    )
    drawing_scale: tuple[float, float] = key((0.6, 1.0), "Share of the area such a crop keeps.")

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for name in ("global_scale", "local_scale", "drawing_scale"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise ValueError(f"{name} [{low}, {high}] is not a range within 0-1")
        return self


class HeadConfig(Section):
    """The DINO head behind the encoder, of student and teacher."""

    out_dim: int = key(65536, "Prototypes of the last layer.", ge=2)
    hidden: int = key(2048, "Width of the hidden layers.", ge=1)
    bottleneck: int = key(256, "Width before the last layer.", ge=1)
    layers: int = key(3, "Linear layers before the last one.", ge=1)
    train_norm: bool = key(False, "Also learn the norms of the last layer's rows.")


class ClusterConfig(Section):
    """k-means of the teacher's features of all training images, per modality, once per epoch."""

    k: tuple[int, ...] = key((250, 500, 1000), "Clusters per level, coarse to fine.", min_length=1)
    share: float = key(
        0.25, "Upper limit on a level's clusters, as a share of the modality's training images.", gt=0, le=1
    )
    iterations: int = key(20, "Largest number of passes over the data.", ge=1)
    restarts: int = key(1, "Random starts; the best result is kept (published: 5).", ge=1)
    every: int = key(1, "Epochs between clusterings.", ge=1)
    warm_start: bool = key(
        False, "Start from the last epoch's centroids: fewer passes, at times a worse optimum."
    )


class AmaConfig(Section):
    """AMA (asymmetric mutual alignment): unsupervised; training labels never reach it."""

    name: Literal["ama"] = "ama"
    views: ViewsConfig = ViewsConfig()
    head: HeadConfig = HeadConfig()
    clusters: ClusterConfig = ClusterConfig()
    head_weights: Literal["auto", "none"] = key(
        "auto",
        "`auto`: from the checkpoint that `model.weights` names when it holds DINO heads, else random (said in the "
        "log); `none`: always random.",
    )
    momentum: float = key(0.999, "EMA momentum of the teacher, head included.", ge=0, lt=1)
    centers: Literal["shared", "separate"] = key(
        "shared", "DINO centre: one for both modalities (published) or one each."
    )
    center_momentum: float = key(0.9, "EMA momentum of the centre.", ge=0, lt=1)
    student_temperature: float = key(0.1, "Temperature of the student's outputs in self-distillation.", gt=0)
    teacher_temperature: float = key(0.04, "Temperature of the teacher's outputs in self-distillation.", gt=0)
    distill_sketch: float = key(2.0, "Weight of self-distillation, sketches.", ge=0)
    distill_photo: float = key(1.0, "Weight of self-distillation, photos.", ge=0)
    cluster: float = key(0.5, "Weight of contrastive clustering at the end of its ramp.", ge=0)
    cluster_start: int = key(20, "Epoch (from 0) of the first clustering; the ramp starts here.", ge=0)
    cluster_full: int = key(100, "Epoch at which the ramp ends.", ge=0)
    cluster_temperature: float = key(0.2, "Temperature of contrast and of the threshold.", gt=0)
    cc_threshold: float = key(0.2, "Anchors count when their own cluster's probability is above this.", ge=0)
    cc_relative: bool = key(
        False, "Take cc_threshold as a multiple of 1/K (chance) instead of an absolute probability."
    )
    guidance: float = key(0.02, "Weight of similarity guidance.", ge=0)
    neighbours: int = key(10, "Neighbours of similarity guidance's context.", ge=2)
    alignment: float = key(0.1, "Weight of mutual alignment.", ge=0)
    alignment_temperature: float = key(
        0.01, "Temperature of the cluster assignments in mutual alignment.", gt=0
    )
    pairing_start: int = key(40, "Epoch from which guidance and alignment count.", ge=0)
    centre: bool = key(
        False,
        "Subtract the mean of its modality, measured on 256 training images of each without their labels, "
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
