"""The yardsticks beside a result: a random order of the gallery, and the run's own backbone before training."""

from dataclasses import replace

from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights
from zssbir_cli.engine.runs import read_record
from zssbir_cli.errors import ZssbirError
from zssbir_cli.evaluation.bootstrap import paired_difference
from zssbir_cli.evaluation.inputs import Options, same_images
from zssbir_cli.evaluation.measure import Baseline, Evaluation, measure
from zssbir_cli.models.pretrained import is_cached
from zssbir_cli.models.towers import start_of
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.chance import chance_of
from zssbir_cli.retrieval.metrics import Metrics

CHANCE, START = "chance", "frozen start"
JUDGED = "plain"
"""Convention in which gains are judged: a maximum over later places, as in voc, lifts chance most."""


class StartWeights(TowerWeights):
    """A run's backbone as it was before training; embeddings made with it are kept in the run's folder."""

    def __init__(self, run: RunWeights) -> None:
        super().__init__(start_of(run.recipe, run.home / "recipe.yaml"))
        self.home = run.home


def with_chance(found: Evaluation) -> Evaluation:
    """The evaluation with what chance gives beside it."""
    row = Baseline.of(CHANCE, "a random order of the gallery", chance_of(found.metrics))
    return replace(found, baselines=(*found.baselines, row))


def with_start(
    found: Evaluation, weights: Weights, options: Options, progress: Progress = silent
) -> Evaluation:
    """The evaluation with its run's frozen start beside it, and a warning when training gained nothing.

    Nothing is downloaded for it: where the start's weights are not on this machine, a note says so.
    """
    if not isinstance(weights, RunWeights):
        return found

    def shown(what: str, done: int, total: int) -> None:
        progress(f"{START}: {what}", done, total)

    try:
        if weights.model.weights == "pretrained" and not is_cached(weights.model.backbone):
            raise _NotHere(f"the pretrained weights of {weights.model.backbone} are not on this machine")
        start = StartWeights(weights)
        began = (read_record(weights.home) or {}).get("start_sha256")
        if began and began != start.sha256:
            raise _NotHere(f"{weights.model.weights}: other weights now than those that the run began with")
        inputs = same_images(found.inputs, start, options, shown)
        other = measure(inputs, k=found.metrics.k, device=options.device, progress=shown)
    except (ZssbirError, OSError) as error:
        note = f"the frozen start could not be evaluated ({error}); --no-baselines skips it"
        return replace(found, inputs=replace(found.inputs, notes=(*found.inputs.notes, note)))
    size = start.spec.data.size
    about = f"{weights.model.backbone} at {size} px before training, weights {start.sha256[:12]}"
    row = Baseline.of(START, about, other.metrics, start.sha256)
    warnings = (*found.inputs.warnings, *_gain(found.metrics, other.metrics))
    return replace(found, baselines=(*found.baselines, row), inputs=replace(found.inputs, warnings=warnings))


class _NotHere(ZssbirError):
    """The start's weights are not on this machine (any more)."""


def _gain(trained: Metrics, start: Metrics) -> list[str]:
    """A warning when training lost, or gained nothing that is sure, by mAP@all over the same queries; none where every
    photo is relevant to every query, so that nothing can be gained."""
    kept = trained.counted
    if (trained.relevant[kept] == trained.gallery).all():
        return []
    a, b = (m.per_query("mAP@all", JUDGED)[kept] for m in (start, trained))
    gain = paired_difference(a, b, trained.query_labels[kept], resamples=100)
    told = f"{100 * gain.mean:+.2f} points mAP@all ({JUDGED}) against the frozen start"
    if gain.mean <= 0:
        return [f"training did not help: {told}"]
    if gain.over_queries.low <= 0:
        low, high = (100 * x for x in (gain.over_queries.low, gain.over_queries.high))
        return [f"no significant gain from training: {told}, 95 % over queries {low:+.2f} ... {high:+.2f}"]
    return []
