"""A small benchmark under published names, and `prepare_benchmark` with options by name."""

from pathlib import Path

from prepare_helpers import tiny_png

from zssbir_cli.benchmarks.layouts import Kind, published_path
from zssbir_cli.benchmarks.splits import CLASSES
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.workflows.prepare import Prepared, prepare_benchmark


def run(
    dataset: str,
    out: Path,
    *paths: Path,
    split: str | None = None,
    lists: tuple[Path, ...] = (),
    **options: object,
) -> Prepared:
    """`prepare_benchmark` with options by name; warnings land in `told` when given."""
    told = options.pop("told", [])
    return prepare_benchmark(
        dataset,
        split=split,
        paths=paths,
        lists=lists,
        out=out,
        choices=Choices(**options),
        say=told.append,
    )


def layout(
    root: Path, dataset: str, ready: str = "_ready", sketches: int = 4, photos: int = 2, extend: int = 3
) -> Path:
    """A small benchmark under published names: EXTEND repeats the first original."""
    number = 0
    for name in CLASSES[dataset]:
        kinds = {Kind.SKETCH: sketches, Kind.PHOTO: photos} | (
            {Kind.EXTEND: extend} if dataset == "sketchy" else {}
        )
        for kind, n in kinds.items():
            for i in range(n):
                number += 1
                repeat = kind is Kind.EXTEND and i == 0
                file = f"n{0 if repeat else i}_{name[:2]}.{'png' if kind is Kind.SKETCH else 'jpg'}"
                if kind is Kind.EXTEND and not repeat:
                    file = f"ext_{i}.jpg"
                path = root / published_path(dataset, kind, name, file).replace("_ready", ready)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tiny_png(number))
    return root
