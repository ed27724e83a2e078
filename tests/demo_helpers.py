"""A small demo set for tests."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.progress import Progress, silent
from zssbir_cli.workflows.prepare import prepare_demo


def demo_set(
    out: Path,
    *,
    seed: int = 0,
    size: int = 32,
    photos: int = 2,
    sketches: int = 1,
    ambiguity: float | None = None,
    unseen: int | Sequence[str] = 13,
    val: int = 5,
    workers: int = 1,
    progress: Progress = silent,
) -> Path:
    """Draw a demo set, its pictures beside it in `<out>-pictures`; returns `out`."""
    names = str(unseen) if isinstance(unseen, int) else ",".join(unseen)
    choices = Choices(
        unseen=names, val_classes=val, seed=seed, clean=CleanOptions(size=size), workers=workers
    )
    return prepare_demo(
        out, choices=choices, ambiguity=ambiguity, photos=photos, sketches=sketches, progress=progress
    ).root


def draw_split(out: Path, seed: int = 0, unseen: int | Sequence[str] = 12, val: int = 3) -> Path:
    """Draw a small set; one of another split that is there gives way."""
    shutil.rmtree(out.with_name(out.name + "-pictures"), ignore_errors=True)
    return demo_set(out, seed=seed, photos=3, sketches=2, unseen=unseen, val=val)
