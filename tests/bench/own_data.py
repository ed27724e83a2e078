"""Fine-tune a pretrained CNN on one's own prepared set and compare with its frozen start on unseen classes.

    python tests/bench/own_data.py --source PICTURES --weights FILE --out results.jsonl
        [--set model.options='{pad_type: same}'] [--seeds 0 1 2] [--rows recipe triplet-only ...]

For each seed the folder is prepared with 20 unseen and 6 validation classes drawn by that seed; each row is the
recipe `mobilenet.yaml` with some changes; `before` and the short rows are that recipe as it was at first (96 px).
Prints and appends one JSON line per cell (finished cells are skipped): mAP@all in all conventions of the frozen
start and after training, on the unseen classes.
"""

import argparse
import json
import resource
import time
from pathlib import Path

import torch
from starts import start_of

from zssbir_cli.compute.precision import Precision
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.weights import load_run
from zssbir_cli.methods.base import Method
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.retrieval.metrics import CONVENTIONS, evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import prepare_own
from zssbir_cli.workflows.setup import Setup
from zssbir_cli.workflows.train import train

BEFORE = (
    "data.size=96", "model.tune=all", "method.centre=false", "train.blend=1.0",
    "train.epochs=3", "train.steps_per_epoch=50", "train.batch_size=32", "train.validate_every=1",
)  # fmt: skip
SHORT = (*BEFORE, "train.epochs=1", "train.steps_per_epoch=120", "train.validate_every=0")
ROWS: dict[str, tuple[str, ...]] = {
    "recipe": (),
    "before": BEFORE,
    "short": SHORT,
    "short, triplet loss alone": (*SHORT, "method.contrast_weight=0"),
    "short, contrast alone": (*SHORT, "method.triplet_weight=0"),
    "short, kept near the frozen photos": (*SHORT, "method.preserve_weight=1"),
    "short, no augmentation": (*SHORT, "data.flip=false", "data.crop_scale=1", "data.sketch_jitter=0", "data.color_jitter=0"),
    "short, random classes in a batch": (*SHORT, "method.classes_per_batch=null"),
    "short, no ink crop": (*SHORT, "data.sketch_crop=false"),
    "short, 64 px": (*SHORT, "data.size=64"),
    "short, 128 px": (*SHORT, "data.size=128"),
}  # fmt: skip
CPU = torch.device("cpu")


def unseen_map(setup: Setup, method: Method) -> dict[str, float]:
    """mAP@all on the unseen classes in each convention."""
    parts = {m: setup.prepared.images(Part.TEST, m) for m in Modality}
    vectors = {m: setup.features(Part.TEST, m, lambda x, m=m: method.embed(x, m)) for m in Modality}  # type: ignore[misc]
    found = evaluate(
        vectors[Modality.SKETCH],
        vectors[Modality.PHOTO],
        parts[Modality.SKETCH].labels,
        parts[Modality.PHOTO].labels,
    )
    return {c: round(found.get("mAP@all", c), 4) for c in CONVENTIONS}


def cell(args: argparse.Namespace, seed: int, row: str) -> dict[str, object]:
    """Train one cell and score it beside its frozen start."""
    folder = args.work / f"seed{seed}"
    if not folder.exists():
        prepare_own([args.source], out=folder, choices=Choices(unseen="20", val_classes=6, seed=seed))
    settings = (
        f"data.root={folder}",
        f"model.weights={args.weights}",
        f"train.seed={seed}",
        *args.set,
        *ROWS[row],
    )
    recipe = load_recipe(find_recipe("mobilenet.yaml"), settings)
    setup = Setup(recipe, PreparedSet.open(folder), Precision.choose("fp32", CPU))
    start = unseen_map(setup, start_of(recipe, CPU))
    began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    outcome = train(recipe, runs=args.work / "runs", device="cpu")
    wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    trained = unseen_map(setup, load_run(outcome.run, CPU)[1])
    return {
        "row": row, "seed": seed, "frozen": start, "trained": trained,
        "ratio": {c: round(trained[c] / start[c], 2) for c in CONVENTIONS},
        "val": outcome.result.best.get("val/mAP@all"),
        "minutes": round(wall / 60, 1), "cpu_minutes": round(used / 60, 1), "steps": outcome.result.steps,
    }  # fmt: skip


def main() -> None:
    """Parse arguments and fill the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--source", type=Path, required=True, help="folder or archive with sketch/ and photo/"
    )
    parser.add_argument("--weights", default="pretrained")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("own_data"))
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", default=["recipe"], choices=list(ROWS))
    args = parser.parse_args()
    done = [json.loads(x) for x in args.out.read_text().splitlines()] if args.out.exists() else []
    for row in args.rows:
        for seed in args.seeds:
            if not any((d["row"], d["seed"]) == (row, seed) for d in done):
                line = json.dumps(cell(args, seed, row))
                print(line, flush=True)
                with args.out.open("a") as file:
                    file.write(line + "\n")


if __name__ == "__main__":
    main()
