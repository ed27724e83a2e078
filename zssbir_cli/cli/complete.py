"""What the shell offers for the values of options. Runs at every press of Tab: nothing heavy is imported."""

from pathlib import Path

import typer


def runs(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs, newest first, and `latest`."""
    from zssbir_cli.engine.runs import LATEST, run_folders

    folder = Path(context.params.get("runs") or context.params.get("root") or "runs")
    names = [LATEST, *reversed([p.name for p in run_folders(folder)])] if folder.is_dir() else []
    return [name for name in names if name.startswith(incomplete)]


def recipes(incomplete: str) -> list[str]:
    """Shipped recipes."""
    from zssbir_cli.recipe.loader import shipped_recipes

    return [p.stem for p in shipped_recipes() if p.stem.startswith(incomplete)]


def splits(incomplete: str) -> list[tuple[str, str]]:
    """Protocols of `eval`, with what they are."""
    from zssbir_cli.evaluation.protocols import PROTOCOLS

    return [(name, about) for name, about in PROTOCOLS.items() if name.startswith(incomplete)]


def data_sets(incomplete: str) -> list[str]:
    """Prepared sets in ./data."""
    found = sorted(p.parent for p in Path("data").glob("*/manifest.json"))
    return [str(p) for p in found if str(p).startswith(incomplete)]


def sources(incomplete: str) -> list[str]:
    """What `prepare` knows by name."""
    from zssbir_cli.benchmarks.layouts import DATASETS

    return [name for name in ("demo", *DATASETS) if name.startswith(incomplete)]
