"""What `eval` does once the embeddings are at hand, part by part, against the metric itself.

    python tests/bench/bench_eval_whole.py [--queries 2400] [--gallery 28000] [--classes 30] [--dim 768] [--repeat 3]

Made embeddings with loose classes in a file as `zssbir embed` writes it; their pictures are those of a small drawn set, again and
again. Parts: reading the file, the metric alone (`retrieval.metrics.evaluate`), the rest of `measure` (intervals, copies), chance,
the result file, and the report with its parts. Medians of processor seconds, shares, and the whole as a multiple of the metric.
The parts of the report are timed in its course.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from bench_eval import make

from zssbir_cli.data.embeddings import EmbeddingInfo, write_embeddings
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.evaluation import measure as measuring
from zssbir_cli.evaluation import report, results
from zssbir_cli.evaluation.baselines import with_chance
from zssbir_cli.evaluation.measure import Inputs, Side, inputs_of_file
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import prepare

INSIDE = (
    (measuring, "evaluate"), (measuring, "intervals"), (measuring, "duplicates"), (report, "_figures"), (report, "_confusion"),
    (report, "_map"), (report, "_extremes"), (report, "write_page"),
)  # fmt: skip
"""Functions that are timed where they are called; some are inside others."""


class Clock:
    """Processor seconds of each name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **more: Any) -> Any:
            start = time.process_time()
            try:
                return work(*args, **more)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start

        return timed


def turn(file: Path, prepared: PreparedSet, out: Path) -> dict[str, float]:
    """One evaluation; processor seconds of its parts."""
    clock = Clock()
    with ExitStack() as stack:
        for module, name in INSIDE:
            stack.enter_context(mock.patch.object(module, name, clock(f"  {name}", getattr(module, name))))
        pair = clock("read", read_user_embeddings)(file)
        inputs = inputs_of_file(file, pair)
        inputs = replace(inputs, query=_pictured(inputs, prepared, Modality.SKETCH),
                         gallery=_pictured(inputs, prepared, Modality.PHOTO), prepared=prepared)  # fmt: skip
        found = clock("measure", measuring.measure)(inputs)
        found = clock("chance", with_chance)(found)
        target = results.target(found, out)
        assert target is not None
        clock("result", results.write)(found, target)
        clock("report", report.write_report)(found, target.with_suffix(""))
    return clock.seconds


def _pictured(inputs: Inputs, prepared: PreparedSet, modality: Modality) -> Side:
    """A side of the inputs with pictures of the prepared set, again and again."""
    side = inputs.query if modality is Modality.SKETCH else inputs.gallery
    count = len(prepared.images(Part.TEST, modality))
    return replace(side, pictures=tuple((Part.TEST, modality, i % count) for i in range(len(side.labels))))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (
        ("queries", 2400),
        ("gallery", 28000),
        ("classes", 30),
        ("dim", 768),
        ("repeat", 3),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    q, g, lq, lg = make(args.queries, args.gallery, args.classes, args.dim)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        info = EmbeddingInfo(checkpoint="0" * 64, classes=tuple(f"class {i}" for i in range(args.classes)))
        kinds = np.repeat([int(Modality.SKETCH), int(Modality.PHOTO)], [len(q), len(g)])
        names = [f"{i}.jpg" for i in range(len(kinds))]
        file = write_embeddings(
            work / "e.h5", np.concatenate([q, g]), np.concatenate([lq, lg]), kinds, names, info
        )
        prepared = PreparedSet.open(prepare("demo", out=work / "set", per_class=4).root)
        runs = [turn(file, prepared, work / f"{i}") for i in range(args.repeat)]
    median = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    whole = sum(seconds for name, seconds in median.items() if not name.startswith(" "))
    print(
        f"{args.queries:,} x {args.gallery:,}, {args.dim} dimensions; whole {whole:.2f} s of processor time"
    )
    for name, seconds in median.items():
        print(f"{name:14s} {seconds:6.2f} s {100 * seconds / whole:5.1f} %")
    print(f"the whole is {whole / median['  evaluate']:.2f} x the metric")


if __name__ == "__main__":
    main()
