"""What each part of AMA is worth: unseen-class mAP@all of the frozen start and of each part added in turn.

    python tests/bench/ama_tables.py --recipe recipes/ama-demo.yaml --out ama-demo.json
    python tests/bench/ama_tables.py --recipe recipes/ama-fast.yaml --set data.root=data/mine --out mine.json --seeds 0 1 2

Every finished cell is appended to the JSON file at once: the same line continues where it was stopped. Test
classes are only looked at after training; nothing is chosen by them, and no labels are used before.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from starts import start_of

from zssbir_cli.embedding.weights import load_run
from zssbir_cli.methods.base import Method
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.setup import Setup
from zssbir_cli.workflows.train import choose_device, train

OFF = {"cluster": 0.0, "guidance": 0.0, "alignment": 0.0}
ROWS = {
    "frozen": None,
    "self-distillation": OFF,
    "+ clustering": {k: v for k, v in OFF.items() if k != "cluster"},
    "+ guidance": {"alignment": 0.0},
    "+ alignment (all)": {},
    "all, without drawings": {"views.drawings": 0},
}


def cell(recipe: Recipe, trained: bool, device: str) -> dict[str, float]:
    """Train (or not) and measure on the unseen classes: convention voc, all test sketches against all test photos."""
    start = time.perf_counter()
    where = choose_device(device)
    if trained:
        with tempfile.TemporaryDirectory() as folder:
            outcome = train(recipe, runs=Path(folder), device=device)
            method: Method = load_run(outcome.run, where, "last")[1]
            steps = outcome.result.steps
    else:
        method, steps = start_of(recipe, where), 0
    seconds = time.perf_counter() - start
    setup = Setup.build(recipe, where)
    method.eval()
    vectors = {m: setup.features(Part.TEST, m, lambda x, m=m: method.embed(x, m)) for m in Modality}
    labels = {m: setup.prepared.images(Part.TEST, m).labels for m in Modality}
    q, g = Modality.SKETCH, Modality.PHOTO
    found = evaluate(vectors[q], vectors[g], labels[q], labels[g], k=(100,))
    return {"mAP@all": found.get("mAP@all"), "P@100": found.get("P@100"), "seconds": seconds, "steps": steps}


def main() -> None:
    """Fill the table, then print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument(
        "--set", action="append", default=[], help="key=value of the recipe, as for `zssbir train`"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    done: dict[str, dict[str, float]] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for seed in options.seeds:
        for row in options.rows:
            changes = [f"method.{k}={v}" for k, v in (ROWS[row] or {}).items()]
            recipe = load_recipe(options.recipe, [*options.set, *changes, f"train.seed={seed}"])
            key = f"{row} | seed {seed}"
            if key not in done:
                done[key] = cell(recipe, ROWS[row] is not None, options.device)
                options.out.write_text(json.dumps(done, indent=1))
                print(key, {k: round(v, 4) for k, v in done[key].items()}, flush=True)
    for row in options.rows:
        values = [done[f"{row} | seed {s}"]["mAP@all"] for s in options.seeds]
        print(
            f"{row:24s} mAP@all (voc, unseen) {100 * np.mean(values):5.2f} +- {100 * np.std(values):4.2f}  {values}"
        )
    print(f"{torch.get_num_threads()} threads; {options.recipe} {' '.join(options.set)}")


if __name__ == "__main__":
    main()
