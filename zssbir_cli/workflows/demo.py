"""`zssbir demo`: the whole way on drawn pictures, offline: prepare, train, embed, evaluate, show."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zssbir_cli.arrays import UInt8
from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.load import load_run, load_start
from zssbir_cli.embedding.passes import embed_all
from zssbir_cli.engine import checkpoint
from zssbir_cli.engine.records import read_metrics
from zssbir_cli.engine.report import Hooks
from zssbir_cli.engine.resume import continues
from zssbir_cli.engine.runs import latest_run
from zssbir_cli.errors import UsageError, ZssbirError
from zssbir_cli.files import write_json
from zssbir_cli.inputs.datasets import EvalImages, load_image
from zssbir_cli.preparation.choices import BuildOptions, Choices
from zssbir_cli.progress import Progress, silent
from zssbir_cli.recipe.loader import find_recipe, load_recipe
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.retrieval.chance import chance_of
from zssbir_cli.retrieval.hog import hog
from zssbir_cli.retrieval.metrics import Metrics, evaluate
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.curves import Level, save_curves
from zssbir_cli.viz.sheet import Mark, Row, Tile, save_sheet
from zssbir_cli.workflows.demo_page import write_demo_page
from zssbir_cli.workflows.info import contact_sheet
from zssbir_cli.workflows.prepare import prepare_demo
from zssbir_cli.workflows.train import train

QUICK = (
    "data.size=64", "train.epochs=3", "train.steps_per_epoch=40", "train.validate_every=1", "optim.warmup_steps=10",
)  # fmt: skip
"""Changes of the recipe for `--quick`; the numbers then show that it works, not how well."""
QUICK_PHOTOS = 10
"""Photos per class of `--quick`."""
TOP = 10
QUERIES = 8
Embed = Callable[[Tensor, Modality], Tensor]


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
    out: Path,
    *,
    seed: int = 0,
    photos: int = 40,
    workers: int = 0,
    progress: Progress = silent,
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
    choices = Choices(seed=seed, build=BuildOptions(workers=workers))
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
    where = choose_device(device)
    trial = Trial(prepared, recipe, Precision.choose(recipe.train.precision, where))
    start = load_start(recipe, where)
    run = _trained(recipe, prepared, out / "runs", device, hooks, say)
    clock.stop("train")
    _, method, _ = load_run(run, where)
    untrained, frozen, trained = (trial.test(e) for e in (start.embed, lambda x, m: hog(x), method.embed))
    clock.stop("evaluate")
    by_chance = chance_of(untrained[0])
    scores = (
        _score("chance", "a random order of the photos", by_chance),
        _score("untrained network", "the same network with its random start weights", untrained[0]),
        _score("gradient histograms", "a fixed descriptor (HOG) that learns nothing", frozen[0]),
        _score("trained network", f"recipe {recipe.name}, trained on the seen classes only", trained[0]),
    )
    pictures = (
        contact_sheet(data, out / "classes.png", per_class=4, max_classes=20),
        save_curves(
            out / "curves.png",
            read_metrics(run),
            title=f"Training of the recipe {recipe.name}",
            levels=(
                Level("untrained network", "mAP@all", trial.validation(start.embed)),
                Level("chance", "mAP@all", trial.chance()),
            ),
        ),
        trial.gallery(out / "gallery.png", *trained),
    )
    clock.stop("pictures")
    result = DemoResult(
        scores=scores,
        gain=scores[3].map_all / max(scores[1].map_all, 1e-9),
        queries=trained[0].queries,
        photos=trained[0].gallery,
        unseen=tuple(prepared.classes[i] for i in prepared.manifest.ids_for(Part.TEST)),
        data=data, run=run, pictures=pictures, summary=out / "summary.json", page=out / "demo.html", seconds=clock.seconds,
    )  # fmt: skip
    write_demo_page(result, out, device)
    clock.stop("page")
    write_json(result.summary, _plain(result))
    return result


@dataclass
class Trial:
    """The demo set's unseen (and validation) images, and how they are embedded, scored and shown."""

    prepared: PreparedSet
    recipe: Recipe
    precision: Precision

    def features(self, part: Part, modality: Modality, embed: Embed) -> Tensor:
        """Embeddings float32 [N, D] of all images of a part."""
        images = EvalImages(
            self.prepared.images(part, modality), self.recipe.data.size, self.recipe.data.sketch_crop
        )
        return embed_all(
            lambda x: embed(x, modality), images, batch_size=128, workers=0, precision=self.precision
        )

    def score(self, part: Part, embed: Embed) -> tuple[Metrics, Tensor]:
        """Metrics of a part and its scores [queries, photos] (cosine)."""
        query, gallery = (self.features(part, m, embed) for m in (Modality.SKETCH, Modality.PHOTO))
        labels = [self.prepared.images(part, m).labels for m in (Modality.SKETCH, Modality.PHOTO)]
        return evaluate(query, gallery, *labels, k=(10,)), _unit(query) @ _unit(gallery).T

    def test(self, embed: Embed) -> tuple[Metrics, Tensor]:
        """Metrics and scores on the unseen classes."""
        return self.score(Part.TEST, embed)

    def validation(self, embed: Embed) -> float:
        """mAP@all (voc) on the held-out seen classes."""
        return self.score(Part.VAL, embed)[0].get("mAP@all")

    def chance(self) -> float:
        """Expected mAP@all of a random order on the held-out seen classes, about a class's share of the photos."""
        count = np.unique(self.prepared.images(Part.VAL, Modality.PHOTO).labels, return_counts=True)[1]
        return float((count / count.sum()).mean())

    def gallery(self, path: Path, metrics: Metrics, scores: Tensor) -> Path:
        """For each of some unseen classes its typical query (median AP of the class) and its best photos."""
        sketches, photos = (self.prepared.images(Part.TEST, m) for m in (Modality.SKETCH, Modality.PHOTO))
        names = self.prepared.classes
        precision = np.asarray(metrics.per_query("mAP@all"))
        rows = []
        for label in np.unique(sketches.labels)[:QUERIES].tolist():
            own = np.flatnonzero(sketches.labels == label)
            query = int(own[np.argsort(precision[own], kind="stable")[len(own) // 2]])
            best = torch.topk(scores[query], min(TOP, len(photos)))
            found = []
            for rank, (i, value) in enumerate(
                zip(best.indices.tolist(), best.values.tolist(), strict=True), 1
            ):
                mark: Mark = "hit" if photos.labels[i] == label else "miss"
                name = names[photos.labels[i]].replace("_", " ")
                found.append(Tile(_pixels(load_image(photos, i)), name, f"{value:.3f}", rank, mark))
            name = names[label].replace("_", " ")
            rows.append(Row([[Tile(_pixels(load_image(sketches, query)), name, mark="query")], found]))
        return save_sheet(
            path,
            rows,
            title="Sketch → photos of classes never seen in training",
            subtitle=f"each class's query of median AP and its best of {len(photos)} photos of "
            f"{len(np.unique(photos.labels))} unseen classes; below each its rank and cosine",
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
                say(f"{earlier} is trained already; using it")
                return earlier
            resume = earlier
            say(f"continuing {earlier} at epoch {info.epoch}")
    except (ZssbirError, OSError):
        pass  # no run yet, or none that can be continued: start afresh
    return train(recipe, runs=runs, device=device, resume=resume, hooks=hooks).run


def _score(name: str, what: str, metrics: Metrics) -> Score:
    return Score(name, what, metrics.get("mAP@all"), metrics.get("P@10"))


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=1)


def _pixels(image: Tensor) -> UInt8:
    """uint8 [1 or 3, H, W] -> [H, W] or [H, W, 3]."""
    return np.ascontiguousarray(image[0].numpy() if image.shape[0] == 1 else image.permute(1, 2, 0).numpy())


def _plain(result: DemoResult) -> dict[str, object]:
    """The result as JSON values; paths relative to where the command ran."""
    return {
        "split": "unseen classes",
        "convention": "voc",
        "queries": result.queries,
        "photos": result.photos,
        "unseen": list(result.unseen),
        "scores": [asdict(s) for s in result.scores],
        "gain": result.gain,
        "data": str(result.data),
        "run": str(result.run),
        "pictures": [str(p) for p in result.pictures],
        "page": str(result.page),
        "seconds": result.seconds,
    }


class _Clock:
    """Seconds between stops, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def stop(self, name: str) -> None:
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 2)
        self._last = now
