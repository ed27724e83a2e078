"""What a run was trained on, and what a result is about: typed facts, made in one place and never parsed back."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zssbir_cli.names import class_key


@dataclass(frozen=True)
class Learnt:
    """The data set of a run, as its checkpoints and run.json keep it (`data`).

    Class names are as in the manifest, by role; `leaks` are lines of those on record. Runs of older
    versions know no classes: `knows_classes` is False.
    """

    name: str = ""
    identity: str = ""
    split: str = ""
    seen: tuple[str, ...] = ()
    val: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    """Classes that the weights it began with were trained on or selected by: those of another run (`model.weights`)."""

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Learnt":
        """From `as_json` (or what an older version wrote). Raises TypeError, ValueError or AttributeError."""
        roles = dict(data.get("classes") or {})
        seen, val, unseen = (tuple(map(str, roles.get(role, ()))) for role in ("seen", "val", "unseen"))
        name, identity, split = (str(data.get(key) or "") for key in ("name", "identity", "split"))
        leaks, start = (tuple(map(str, data.get(key) or ())) for key in ("leaks", "start"))
        return cls(name, identity, split, seen, val, unseen, leaks, start)

    def as_json(self) -> dict[str, Any]:
        """Plain values for meta.json and run.json."""
        classes = {role: list(getattr(self, role)) for role in ("seen", "val", "unseen")}
        about = {"name": self.name, "split": self.split, "identity": self.identity}
        start = {"start": list(self.start)} if self.start else {}
        return {**about, "classes": classes, "leaks": list(self.leaks), **start}

    @property
    def knows_classes(self) -> bool:
        """Whether the run says which classes it was trained on."""
        return bool(self.seen)

    @property
    def known(self) -> tuple[str, ...]:
        """All classes that the weights were trained on or selected by, those of their start among them."""
        return tuple(dict.fromkeys((*self.seen, *self.val, *self.start)))

    def used(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that are `known`, by their keys (`names.class_key`)."""
        return among(names, self.known)


def among(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Those of `names` that have the key of one of `known`."""
    keys = set(map(class_key, known))
    return [name for name in names if class_key(name) in keys]


@dataclass(frozen=True)
class Provenance:
    """What a result is about. Texts that do not apply are empty: a file of embeddings has no run."""

    protocol: str
    protocol_description: str
    embeddings: str = ""
    """The file, when vectors of another model were evaluated."""
    ranking: str = ""
    """The file, when a ranking of another program was evaluated; `qrels`: the judgements."""
    qrels: str = ""
    ties: str = ""
    """How a ranking's equal scores are taken: `expected` or `trec`."""
    run: str = ""
    model: str = ""
    """The frozen tower, instead of a run: nothing was trained."""
    preprocessing: str = ""
    """How pictures became its inputs."""
    recipe: str = ""
    method: str = ""
    """The run's; `frozen` for a tower."""
    which: str = ""
    """The checkpoint that was used: `best`, `last`, `epoch-0004`, `best.previous`; `frozen` for a tower."""
    checkpoint: str = ""
    """sha256 of its weights."""
    epoch: int = 0
    step: int = 0
    precision: str = ""
    data: str = ""
    split: str = ""
    identity: str = ""
    seed: int = 0
    subset: bool = False
    """Not all classes or images of the protocol took part."""
    chosen: tuple[str, ...] = ()
    """The classes that the user asked for; () for all."""
    most_per_class: int = 0
    """The most sketches and photos of a class that the user asked for; 0 for all."""
    extra: str = ""
    """Where more photos of the gallery are from, relevant to no query; `extra_photos`: how many."""
    extra_photos: int = 0
    cross: bool = False
    """Another data set than the one the run was trained on."""
    excluded: tuple[str, ...] = ()
    """Classes left out because the run was trained on them or selected by them."""
    leaks: tuple[str, ...] = ()
    """Leaks between training and test on record: the run's own, then those of the evaluated set."""

    @property
    def of_weights(self) -> bool:
        """Whether a run's or a tower's weights were evaluated, not a file of another program."""
        return bool(self.run or self.model)

    def as_json(self) -> dict[str, Any]:
        """What applies, as plain values: booleans are booleans, numbers are numbers."""
        return {k: value for k, value in asdict(self).items() if value != "" and (self.of_weights or value)}

    @property
    def headline(self) -> str:
        """What was evaluated, in one line."""
        if not self.of_weights:
            return self.embeddings or self.ranking
        frozen = f", {self.model}, frozen" if self.model else ""
        frozen += f", {self.extra_photos:,} extra photos in the gallery" if self.extra else ""
        return f"{self.data} ({self.split}), {self.protocol}{frozen}"

    def describe(self) -> list[str]:
        """What one must know beside the numbers, one line each."""
        lines = [f"protocol {self.protocol}: {self.protocol_description}"]
        if self.run:
            lines.append(
                f"run {self.run} ({self.recipe}, method {self.method}), checkpoint {self.which} (epoch {self.epoch}, "
                f"step {self.step}, weights {self.checkpoint[:12]}), embedded in {self.precision}"
            )
            whose = "not the set it was trained on" if self.cross else "the set it was trained on"
            lines.append(f"data set {self.data} ({self.split}), identity {self.identity}: {whose}")
        if self.model:
            lines.append(
                f"model {self.model}, weights {self.checkpoint[:12]}, {self.preprocessing}, embedded in {self.precision}; "
                "frozen: nothing was trained"
            )
            lines.append(
                f"data set {self.data} ({self.split}), identity {self.identity}: unseen means unseen by this program only; "
                "the model's own training data may include these classes"
            )
        return lines
