"""Does masking help? Unseen-class mAP@all of frozen, triplet and PuXIM with several masks, mean and spread over seeds.

    python tests/bench/puxim_tables.py demo --work bench-puxim --seeds 0 1 2
    python tests/bench/puxim_tables.py real --data data/real80 --weights mobilenetv2.pth --masks cams.h5

Each cell is one short training; finished cells are kept in WORK/cells.json, so the script can be stopped and started
again. All trainings of a table share data, backbone, batches, steps and the contrastive term: `triplet` is that term
alone (the baseline's loss), `no mask` adds the interaction with all tokens kept, `puxim` adds masks and
reconstruction, `random mask` is the same with random tokens, `true mask` (drawn pictures) with the generator's own.
Convention voc, cosine, all test sketches against all test photos; the last step is evaluated, nothing is selected.

For drawn pictures three more tables say why: the same encoders on test photos whose surroundings are painted white
(what a perfect mask at test time would give), with only the object's tokens pooled, and the share of the photos' token
energy outside the object.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from starts import start_of

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.scores import write_scores
from zssbir_cli.embedding.weights import load_run
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.methods.puxim.method import Puxim
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.metrics import evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows import train as workflow
from zssbir_cli.workflows.prepare import prepare_demo
from zssbir_cli.workflows.setup import Setup

LEVELS = (0.1, 0.4, 0.8)
NO_MASK = ["method.masks=none", "method.reconstruction=0"]
WAYS: dict[str, list[str]] = {
    "triplet": [*NO_MASK, "method.interaction=0"],
    "no mask": NO_MASK,
    "puxim": [],
    "random mask": ["method.rule=random"],
}


MAP, CUT_OUT, POOLED = "mAP@all", "mAP@all, photos cut out", "mAP@all, only the object's tokens"
OUTSIDE = "energy outside the object"
Cell = dict[str, float]


@torch.inference_mode()
def measure(recipe: Recipe, method: Puxim) -> Cell:
    """mAP@all (voc) of the test part; with true masks also the two figures that say why."""
    setup = Setup.build(recipe, torch.device("cpu"))
    sketches, photos = (setup.prepared.images(Part.TEST, m) for m in Modality)
    query, gallery = (
        setup.features(Part.TEST, m, lambda x, m=m: method.embed(x, m))  # type: ignore[misc]
        for m in Modality
    )

    def score(gallery: torch.Tensor) -> float:
        return evaluate(query, gallery, sketches.labels, photos.labels).get("mAP@all")

    out = {MAP: score(gallery)}
    if photos.read_mask(0) is not None:
        size = recipe.data.size
        images = torch.stack([EvalImages(photos, size)[i] for i in range(len(photos))])
        masks = torch.stack([torch.from_numpy(photos.read_mask(i))[None].float() for i in range(len(photos))])
        cover = F.interpolate(masks, (size, size), mode="area")
        cut = (images * cover + 255 * (1 - cover)).round().to(torch.uint8)
        out[CUT_OUT] = score(torch.cat([method.embed(x, Modality.PHOTO) for x in cut.split(64)]))
        looks = [look(method, x, c) for x, c in zip(images.split(64), cover.split(64), strict=True)]
        pooled, shares = (torch.cat(part) for part in zip(*looks, strict=True))
        out |= {POOLED: score(pooled), OUTSIDE: float(shares.mean())}
    return out


def look(method: Puxim, images: torch.Tensor, cover: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the tokens that the object covers by at least 30 %, [B, D]; share of the energy on the others, [B]."""
    features = method.encoder(images)
    on = (F.adaptive_avg_pool2d(cover, features.grid).flatten(1) >= 0.3).float()
    pooled = (features.tokens * on[..., None]).sum(1) / on.sum(1, keepdim=True).clamp(min=1)
    energy = features.tokens.square().sum(2)
    return method.projection(pooled), 1 - (energy * on).sum(1) / energy.sum(1)


def run_cell(settings: list[str], way: str) -> Cell:
    """Train (or not) and evaluate one cell."""
    recipe = load_recipe(find_recipe("puxim-demo"), [*settings, *WAYS.get(way, [])])
    if way == "frozen":
        method = start_of(recipe, torch.device("cpu"))
    else:
        with tempfile.TemporaryDirectory() as runs:
            outcome = workflow.train(recipe, runs=Path(runs), device="cpu")
            _, method, _ = load_run(outcome.run, torch.device("cpu"), "last")
    assert isinstance(method, Puxim)
    return measure(recipe, method)


def true_masks(prepared: PreparedSet, side: int = 12) -> Path:
    """The demo set's own object masks as a file of scores."""
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    path = prepared.root / "true-masks.h5"
    if not path.exists():
        maps = []
        for i in range(len(photos)):
            mask = torch.from_numpy(photos.read_mask(i))[None, None].float()
            maps.append(torch.nn.functional.adaptive_avg_pool2d(mask, side)[0, 0].numpy())
        write_scores(path, np.stack(maps), data=prepared.identity, facts={"model": "true masks"})
    return path


class Cells:
    """Results on disk, written after each cell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.done: dict[str, Cell] = json.loads(path.read_text()) if path.exists() else {}

    def fill(self, row: str, way: str, seed: int, settings: list[str]) -> None:
        """Compute a cell unless it is there."""
        key = f"{row}|{way}|{seed}"
        if key not in self.done:
            start = time.monotonic()
            self.done[key] = run_cell([*settings, f"train.seed={seed}"], way)
            self.path.write_text(json.dumps(self.done, indent=1))
            found = ", ".join(f"{name} {value:.4f}" for name, value in self.done[key].items())
            print(f"{key}: {found} ({time.monotonic() - start:.0f} s)", flush=True)

    def table(self, figure: str, rows: list[str], ways: list[str]) -> str:
        """Markdown: mean and standard deviation over the seeds, in percent."""
        lines = [f"| {figure} | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
        for row in rows:
            cells = []
            for way in ways:
                values = [
                    100 * v[figure]
                    for k, v in self.done.items()
                    if k.startswith(f"{row}|{way}|") and figure in v
                ]
                spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
                cells.append(f"{statistics.mean(values):.1f}{spread} (n={len(values)})" if values else "-")
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
        return "\n".join(lines)


def main() -> None:
    """Fill the cells and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("table", choices=["demo", "real"])
    parser.add_argument("--work", type=Path, default=Path("bench-puxim"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="demo: ambiguity")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--photos", type=int, default=24, help="demo: per class")
    parser.add_argument("--data", type=Path, help="real: a prepared set")
    parser.add_argument("--weights", default="pretrained", help="real: weights of mobilenetv2_100")
    parser.add_argument("--masks", help="real: file of scores (see real80_cams.py)")
    parser.add_argument("--ways", nargs="+", default=None)
    parser.add_argument("--set", action="append", default=[], help="key=value of the recipe")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    cells = Cells(args.work / f"cells-{args.table}.json")
    common = [
        "train.epochs=1",
        f"train.steps_per_epoch={args.steps}",
        "train.validate_every=0",
        "data.workers=0",
        *args.set,
    ]
    ways = args.ways or ["frozen", "triplet", "no mask", "puxim", "random mask", "true mask"]
    rows = [f"ambiguity {level}" for level in args.levels] if args.table == "demo" else [args.data.name]
    for seed in args.seeds:
        for level, row in zip(args.levels, rows, strict=False):
            for way in ways:
                if args.table == "real" and way == "true mask":
                    continue
                settings = _demo(args, level) if args.table == "demo" else _real(args)
                if way == "true mask":
                    root = next(s for s in settings if s.startswith("data.root=")).removeprefix("data.root=")
                    settings = [*settings, f"method.masks={true_masks(PreparedSet.open(root))}"]
                cells.fill(row, way, seed, [*settings, *common])
    for figure in (MAP, CUT_OUT, POOLED, OUTSIDE) if args.table == "demo" else (MAP,):
        print(cells.table(figure, rows, ways))


def _demo(args: argparse.Namespace, level: float) -> list[str]:
    root = args.work / f"demo-{level}"
    choices = Choices(subset=args.photos, clean=CleanOptions(size=96), workers=1)
    prepare_demo(root, choices=choices, ambiguity=level)
    return [f"data.root={root}", "data.size=64"]


def _real(args: argparse.Namespace) -> list[str]:
    return [
        f"data.root={args.data}",
        "data.size=96",
        "model.backbone=mobilenetv2_100",
        "model.input=rgb",
        "model.mean=[0.5,0.5,0.5]",
        "model.std=[0.5,0.5,0.5]",
        f"model.weights={args.weights}",
        "model.options={pad_type: same, output_stride: 16}",
        "optim.lr=2e-4",
        f"method.masks={args.masks}",
    ]


if __name__ == "__main__":
    main()
