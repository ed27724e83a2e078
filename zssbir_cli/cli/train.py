"""`zssbir train`."""

from pathlib import Path

import typer


def train(
    recipe: str | None = typer.Option(
        None, "--recipe", "-r", help="A recipe file, or the name of a shipped one (see `zssbir recipes`)."
    ),
    set_: list[str] = typer.Option(
        [], "--set", help="Override a key, e.g. --set optim.lr=1e-4 (repeatable)."
    ),
    resume: str | None = typer.Option(
        None,
        "--resume",
        help="Continue this run (folder, name or a part of it), or from one of its checkpoints.",
    ),
    runs: Path = typer.Option(Path("runs"), "--runs", help="Where the run's folder is made."),
    device: str = typer.Option("auto", "--device", help="auto, cpu, cuda or cuda:N."),
    check: bool = typer.Option(
        False, "--check", help="Do everything but train; makes no run (missing mask scores are kept)."
    ),
    overfit: int | None = typer.Option(
        None, "--overfit", min=1, help="For debugging: train on the first N batches again and again."
    ),
    profile: int | None = typer.Option(
        None, "--profile", min=1, help="Measure N steps by phase and operator instead of training."
    ),
    tensorboard: bool = typer.Option(
        False, "--tensorboard", help="Also write TensorBoard event files (pip install 'zssbir[tensorboard]')."
    ),
) -> None:
    """Train a method as a recipe says; leaves a run's folder."""
    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.train_progress import TrainHooks, print_profile
    from zssbir_cli.compute.distributed import is_main
    from zssbir_cli.errors import UsageError
    from zssbir_cli.recipe.loader import find_recipe, load_recipe
    from zssbir_cli.workflows import train as workflow

    if recipe is not None:
        loaded = load_recipe(find_recipe(recipe), set_)
    elif resume is not None:
        loaded = workflow.resumed_recipe(resume, runs, set_)
    else:
        raise UsageError("give --recipe NAME (see `zssbir recipes`), or --resume RUN")
    if check:
        found = workflow.check(loaded, device=device)
        print(
            f"{loaded.name}: ready to train {found.steps} steps in {found.precision} on {found.device}: "
            f"{found.train_sketches} sketches and {found.train_photos} photos of seen classes, {found.val_classes} "
            f"validation classes, {found.trainable / 1e6:.1f} M trainable parameters; one step on trial: loss {found.loss:.4g}, "
            f"{found.memory_mb:,} MiB"
        )
        return
    if profile is not None:
        print_profile(workflow.profile(loaded, steps=profile, device=device))
        return
    outcome = workflow.train(
        loaded,
        runs=runs,
        device=device,
        resume=resume,
        overfit=overfit,
        hooks=TrainHooks(),
        tensorboard=tensorboard,
    )
    if not is_main():
        return
    best = outcome.result.best.get("val/mAP@all")
    if best is not None:
        note(f"best on held-out seen classes: mAP@all {best:.4f} (voc) at step {outcome.result.best_step}")
    note("next: zssbir eval --split zs")
    print(str(outcome.run))
