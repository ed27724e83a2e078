"""`zssbir demo`: the whole chain on drawn pictures, offline: prepare, train, embed, evaluate, show."""

import json
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.embedder import embed_all
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.report import Hooks
from zssbir_cli.engine.resume import continues
from zssbir_cli.engine.runs import latest_run, read_metrics
from zssbir_cli.errors import DataError, UsageError, ZssbirError
from zssbir_cli.evaluation.measure import Evaluation
from zssbir_cli.evaluation.report import strips
from zssbir_cli.files import write_text
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.models.known import OFFLINE
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.progress import Progress, silent
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.hog import hog
from zssbir_cli.retrieval.metrics import Metrics, evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.curves import Level, save_curves
from zssbir_cli.viz.page import Table, write_page
from zssbir_cli.viz.sheet import Row, save_sheet
from zssbir_cli.workflows.eval import evaluate_run
from zssbir_cli.workflows.info import contact_sheet
from zssbir_cli.workflows.mask_viz import MaskRequest, mask_viz
from zssbir_cli.workflows.prepare import prepare_demo
from zssbir_cli.workflows.train import train

QUICK = (
    "data.size=64", "train.epochs=3", "train.steps_per_epoch=30", "train.validate_every=1", "optim.warmup_steps=10",
)  # fmt: skip
"""Changes of the recipe for `--quick`; the numbers then show that it works, not how well."""
QUICK_PHOTOS = 10
"""Photos per class of `--quick`."""
TOP = 10
QUERIES = 8
MEASURES = (("mAP@all", "voc"), ("P@10", ""))


@dataclass(frozen=True)
class Score:
    """One line of the demo's table: what was used, mAP@all and P@10 (voc convention, unseen classes)."""

    name: str
    what: str
    map_all: float
    p_10: float


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and where everything lies."""

    scores: tuple[Score, ...]
    gain: float
    """Trained mAP@all over that of the untrained start."""
    queries: int
    photos: int
    unseen: tuple[str, ...]
    data: Path
    run: Path
    pictures: tuple[Path, ...]
    summary: Path
    page: Path
    seconds: dict[str, float]


def draw(
    out: Path, *, seed: int = 0, photos: int = 40, workers: int = 0, progress: Progress = silent
) -> Path:
    """The demo's data set in `out`/data, prepared from the folder `out`/pictures, both made unless they are there
    already; `photos` per class; `workers` drawing processes (0: one per core).

    Raises UsageError (`out` holds other files), DataError (`out` holds a demo with other options).
    """
    if (
        out.is_dir()
        and any(out.iterdir())
        and not any((out / name).exists() for name in ("data", "pictures"))
    ):
        raise UsageError(f"--out {out} holds other files; give an empty or new folder")
    choices = Choices(seed=seed, workers=workers)
    return prepare_demo(
        out / "data", pictures=out / "pictures", choices=choices, photos=photos,
        sketches=max(1, photos * 3 // 4), progress=progress,
    ).root  # fmt: skip


def demo(
    out: Path,
    data: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    overrides: tuple[str, ...] = (),
    hooks: Hooks | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Train on the demo set `data` and show what that gives, in the folder `out`; a run that an earlier demo
    finished or left unfinished there is used or continued.

    overrides: changes of the recipe `demo.yaml`, as `train --set`. Raises UsageError, DataError,
    CheckpointError, DivergedError.
    """
    clock = _Clock()
    prepared = PreparedSet.open(data)
    settings = (f"data.root={data.resolve()}", f"train.seed={seed}", *overrides)
    recipe = load_recipe(find_recipe("demo.yaml"), settings)
    run = _trained(recipe, prepared, out / "runs", device, hooks, say)
    clock.stop("train")
    found, held_out = (
        evaluate_run(run, split=split, k=[10], device=device, report=False).evaluation
        for split in ("zs", "val")
    )
    if len(found.baselines) < 2:  # the start's weights are not on this machine
        raise DataError("; ".join(found.inputs.notes))
    chance, start = (b.values for b in found.baselines)
    histograms = _of_histograms(prepared, recipe, device)
    scores = tuple(
        Score(name, what, *values)
        for name, what, values in (
            ("chance", "a random order of the photos", [chance[m] for m in MEASURES]),
            ("untrained network", "the same network with its random start weights", [start[m] for m in MEASURES]),
            ("gradient histograms", "a fixed descriptor (HOG) that learns nothing", [histograms.get(*m) for m in MEASURES]),
            ("trained network", f"recipe {recipe.name}, trained on the seen classes only", [found.metrics.get(*m) for m in MEASURES]),
        )
    )  # fmt: skip
    clock.stop("evaluate")
    names = {"frozen start": "untrained network"}
    levels = [Level(names.get(b.name, b.name), "mAP@all", b.values[MEASURES[0]]) for b in held_out.baselines]
    title = f"Training of the recipe {recipe.name}"
    files = (
        contact_sheet(data, out / "classes.png", per_class=4, max_classes=20),
        save_curves(out / "curves.png", read_metrics(run), title=title, levels=levels),
        _gallery(found, out / "gallery.png"),
    )
    clock.stop("pictures")
    result = DemoResult(
        scores=scores,
        gain=scores[3].map_all / max(scores[1].map_all, 1e-9),
        queries=found.metrics.queries,
        photos=found.metrics.gallery,
        unseen=tuple(prepared.classes[i] for i in prepared.manifest.ids_for(Part.TEST)),
        data=data, run=run, pictures=files, summary=out / "summary.json", page=out / "demo.html", seconds=clock.seconds,
    )  # fmt: skip
    write_demo_page(result, out, device)
    clock.stop("page")
    facts = {"split": "unseen classes", "convention": "voc", **asdict(result)}
    write_text(result.summary, json.dumps(facts, indent=1, default=str) + "\n")
    return result


def _of_histograms(prepared: PreparedSet, recipe: Recipe, device: str) -> Metrics:
    """Gradient histograms of the unseen classes' images, evaluated."""
    precision = Precision.choose("fp32", choose_device(device))
    sets = [prepared.images(Part.TEST, m) for m in (Modality.SKETCH, Modality.PHOTO)]
    rows = [
        embed_all(
            hog, EvalImages(images, recipe.data.size, recipe.data.sketch_crop),
            batch_size=128, workers=0, precision=precision,
        )
        for images in sets
    ]  # fmt: skip
    return evaluate(*rows, *(images.labels for images in sets), k=(10,))


def _gallery(found: Evaluation, path: Path) -> Path:
    """For each of some unseen classes its typical query (median AP of the class) and its best photos."""
    labels, precision = found.inputs.query.labels, found.metrics.per_query("mAP@all")
    typical = []
    for label in np.unique(labels)[:QUERIES].tolist():
        own = np.flatnonzero(labels == label)
        typical.append(int(own[np.argsort(precision[own], kind="stable")[len(own) // 2]]))
    rows = [Row([[strip.query], strip.results]) for strip in strips(found, typical, TOP)]
    photos = found.inputs.gallery.labels
    return save_sheet(
        path,
        rows,
        title="Sketch → photos of classes never seen in training",
        subtitle=f"for each class the query of median AP and its top photos, of {len(photos)} photos of "
        f"{len(np.unique(photos))} unseen classes; below each photo: rank and cosine",
    )


def _trained(
    recipe: Recipe,
    prepared: PreparedSet,
    runs: Path,
    device: str,
    hooks: Hooks | None,
    say: Callable[[str], None],
) -> Path:
    """The folder of a finished run of `recipe`: an earlier one, an interrupted one continued, or a new one."""
    resume = None
    try:
        earlier = latest_run(runs)
        info = checkpoint.inspect(earlier / "checkpoints" / "last")
        if info.learnt.identity == prepared.identity and continues(info, recipe):
            if info.epoch >= recipe.train.epochs:
                say(f"{earlier} is already trained; using it")
                return earlier
            resume = earlier
            say(f"continuing {earlier} at epoch {info.epoch}")
    except (ZssbirError, OSError):
        pass  # no run yet, or none that can be continued: start afresh
    return train(recipe, runs=runs, device=device, resume=resume, hooks=hooks).run


class _Clock:
    """Seconds between stops, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now


MASKED_PHOTOS = 4


def write_demo_page(result: DemoResult, out: Path, device: str) -> Path:
    """Write `out`/demo.html and the masks that it shows, `out`/masks; returns the page. Raises DataError."""
    mask_viz(
        MaskRequest(data=result.data, model=OFFLINE, count=MASKED_PHOTOS, out=out / "masks", device=device)
    )
    trained, chance = result.scores[-1], result.scores[0]
    rows = [(s.name, f"{100 * s.map_all:.1f}", f"{100 * s.p_10:.1f}", s.what) for s in result.scores]
    photos = out / "pictures" / "photo"
    return write_page(
        out / "demo.html",
        "demo",
        title="zssbir demo: search photos by drawing",
        cards=[
            {"value": f"{100 * trained.map_all:.1f} %", "name": "mAP@all (voc) on unseen classes"},
            {"value": f"{100 * chance.map_all:.1f} %", "name": "by chance"},
            {"value": f"{result.gain:.1f} ×", "name": "over the untrained network"},
            {"value": f"{result.photos:,}", "name": "photos searched"},
        ],
        pictures=str(out / "pictures"),
        unseen=[name.replace("_", " ") for name in result.unseen],
        about=f"{result.queries:,} sketches against {result.photos:,} photos of {len(result.unseen)} unseen classes, percent, "
        "voc convention.",
        scores=Table(("", "mAP@all", "P@10", "what it is"), rows),
        draw=shlex.join(["zssbir", "draw", "--photos", str(photos), "--run", str(result.run)]),
    )
