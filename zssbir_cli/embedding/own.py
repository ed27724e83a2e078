"""A prepared data set as weights see it: the one their run was trained on, or another whose classes it may know."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zssbir_cli.data.manifest import Manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights
from zssbir_cli.engine.provenance import Learnt, among
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.engine.runs import read_record
from zssbir_cli.errors import DataError, UsageError, ZssbirError
from zssbir_cli.names import listed
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Role


def learnt_from(manifest: Manifest, start: tuple[str, ...] = ()) -> Learnt:
    """What a run that is trained on a prepared set keeps of it. `start`: see `Learnt.start`."""

    def names(role: Role) -> tuple[str, ...]:
        return tuple(c.name for c in manifest.classes_of(role))

    return Learnt(
        name=manifest.name, identity=manifest.identity, split=manifest.split, seen=names(Role.SEEN),
        val=names(Role.VAL), unseen=names(Role.UNSEEN), leaks=leak_lines(manifest), start=start,
    )  # fmt: skip


def leak_lines(manifest: Manifest) -> tuple[str, ...]:
    """Leaks that a set has on record, one line each."""
    return tuple(f"{leak.kind} {leak.what}: {leak.where}" for leak in manifest.leaks)


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    """How images become the network's input, for run.json (the recipe of each checkpoint holds the same)."""
    return {
        "size": recipe.data.size, "sketch_crop": recipe.data.sketch_crop, "input": recipe.model.input,
        "mean": recipe.model.mean, "std": recipe.model.std, "interpolation": "bilinear, antialiased",
    }  # fmt: skip


@dataclass(frozen=True)
class KnownData:
    """A prepared set, and what weights know of it: nothing, where this program has not trained them."""

    prepared: PreparedSet
    learnt: Learnt = field(default_factory=Learnt)
    """What they were trained on by this program."""
    weights: RunWeights | None = None
    """None for a frozen tower."""

    @property
    def own(self) -> bool:
        """Whether this is the very set that the run was trained on, wherever it lies."""
        return bool(self.learnt.identity) and self.prepared.identity == self.learnt.identity

    @property
    def note(self) -> str:
        """What to say when it is not, else an empty text."""
        if self.own or self.weights is None:
            return ""
        here, then = self.prepared, self.learnt
        trained = f"{then.name} ({then.identity})" if then.identity else "an unknown data set"
        return f"{here.root} holds {here.manifest.name} ({here.identity}), not the data set the run was trained on: {trained}"

    @cached_property
    def used(self) -> frozenset[int]:
        """Labels of another set's classes that the weights were trained on or selected by; of the run's own set, of the
        unseen classes that its start was.

        Raises DataError when the run is too old to know its classes and its data set cannot be found.
        """
        learnt, classes = self.learnt, self.prepared.classes
        if self.own:
            used = set(among((c.name for c in self.prepared.manifest.classes_of(Role.UNSEEN)), learnt.start))
        else:
            if self.weights is not None and not learnt.knows_classes:
                learnt = _recovered(self.weights, learnt, self.prepared)
            used = set(learnt.used(classes))
        return frozenset(i for i, name in enumerate(self.prepared.classes) if name in used)


def _recovered(weights: RunWeights, learnt: Learnt, other: PreparedSet) -> Learnt:
    """The classes of an older run, from its data set; kept in run.json for the next time."""
    for root in data_roots(weights):
        with suppress(ZssbirError):
            prepared = PreparedSet.open(root)
            if prepared.identity == learnt.identity:
                return _keep_classes(weights.home, prepared)
    run = weights.home
    raise DataError(
        f"{run}: made by an older zssbir, the run does not say which classes it was trained on, so nothing can be "
        f"called unseen in {other.root}; run `zssbir eval --run {run} --data FOLDER` once with the set "
        f"it was trained on ({learnt.name or '?'}, identity {learnt.identity or 'unknown'})"
    )


def remark(data: KnownData) -> str:
    """What users should know when a data set is not the one a run was trained on, else an empty text: which it
    is, and which of its classes the run has seen."""
    try:
        known = [data.prepared.classes[i] for i in sorted(data.used)]
    except DataError:
        return f"{data.note}; which of its classes the run was trained on is not known"
    whose = "the weights that it began with were" if data.own or data.weights is None else "the run was"
    told = f"{whose} trained on or selected by {listed(known, 5)}" if known else ""
    return "; ".join(filter(None, (data.note, told)))


def _keep_classes(run: Path, prepared: PreparedSet) -> Learnt:
    """Write the classes of an older run, found in its data set, into its run.json, where that can be written."""
    learnt = learnt_from(prepared.manifest)
    RunDir(run).update_record({"data": {"root": str(prepared.root.resolve()), **learnt.as_json()}})
    return learnt


def data_of(weights: Weights, data: Path | None = None) -> KnownData:
    """Open `data` for weights, or the set that their run was trained on: where the recipe and run.json say, from here
    or from beside the folder of runs. A set of the run's identity wins over another one that lies there now.

    Raises DataError when there is no prepared set, UsageError when a tower is given none.
    """
    if not isinstance(weights, RunWeights):
        assert isinstance(weights, TowerWeights)
        if data is None:
            raise UsageError("a frozen model has no data set of its own; name one with --data DIR")
        return KnownData(PreparedSet.open(data), Learnt(start=weights.spec.learnt))
    learnt = weights.checkpoint.learnt
    if not learnt.knows_classes:
        with suppress(TypeError, ValueError, AttributeError):
            kept = Learnt.read((read_record(weights.home) or {}).get("data", {}))
            learnt = kept if kept.identity == learnt.identity and kept.knows_classes else learnt
    prepared = PreparedSet.open(data) if data is not None else _first(weights, learnt)
    found = KnownData(prepared, learnt, weights)
    if found.own and not learnt.knows_classes:
        found = replace(found, learnt=_keep_classes(weights.home, prepared))
    return found


def _first(weights: RunWeights, learnt: Learnt) -> PreparedSet:
    """The run's own set, else the first that lies where it should be. Raises DataError."""
    others: list[PreparedSet] = []
    problems: list[DataError] = []
    for root in data_roots(weights):
        try:
            found = PreparedSet.open(root)
        except DataError as error:
            problems.append(error)
            continue
        if learnt.identity and found.identity == learnt.identity:
            return found
        others.append(found)
    if not others:
        raise DataError(f"{problems[0]}; or name the run's data set with --data") from None
    return others[0]


def data_roots(weights: RunWeights) -> list[Path]:
    """Where a run's data set may lie, the likeliest first, each once."""
    given = Path(weights.data.root).expanduser()
    places = [given]
    recorded = (read_record(weights.home) or {}).get("data")
    if isinstance(recorded, dict) and recorded.get("root"):
        places.append(Path(str(recorded["root"])))
    if not given.is_absolute():
        places += [folder / given for folder in weights.home.resolve().parents[1:3]]
    found: dict[Path, Path] = {}
    for place in places:
        found.setdefault(place.resolve(), place)
    return list(found.values())
