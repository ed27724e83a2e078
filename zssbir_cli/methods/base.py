"""The method boundary: all that the engine knows of a method.

A new method is one folder under `methods/` (config.py, method.py, data.py, its parts), one line in
`methods/table.py`, one recipe and one test file; nothing changes in the engine.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypedDict

from torch import Tensor, nn
from torch.utils.data import Dataset

from zssbir_cli.arrays import Ints
from zssbir_cli.models.centring import SAMPLE, Centring
from zssbir_cli.types import Modality

Batch = dict[str, Tensor]
"""What the data loader hands to `forward`: named tensors whose first dimension is the (local) batch.
Images are uint8 [B, C, H, W], C = 1 or 3; the encoder normalises them on the device."""


Embed = Callable[[Tensor], Tensor]
"""Images, uint8 [B, C, H, W] -> rows [B, D]."""


class StepOutput(NamedTuple):
    """Result of one forward pass: a scalar loss and detached scalars to log (names like `loss/triplet`)."""

    loss: Tensor
    logs: Mapping[str, Tensor]


class ParamGroup(TypedDict):
    """A parameter group of the optimizer; `lr_scale` multiplies the recipe's learning rate."""

    params: list[nn.Parameter]
    lr_scale: float


@dataclass(frozen=True)
class Position:
    """Where the run is. `step` counts optimizer steps from 0, `epoch` from 0."""

    step: int
    total_steps: int
    epoch: int
    epochs: int

    @property
    def epoch_fraction(self) -> float:
        """Epochs done, with the fraction of the present one."""
        return self.step / max(1, self.total_steps) * self.epochs


class Probe(Protocol):
    """What a method may ask of the training images: features of all of them (AMA's clustering), their classes."""

    def features(self, modality: Modality, embed: Embed, most: int | None = None) -> Tensor:
        """Apply `embed` to every training image of `modality`, or to `most` of them, spread evenly.

        Returns float32 [N, D] in data-set order, complete and identical on every rank.
        """
        ...

    def labels(self, modality: Modality, most: int | None = None) -> Tensor:
        """Labels int64 [N] of the images that `features` looks at, in its order."""
        ...

    def class_names(self) -> Mapping[int, str]:
        """Label -> name of the classes that the training images are of: never an unseen one."""
        ...


class Plan(Protocol):
    """Which items make up each batch: a pure function of the seed and the epoch."""

    @property
    def steps_per_epoch(self) -> int:
        """Global batches per epoch."""
        ...

    def batches(self, epoch: int) -> Ints:
        """Rows of image indices, [steps, global batch, columns]; what a column means is the method's."""
        ...


ItemKey = tuple[int, int, tuple[int, ...]]
"""(epoch, position of the item in the epoch's global order, row of image indices). Augmentation draws
from a generator seeded by (run seed, epoch, position), so an item is the same on any worker or rank."""


class TrainData(NamedTuple):
    """What a method trains on: the plan, and a map-style data set from `ItemKey` to one item (no batch
    dimension); items are stacked."""

    plan: Plan
    items: "Dataset[Batch]"


class Growing(nn.Module):
    """A part of a method whose buffers are empty until it has seen the data, and then as large as that asks for."""


class Method(nn.Module, ABC):
    """Base class of all methods. `state_dict()` holds all that resuming needs: teachers, centres and
    prototypes are frozen submodules or buffers. `train()` must keep teachers in eval mode. Every trainable
    parameter takes part in every step."""

    uses_labels: ClassVar[bool] = True
    """False for an unsupervised method: then no label chooses its checkpoint either."""

    @abstractmethod
    def forward(self, batch: Batch) -> StepOutput:
        """One training step's loss on a local batch; the only call that goes through DDP.

        Under several ranks the mean over ranks of `loss` gradients must be the gradient of the global
        batch's loss: gather with `compute.distributed.gather` where a loss uses the batch.
        """

    @abstractmethod
    def embed(self, images: Tensor, modality: Modality) -> Tensor:
        """Retrieval embeddings: uint8 images [B, C, H, W] -> float32 [B, D], unit length (eval mode)."""

    def param_groups(self) -> list[ParamGroup]:
        """Groups for the optimizer; default: all trainable parameters, those of encoders with their `lr_scale`."""
        from zssbir_cli.models.encoder import Encoder  # timm with it, which only those who train need

        scales = {p: m.lr_scale for m in self.modules() if isinstance(m, Encoder) for p in m.parameters()}
        groups: dict[float, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            if parameter.requires_grad:
                groups.setdefault(scales.get(parameter, 1.0), []).append(parameter)
        return [{"params": params, "lr_scale": scale} for scale, params in groups.items()]

    def retrieval_state(self) -> dict[str, Tensor]:
        """The part of `state_dict()` that `embed` needs; default: everything."""
        return self.state_dict()

    def before_load(self, weights: Mapping[str, Tensor]) -> None:
        """Called with a checkpoint's tensors before they are copied in: `Growing` parts take the sizes they have there."""
        for prefix, part in self.named_modules():
            if isinstance(part, Growing):
                for name, own in list(part.named_buffers()):
                    if (stored := weights.get(f"{prefix}.{name}")) is not None:
                        setattr(part, name, own.new_zeros(stored.shape))

    def before_retrieval(self, probe: Probe) -> None:
        """Called on every rank at the end of each epoch with the weights that retrieval will use (averaged, blended),
        before they are validated or stored: fill buffers that depend on them. (A checkpoint within an epoch,
        `train.checkpoint_every`, holds what was measured at the end of the last one.)"""

    def before_step(self, progress: Position) -> None:
        """Called before each optimizer step (schedules)."""

    def after_step(self, progress: Position, skipped: Tensor) -> None:
        """Called after each optimizer step (EMA teacher). `skipped`: scalar on the device, 1 for a step that was
        left out because its loss was not finite: it must change nothing."""

    def before_epoch(self, epoch: int, probe: Probe) -> dict[str, float]:
        """Called before each epoch, on every rank (clustering). Returns values to log."""
        return {}


def measure_means(centring: Centring, probe: Probe, embed: Embed) -> None:
    """Fill `centring` from a sample of the training images; no label is used."""
    for modality in Modality:
        centring.set_mean(probe.features(modality, embed, SAMPLE), modality)
