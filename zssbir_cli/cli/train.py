"""`zssbir train`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zssbir_cli.cli import complete, options
from zssbir_cli.cli.options import flag, option

if TYPE_CHECKING:
    from zssbir_cli.recipe.schema import Recipe
    from zssbir_cli.workflows.check import CheckOutcome
    from zssbir_cli.workflows.train import TrainOutcome


def train(
    context: typer.Context,
    recipe: str | None = option(
        None,
        "RECIPE",
        "A recipe file, or a shipped recipe (see `zssbir recipes`).",
        "--recipe",
        "-r",
        autocompletion=complete.recipes,
    ),
    set_: options.Set = None,
    data: Path | None = option(
        None,
        "DIR",
        "The prepared data set; the same as --set data.root=DIR.",
        autocompletion=complete.data_sets,
    ),
    resume: str | None = option(
        None,
        "RUN",
        "Continue a run (folder, name or a part of it), or from one of its checkpoints.",
        autocompletion=complete.runs,
    ),
    runs: options.Runs = Path("runs"),
    device: options.Device = "auto",
    check: bool = flag(
        "Do everything but train, without creating a run (computed mask scores are kept).", "--check"
    ),
    overfit: int | None = option(None, "N", "For debugging: train on the first N batches only.", min=1),
    profile: int | None = option(None, "N", "Time N steps by phase and operator instead of training.", min=1),
    tensorboard: bool = flag(
        "Also write TensorBoard files (python -m pip install '.[tensorboard]').", "--tensorboard"
    ),
) -> None:
    """Train a model from a recipe; weights, metrics and curves go into the run's folder.

    Example: zssbir train --recipe mobilenet --data data/mine
    """
    _check_modes(context, check=check, profile=profile is not None, resume=resume is not None)
    from zssbir_cli.cli.display import loading
    from zssbir_cli.workflows.recipes import check_names, check_runs, choose_recipe

    loaded = choose_recipe(recipe, data=data, settings=set_ or (), resume=resume, runs=runs)
    if resume is None:  # else a checkpoint brings the weights
        check_names(loaded)
        if not check and profile is None:
            check_runs(runs)
    with loading("train", "the data") as display:
        from zssbir_cli.cli.display import TrainHooks, print_profile
        from zssbir_cli.workflows import train as workflow

        resumed = workflow.resumed_run(resume, runs)
        if check:
            from zssbir_cli.workflows.check import check as run_check

            checked = run_check(loaded, runs=runs, device=device, resumed=resumed)
        elif profile is not None:
            profiled = workflow.profile(loaded, steps=profile, device=device, resumed=resumed)
        else:
            outcome = workflow.train(
                loaded, runs=runs, device=device, resume=resume, overfit=overfit, hooks=TrainHooks(display),
                tensorboard=tensorboard,
            )  # fmt: skip
    if check:
        _show_check(loaded, checked)
    elif profile is not None:
        print_profile(profiled)
    else:
        _show_outcome(outcome)


def _check_modes(context: typer.Context, *, check: bool, profile: bool, resume: bool) -> None:
    """Refuse options that the mode would ignore."""
    recipe = ("recipe", "set_", "data", "device", "debug")
    if check:
        options.allow_only(context, "--check", *recipe, "resume", "runs", "check")
    elif profile:
        options.allow_only(context, "--profile", *recipe, "profile", *(("resume", "runs") if resume else ()))
    elif resume:
        options.allow_only(context, "--resume", *recipe, "resume", "runs", "overfit", "tensorboard")


def _show_check(recipe: "Recipe", found: "CheckOutcome") -> None:
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import memory
    from zssbir_cli.progress import rough_size, rough_time

    print(
        f"{recipe.name}: ready to train {found.steps} steps in {found.precision} on {found.device}: "
        f"{found.train_sketches} sketches and {found.train_photos} photos of seen classes, {found.val_classes} "
        f"validation classes, {found.trainable / 1e6:.1f} M trainable parameters; one trial step: loss "
        f"{found.loss:.4g}, {memory(found.memory_mb)}"
    )
    print(
        f"the full training will take about {rough_time(found.seconds)} and {rough_size(found.disk)} of disk "
        f"({rough_size(found.free)} free)"
    )
    if found.free < found.disk:
        note("warning: not enough disk space: free some, or choose another folder with --runs")


def _show_outcome(outcome: "TrainOutcome") -> None:
    import shlex

    from zssbir_cli.cli.console import note
    from zssbir_cli.compute.distributed import is_main

    if not is_main():
        return
    best = outcome.result.best.get("val/mAP@all")
    if best is not None:
        note(f"best on held-out seen classes: mAP@all {best:.4f} (voc) at step {outcome.result.best_step}")
    print(f"run: {outcome.run}", flush=True)
    note(f"next: zssbir eval --split zs --run {shlex.quote(str(outcome.run))}")
