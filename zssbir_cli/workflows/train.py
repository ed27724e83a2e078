"""`zssbir train`: from a recipe and a prepared data set to a run's folder."""

import math
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zssbir_cli import __version__
from zssbir_cli.benchmarks.splits import SPLITS
from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.passes import embed_all
from zssbir_cli.engine.loader import training_stream
from zssbir_cli.engine.loop import FitResult, Validate, fit
from zssbir_cli.engine.profile import StepProfile, profile_steps
from zssbir_cli.engine.report import Hooks, Silent, memory_mb
from zssbir_cli.engine.runlog import RunDir, read_metrics
from zssbir_cli.engine.step import Stepper, seed_all
from zssbir_cli.engine.tensorboard import TensorBoardHooks
from zssbir_cli.errors import DataError, DivergedError, UsageError, ZssbirError
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.base import Method, Position
from zssbir_cli.methods.table import build_method, build_train_data
from zssbir_cli.models.encoder import Encoder
from zssbir_cli.recipe.loader import dump_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.curves import save_curves

EMBED_BATCH = 128


@dataclass(frozen=True)
class TrainOutcome:
    """What `train` leaves: the run's folder and how training went."""

    run: Path
    result: FitResult


@dataclass(frozen=True)
class CheckOutcome:
    """What `--check` found: everything but the training itself works."""

    steps: int
    trainable: int
    train_sketches: int
    train_photos: int
    val_classes: int
    loss: float
    memory_mb: int
    precision: str
    device: str


@dataclass(frozen=True)
class Setup:
    """All that a run needs, built and checked before its folder is made."""

    recipe: Recipe
    prepared: PreparedSet
    precision: Precision

    @classmethod
    def build(cls, recipe: Recipe, device: torch.device) -> "Setup":
        """Choose the precision and open the data set. Raises UsageError, DataError."""
        precision = Precision.choose(recipe.train.precision, device)
        return cls(recipe, open_data(recipe), precision)

    def features(self, part: Part, modality: Modality, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """`embed` of every image of a part, un-augmented: float32 [N, D], complete on every rank."""
        data = self.recipe.data
        images = EvalImages(self.prepared.images(part, modality), data.size, data.sketch_crop)
        return embed_all(
            embed, images, batch_size=EMBED_BATCH, workers=data.workers, precision=self.precision
        )


@dataclass(frozen=True)
class TrainProbe:
    """The training images for methods that look at all of them (`methods.base.Probe`)."""

    setup: Setup

    def features(self, modality: Modality, embed: Callable[[Tensor], Tensor]) -> Tensor:
        """See `methods.base.Probe`."""
        return self.setup.features(Part.TRAIN, modality, embed)


def open_data(recipe: Recipe) -> PreparedSet:
    """Open the recipe's prepared data set; a missing one names the command that makes it."""
    root = Path(recipe.data.root).expanduser()
    if not (root / "manifest.json").is_file():
        raise DataError(
            f"{root}: no prepared data set here; run `zssbir prepare {_source_of(root.name)}` first, or point the "
            f"recipe to yours with --set data.root=FOLDER"
        )
    return PreparedSet.open(root)


def _source_of(name: str) -> str:
    """What to prepare so that data/`name` appears: a data set, a named split of one, or a folder."""
    split = SPLITS.get(name)
    if split is not None:
        return f"{split.dataset} --split {name}"
    return name if name in ("demo", *(s.dataset for s in SPLITS.values())) else f"PICTURES --name {name}"


def validator(setup: Setup) -> Validate | None:
    """Retrieval on the held-out seen classes (part `val`); None when the data set holds out none."""
    images = {m: setup.prepared.images(Part.VAL, m) for m in Modality}
    if not setup.recipe.train.validate_every or any(len(i) == 0 for i in images.values()):
        return None

    def validate(method: Method) -> dict[str, float]:
        vectors = {
            m: setup.features(Part.VAL, m, lambda x, m=m: method.embed(x, m))  # type: ignore[misc]
            for m in Modality
        }
        found = evaluate(
            vectors[Modality.SKETCH],
            vectors[Modality.PHOTO],
            images[Modality.SKETCH].labels,
            images[Modality.PHOTO].labels,
            k=(100,),
        )
        return {"val/mAP@all": found.get("mAP@all"), "val/P@100": found.get("P@100")}

    return validate


def train(
    recipe: Recipe,
    *,
    runs: Path = Path("runs"),
    device: str = "auto",
    resume: Path | None = None,
    overfit: int | None = None,
    hooks: Hooks | None = None,
    tensorboard: bool = False,
    command: Sequence[str] = (),
) -> TrainOutcome:
    """Train `recipe` into a new folder under `runs`, or continue the run (or checkpoint) at `resume`.

    Leaves curves.png beside metrics.jsonl, and event files in tensorboard/ if asked.
    Raises UsageError, DataError, CheckpointError, DivergedError.
    """
    where = choose_device(device)
    with distributed.session(where):
        setup = Setup.build(recipe, where)
        method, data = build(setup)
        identity = {"name": setup.prepared.manifest.name, "identity": setup.prepared.identity}
        resolved = recipe.model_dump(mode="json")
        if resume is None:
            record = run_record(setup, command)
            run = RunDir.create(
                runs,
                recipe.name,
                recipe=resolved,
                recipe_yaml=dump_recipe(recipe),
                data=identity,
                record=record,
            )
        else:
            run = RunDir(run_folder(resume), resolved, identity)
            run.update_record({"resumed": [*run.record().get("resumed", []), run_record(setup, command)]})
        with ExitStack() as stack:
            hooks = hooks or Silent()
            if tensorboard:
                hooks = stack.enter_context(closing(TensorBoardHooks(run.path / "tensorboard", hooks)))
            if distributed.is_main():
                stack.callback(draw_curves, run)
            result = fit(
                method,
                data,
                optim=recipe.optim,
                train=recipe.train,
                workers=recipe.data.workers,
                run=run,
                precision=setup.precision,
                probe=TrainProbe(setup),
                validate=validator(setup),
                hooks=hooks,
                resume=(resume if resume != run.path else True) if resume else False,
                overfit=overfit,
            )
        return TrainOutcome(run.path, result)


def draw_curves(run: RunDir) -> None:
    """curves.png from metrics.jsonl, also of a run that was stopped; nothing where no step was logged or the
    disk is full."""
    if run.metrics_file.is_file():
        with suppress(ZssbirError):
            save_curves(run.path / "curves.png", read_metrics(run.path), title=run.path.name)


def build(setup: Setup) -> tuple[Method, Any]:
    """The method (seeded) and its training data. UsageError when labels would choose the checkpoint of a method
    that learns without labels."""
    seed_all(setup.recipe.train.seed)
    method = build_method(setup.recipe)
    if setup.recipe.train.validate_every and not method.uses_labels:
        raise UsageError(
            f"train.validate_every = {setup.recipe.train.validate_every}: {setup.recipe.method.name} learns without "
            "labels, and validation would choose its checkpoint by them; use --set train.validate_every=0"
        )
    if setup.recipe.train.compile:
        compile_encoders(method)
    return method, build_train_data(setup.recipe, setup.prepared)


def compile_encoders(method: Method) -> None:
    """Compile the backbones' forward passes in place; parameters keep their names."""
    for module in method.modules():
        if isinstance(module, Encoder):
            module.backbone.forward_features = torch.compile(module.backbone.forward_features)  # type: ignore[assignment, arg-type]


def profile(recipe: Recipe, *, steps: int, device: str = "auto") -> StepProfile:
    """Measure where the time of a step goes; writes nothing. Raises like `train`."""
    where = choose_device(device)
    with distributed.session(where):
        setup = Setup.build(recipe, where)
        method, data = build(setup)
        return profile_steps(
            method,
            data,
            optim=recipe.optim,
            train=recipe.train,
            workers=recipe.data.workers,
            precision=setup.precision,
            probe=TrainProbe(setup),
            steps=steps,
        )


def run_folder(path: Path) -> Path:
    """The run's folder that `path` is, or that the checkpoint `path` lies in."""
    return path.parent.parent if path.parent.name == "checkpoints" else path


def check(recipe: Recipe, *, device: str = "auto") -> CheckOutcome:
    """Do everything but train: open the data, build the method (missing mask scores are computed and kept), and
    take one step whose result is thrown away. Raises like `train`."""
    setup = Setup.build(recipe, choose_device(device))
    method, data = build(setup)
    stepper = Stepper(method, recipe.optim, recipe.train, setup.precision)
    method.before_epoch(0, TrainProbe(setup))
    stepper.wrap()
    count = min(recipe.optim.accumulate, data.plan.steps_per_epoch)
    steps = -(-data.plan.steps_per_epoch // recipe.optim.accumulate) * recipe.train.epochs
    with closing(training_stream(data, first=0, stop=count, workers=0, pin=False)) as stream:
        stepper.step(lambda _: next(stream), count, Position(0, steps, 0, recipe.train.epochs), stop=False)
    logs = stepper.monitor.flush()
    if not all(math.isfinite(v) for v in logs.values()):
        bad = ", ".join(name for name, v in logs.items() if not math.isfinite(v))
        raise DivergedError(
            f"the first step is not finite ({bad}): use train.precision=fp32, or lower optim.lr"
        )
    prepared = setup.prepared
    return CheckOutcome(
        steps=steps,
        trainable=sum(p.numel() for p in stepper.params),
        train_sketches=len(prepared.images(Part.TRAIN, Modality.SKETCH)),
        train_photos=len(prepared.images(Part.TRAIN, Modality.PHOTO)),
        val_classes=len(prepared.manifest.ids_for(Part.VAL)),
        loss=logs["loss"],
        memory_mb=round(memory_mb(setup.precision.device)),
        precision=setup.precision.name,
        device=str(setup.precision.device),
    )


def run_record(setup: Setup, command: Sequence[str]) -> dict[str, Any]:
    """What run.json keeps: versions, machine, git state, data set, seed and command line."""
    manifest = setup.prepared.manifest
    return {
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "zssbir": __version__,
        "versions": {n: version(n) for n in ("torch", "torchvision", "timm", "numpy", "h5py")},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": device_name(setup.precision.device),
        "precision": setup.precision.name,
        "threads": torch.get_num_threads(),
        "world_size": distributed.world_size(),
        "git": git_state(),
        "seed": setup.recipe.train.seed,
        "data": {
            "root": str(setup.prepared.root),
            "name": manifest.name,
            "split": manifest.split,
            "identity": setup.prepared.identity,
        },
        "command": list(command) or sys.argv,
    }


def device_name(device: torch.device) -> str:
    """The device as one would write it into a table."""
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({cpu_model()}, {os.cpu_count()} cores)"
    )


def cpu_model() -> str:
    """The processor's name, as Linux knows it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def git_state() -> str:
    """Commit of the source checkout that runs (with `-dirty`), or an empty text."""
    here = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    return out.stdout.strip()
