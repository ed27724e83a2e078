"""`zssbir train`: from a recipe and a prepared data set to a run's folder."""

import sys
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zssbir_cli.compute import distributed
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.embedding.own import preprocessing
from zssbir_cli.engine.circumstances import circumstances
from zssbir_cli.engine.job import FitResult
from zssbir_cli.engine.loop import fit
from zssbir_cli.engine.profile import StepProfile, profile_steps
from zssbir_cli.engine.report import Hooks, Report, Silent, TensorBoardHooks
from zssbir_cli.engine.resume import check_resume
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import find_run, read_metrics
from zssbir_cli.errors import UsageError, ZssbirError
from zssbir_cli.files import write_text
from zssbir_cli.models.towers import start_of
from zssbir_cli.progress import Progress, silent
from zssbir_cli.recipe.loader import dump_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import AnyPath
from zssbir_cli.viz.curves import save_curves
from zssbir_cli.workflows.recipes import Settings, check_resumable, check_runs, choose_recipe
from zssbir_cli.workflows.setup import Setup, build_job


@dataclass(frozen=True)
class TrainOutcome:
    """What `train` leaves: the run's folder and how training went."""

    run: Path
    result: FitResult


@dataclass
class ProgressHooks(Silent):
    """Hooks that tell a `Progress` how far the training is, and keep reports and notes."""

    progress: Progress = field(default=silent)

    def report(self, report: Report) -> None:
        super().report(report)
        self.progress("training", report.step, report.total_steps)


def train(
    recipe: Recipe | AnyPath | None = None,
    *,
    data: AnyPath | None = None,
    settings: Settings = (),
    runs: AnyPath = "runs",
    device: str = "auto",
    resume: AnyPath | None = None,
    overfit: int | None = None,
    hooks: Hooks | None = None,
    tensorboard: bool = False,
    progress: Progress = silent,
) -> TrainOutcome:
    """Train into a new folder under `runs`, or continue a run; leaves weights, metrics and curves there.

    Args:
        recipe: a shipped recipe's name, a file, or a `Recipe` (then without `data` and `settings`).
        data: the prepared data set. settings: changes of the recipe, {"train.epochs": 5} or ["train.epochs=5"].
        resume: a run or one of its checkpoints to continue (see `find_run`); its recipe is used.
        overfit: for debugging, train on this many batches only.
        hooks: receives every report of the loop (loss, speed, validation); progress: only how far it is.
        tensorboard: also write event files.

    Errors: UsageError, DataError, CheckpointError, DivergedError (the loss is no longer finite).

    >>> trained = zssbir.train("tiny.yaml", data="data/pictures", settings={"train.epochs": 1})
    >>> trained.result.steps
    5
    """
    if not isinstance(recipe, Recipe):
        recipe = choose_recipe(recipe, data=data, settings=settings, resume=resume, runs=runs)
    elif data is not None or settings:
        raise UsageError("data and settings apply to a recipe given by name or file, not to a Recipe")
    runs = Path(runs)
    if resume is not None:
        check_resumable(resume, runs)
    else:
        check_runs(runs)
    where = choose_device(device)
    with distributed.session(where), ExitStack() as stack:
        setup = Setup.build(recipe, where, resumed_run(resume, runs))
        setup, job = build_job(setup, overfit=overfit)
        run, source = _open_run(setup, runs, resume)
        stack.enter_context(run.locked())
        if resume is not None:
            check_resume(run, source)
            _remember(run, setup)
        hooks = hooks or ProgressHooks(progress=progress)
        if tensorboard:
            hooks = stack.enter_context(closing(TensorBoardHooks(run.path / "tensorboard", hooks)))
        if distributed.is_main():
            stack.callback(draw_curves, run)
        result = fit(job, run, hooks=hooks, resume=False if resume is None else source or True)
        return TrainOutcome(run.path, result)


def resumed_run(resume: AnyPath | None, runs: AnyPath) -> Path | None:
    """The folder of the run to resume (see `find_run`); None for a new run."""
    return None if resume is None else find_run(resume, Path(runs), which="").path


def _open_run(setup: Setup, runs: Path, resume: str | Path | None) -> tuple[RunDir, Path | None]:
    """A new run's folder, or the one to resume and the checkpoint if one was named (else: its last)."""
    resolved, data = setup.recipe.model_dump(mode="json"), setup.learnt.as_json()
    if resume is not None:
        chosen = find_run(resume, runs, which="")
        source = chosen.path / "checkpoints" / chosen.which if chosen.which else None
        return RunDir(chosen.path, resolved, data), source
    text, record = dump_recipe(setup.recipe), run_record(setup)
    run = RunDir.create(runs, setup.recipe.name, recipe=resolved, recipe_yaml=text, data=data, record=record)
    return run, None


def _remember(run: RunDir, setup: Setup) -> None:
    """Note in a continued run's folder where its data set lies now, and the versions that continue it."""
    if not distributed.is_main():
        return
    now, old = run_record(setup), run.record()
    run.update_record({"data": now["data"], "resumed": [*old.get("resumed", []), now]})
    with suppress(OSError):
        write_text(run.path / "recipe.yaml", dump_recipe(setup.recipe))


def draw_curves(run: RunDir) -> None:
    """curves.png from metrics.jsonl, also of a run that was stopped; nothing where no step was logged or the
    disk is full."""
    if run.metrics_file.is_file():
        with suppress(ZssbirError):
            save_curves(run.path / "curves.png", read_metrics(run.path), title=run.path.name)


def profile(recipe: Recipe, *, steps: int, device: str = "auto", resumed: Path | None = None) -> StepProfile:
    """Measure where the time of a step goes (of the run `resumed` as it would continue); writes nothing. Raises like `train`."""
    where = choose_device(device)
    with distributed.session(where):
        setup = Setup.build(recipe, where, resumed)
        return profile_steps(build_job(setup)[1], steps)


def run_record(setup: Setup) -> dict[str, Any]:
    """What run.json keeps: circumstances, data set, preprocessing, seed, command line and start."""
    return {
        **circumstances(setup.precision.device),
        "precision": setup.precision.name,
        "world_size": distributed.world_size(),
        "seed": setup.recipe.train.seed,
        "data": {"root": str(setup.prepared.root.resolve()), **setup.learnt.as_json()},
        "preprocessing": preprocessing(setup.recipe),
        "command": sys.argv,
        "start_sha256": start_sha256(setup.recipe),
    }


def start_sha256(recipe: Recipe) -> str:
    """sha256 of the file of weights that a run begins with; "" for random ones (rank 0)."""
    if recipe.model.weights == "none" or not distributed.is_main():
        return ""
    return start_of(recipe, Path("recipe.yaml")).weights_sha256()
