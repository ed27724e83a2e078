"""The options of `prepare` that apply to every kind of data."""

from dataclasses import dataclass, field

from zssbir_cli.data.manifest import name_fault
from zssbir_cli.errors import UsageError
from zssbir_cli.preparation.clean import GROUND, SMALLEST_SQUARE, CleanOptions


@dataclass(frozen=True)
class Choices:
    """What a set is made of, and how; None = the default of that kind of data.

    `subset`: most sketches and photos of a class. `dedup`: leave out images whose file repeats one already stored.
    `strict`: whatever is left out is an error. `allow_leak`: record leaks instead of refusing them.
    """

    unseen: str | None = None
    val_classes: int | None = None
    holdout: int | None = None
    subset: int | None = None
    seed: int = 0
    clean: CleanOptions = field(default_factory=CleanOptions)
    dedup: bool = False
    strict: bool = False
    allow_leak: bool = False
    workers: int = 0

    def check(self, name: str | None = None) -> None:
        """Raises UsageError for values out of range, and for a `name` that cannot be part of a path."""
        for option, value, least in (
            ("--val-classes", self.val_classes, 0),
            ("--holdout", self.holdout, 0),
            ("--per-class", self.subset, 1),
            ("--seed", self.seed, 0),
            ("--size", self.clean.size, SMALLEST_SQUARE if self.clean.square else 16),
            ("--workers", self.workers, 0),
        ):
            if value is not None and value < least:
                raise UsageError(f"{option} {value}: give {least} or more")
        if self.clean.square and self.clean.size is None:
            raise UsageError(
                "--square needs --size N, the side of the network's input (the recipe's data.size)"
            )
        if name is not None and (fault := name_fault(name)):
            raise UsageError(f"--name {name!r} {fault}; --out says where the set goes")

    def check_seed(self, drawn: bool) -> None:
        """Raises UsageError for a seed where no class and no image is drawn by it."""
        if self.seed and not drawn and not self.holdout and self.subset is None:
            raise UsageError(
                f"--seed {self.seed} has no effect: nothing is drawn here (no number of unseen or validation classes, no "
                "--holdout, no --per-class); leave it out"
            )

    def record(self) -> dict[str, str | int | float | bool | None]:
        """What the manifest keeps of them for every kind of data."""
        clean = self.clean
        return {
            "seed": self.seed,
            "val_classes": self.val_classes,
            "holdout": self.holdout,
            "subset": self.subset,
            "size": clean.size,
            "square": clean.square,
            "dedup": self.dedup,
            "ground": GROUND,
        }
