"""`zssbir train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zssbir_cli.cli import complete, options

if TYPE_CHECKING:
    from zssbir_cli.recipe.schema import Recipe
    from zssbir_cli.workflows.check import CheckOutcome
    from zssbir_cli.workflows.train import TrainOutcome

RecipeName = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        "-r",
        metavar="RECIPE",
        autocompletion=complete.recipes,
        help="A recipe file, or a shipped recipe (see `zssbir recipes`).",
    ),
]


def train(
    context: typer.Context,
    recipe: RecipeName = None,
    set_: options.Set = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            metavar="DIR",
            autocompletion=complete.data_sets,
            help="The prepared data set; the same as --set data.root=DIR.",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="RUN",
            autocompletion=complete.runs,
            help="Continue a run (folder, name or a part of it), or from one of its checkpoints.",
        ),
    ] = None,
    runs: options.Runs = Path("runs"),
    device: options.Device = "auto",
    check: Annotated[
        bool,
        typer.Option("--check", help="Do everything but train; makes no run (missing mask scores are kept)."),
    ] = False,
    overfit: Annotated[
        int | None,
        typer.Option(
            "--overfit", metavar="N", min=1, help="For debugging: train on the first N batches only."
        ),
    ] = None,
    profile: Annotated[
        int | None,
        typer.Option(
            "--profile", metavar="N", min=1, help="Time N steps by phase and operator instead of training."
        ),
    ] = None,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard", help="Also write TensorBoard files (python -m pip install '.[tensorboard]')."
        ),
    ] = False,
) -> None:
    """Train a method as a recipe says; the run's folder keeps weights, metrics and curves.

    Example: zssbir train --recipe mobilenet --data data/mine
    """
    _check_modes(context, check=check, profile=profile is not None, resume=resume is not None)
    from zssbir_cli.cli.display import progress
    from zssbir_cli.workflows.recipes import check_names, choose_recipe

    loaded = choose_recipe(recipe, data=data, settings=set_ or (), resume=resume, runs=runs)
    if resume is None:  # else a checkpoint brings the weights
        check_names(loaded)
    with progress("train: loading PyTorch and the data") as display:
        from zssbir_cli.cli.train_progress import TrainHooks, print_profile
        from zssbir_cli.workflows import train as workflow

        if check:
            from zssbir_cli.workflows.check import check as run_check

            checked = run_check(loaded, runs=runs, device=device)
        elif profile is not None:
            profiled = workflow.profile(loaded, steps=profile, device=device)
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
        options.allow_only(context, "--profile", *recipe, "resume", "runs", "profile")
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
        f"the whole training takes about {rough_time(found.seconds)} and {rough_size(found.disk)} of disk "
        f"({rough_size(found.free)} free)"
    )
    if found.free < found.disk:
        note("warning: the disk is too small for it: make room, or name another folder with --runs")


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
