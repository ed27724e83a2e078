"""A prepared data set as a run sees it: its own, or another one of which it may know some classes."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from zssbir_cli.data.manifest import Manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.weights import RunWeights, Weights
from zssbir_cli.engine.checkpoint import CheckpointInfo
from zssbir_cli.engine.provenance import Learnt
from zssbir_cli.engine.records import read_record
from zssbir_cli.engine.runlog import RunDir
from zssbir_cli.errors import DataError, UsageError, ZssbirError
from zssbir_cli.names import listed
from zssbir_cli.recipe.schema import Recipe
from zssbir_cli.types import Role


def learnt_from(manifest: Manifest) -> Learnt:
    """What a run that is trained on a prepared set keeps of it."""

    def names(role: Role) -> tuple[str, ...]:
        return tuple(c.name for c in manifest.classes_of(role))

    return Learnt(
        name=manifest.name, identity=manifest.identity, split=manifest.split, seen=names(Role.SEEN),
        val=names(Role.VAL), unseen=names(Role.UNSEEN), leaks=leak_lines(manifest),
    )  # fmt: skip


def leak_lines(manifest: Manifest) -> tuple[str, ...]:
    """Leaks that were allowed when a set was prepared, one line each."""
    return tuple(f"{leak.kind} {leak.what}: {leak.where}" for leak in manifest.leaks)


def preprocessing(recipe: Recipe) -> dict[str, Any]:
    """How images become the network's input, for run.json (the recipe of each checkpoint holds the same)."""
    return {
        "size": recipe.data.size, "sketch_crop": recipe.data.sketch_crop, "input": recipe.model.input,
        "mean": recipe.model.mean, "std": recipe.model.std, "interpolation": "bilinear, antialiased",
    }  # fmt: skip


class Knows(Protocol):
    """A prepared set, and what the weights that are used know of it."""

    @property
    def prepared(self) -> PreparedSet: ...

    @property
    def learnt(self) -> Learnt:
        """What they were trained on by this program."""
        ...

    @property
    def own(self) -> bool:
        """Whether this is the very set that they learnt from."""
        ...

    @property
    def used(self) -> frozenset[int]:
        """Labels of classes that they were trained on or selected by, in another set than their own."""
        ...

    @property
    def note(self) -> str: ...


@dataclass(frozen=True)
class DataOfTower:
    """A prepared set and a frozen tower, which this program trained on nothing."""

    prepared: PreparedSet
    learnt: Learnt = field(default_factory=Learnt)
    own: bool = False
    used: frozenset[int] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class DataOfRun:
    """A prepared set, and what a run with this checkpoint knows of it."""

    run: Path
    prepared: PreparedSet
    learnt: Learnt
    recipe: Recipe

    @property
    def own(self) -> bool:
        """Whether this is the very set that the run learnt from, wherever it lies."""
        return bool(self.learnt.identity) and self.prepared.identity == self.learnt.identity

    @property
    def note(self) -> str:
        """What to say when it is not, else an empty text."""
        if self.own:
            return ""
        here, then = self.prepared, self.learnt
        trained = f"{then.name} ({then.identity})" if then.identity else "an unknown data set"
        return (
            f"{here.root} holds {here.manifest.name} ({here.identity}), another data set than the run learnt "
            f"from: {trained}"
        )

    @cached_property
    def used(self) -> frozenset[int]:
        """Labels of another set's classes that the run was trained on or selected by; empty for its own set.

        Raises DataError when the run is too old to know its classes and its data set is not to be found.
        """
        if self.own:
            return frozenset()
        learnt = self.learnt if self.learnt.knows_classes else self._recovered()
        names = self.prepared.classes
        used = set(learnt.used(names))
        return frozenset(i for i, name in enumerate(names) if name in used)

    def _recovered(self) -> Learnt:
        """The classes of an older run, from its data set; kept in run.json for the next time."""
        for root in data_roots(self.run, self.recipe):
            with suppress(ZssbirError):
                found = learnt_from(PreparedSet.open(root).manifest)
                if found.identity == self.learnt.identity:
                    keep_classes(self.run, found, root)
                    return found
        raise DataError(
            f"{self.run}: made by an older zssbir, the run does not say which classes it was trained on, so nothing can be "
            f"called unseen in {self.prepared.root}; run `zssbir eval --run {self.run} --data FOLDER` once with the set "
            f"that it learnt from ({self.learnt.name or '?'}, identity {self.learnt.identity or 'unknown'})"
        )


def remark(data: Knows) -> str:
    """What users of a data set should know when it is not the one that a run learnt from, else an empty text: which it
    is, and which of its classes the run has learnt."""
    if not data.note:
        return ""
    try:
        known = [data.prepared.classes[i] for i in sorted(data.used)]
    except DataError:
        return f"{data.note}; which of its classes the run was trained on is not known"
    return data.note + (f"; the run was trained on or selected by {listed(known, 5)}" if known else "")


def keep_classes(run: Path, learnt: Learnt, root: Path) -> None:
    """Write the classes of an older run into its run.json, where that can be written."""
    RunDir(run).update_record({"data": {"root": str(root.resolve()), **learnt.as_json()}})


def data_of(weights: Weights, data: Path | None = None) -> Knows:
    """Open `data` for weights, or the set that their run learnt from.

    Raises DataError when there is no prepared set, UsageError when a tower is given none.
    """
    if isinstance(weights, RunWeights):
        return data_of_run(weights.home, weights.checkpoint, weights.recipe, data)
    if data is None:
        raise UsageError("a frozen model has no data set of its own; name one with --data DIR")
    return DataOfTower(PreparedSet.open(data))


def data_of_run(run: Path, info: CheckpointInfo, recipe: Recipe, data: Path | None = None) -> DataOfRun:
    """Open `data`, or the set that the run learnt from: where the recipe and run.json say, from here or from beside
    the folder of runs. A set of the run's identity wins over another one that lies there now.

    Raises DataError when there is no prepared set.
    """
    learnt = info.learnt
    if not learnt.knows_classes:
        with suppress(TypeError, ValueError, AttributeError):
            kept = Learnt.read((read_record(run) or {}).get("data", {}))
            learnt = kept if kept.identity == learnt.identity and kept.knows_classes else learnt
    if data is not None:
        found = DataOfRun(run, PreparedSet.open(data), learnt, recipe)
    else:
        found = _first(run, learnt, recipe)
    if found.own and not learnt.knows_classes:
        known = learnt_from(found.prepared.manifest)
        keep_classes(run, known, found.prepared.root)
        found = replace(found, learnt=known)
    return found


def _first(run: Path, learnt: Learnt, recipe: Recipe) -> DataOfRun:
    first: DataOfRun | None = None
    problem: DataError | None = None
    for root in data_roots(run, recipe):
        try:
            found = DataOfRun(run, PreparedSet.open(root), learnt, recipe)
        except DataError as error:
            problem = problem or error
            continue
        if found.own:
            return found
        first = first or found
    if first is None:
        raise DataError(f"{problem}; or name the run's data set with --data") from None
    return first


def data_roots(run: Path, recipe: Recipe) -> Iterator[Path]:
    """Where a run's data set may lie, the likeliest first, each once."""
    given = Path(recipe.data.root).expanduser()
    places = [given]
    recorded = (read_record(run) or {}).get("data")
    if isinstance(recorded, dict) and recorded.get("root"):
        places.append(Path(str(recorded["root"])))
    if not given.is_absolute():
        places += [folder / given for folder in run.resolve().parents[1:3]]
    seen: set[Path] = set()
    for place in places:
        if (whole := place.resolve()) not in seen:
            seen.add(whole)
            yield place
