"""`zssbir prepare`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zssbir_cli.cli import complete, options
from zssbir_cli.cli.options import flag, option

if TYPE_CHECKING:
    from zssbir_cli.preparation.build import Prepared


OF_THE_DEMO = (
    "source", "out", "name", "unseen", "val_classes", "holdout", "subset", "ambiguity", "seed", "size", "square",
    "workers",
)  # fmt: skip
"""Parameters that mean something for `prepare demo`."""


def prepare(
    context: typer.Context,
    source: list[str] = typer.Argument(
        None,
        metavar="SOURCE",
        autocompletion=complete.sources,
        help="demo, sketchy, tuberlin, quickdraw, or your own folder or archive with sketch/<class>/* and "
        "photo/<class>/*.",
    ),
    out: Path | None = option(None, "DIR", "Output folder.  [default: data/NAME]", "--out", "-o"),
    name: str | None = option(None, "NAME", "Name of the prepared set.  [default: from the source]"),
    unseen: str | None = option(
        None,
        "NAMES|@FILE|N|FRACTION|all",
        "Own data: test classes as names with commas, @FILE of names, a number (also n=3), a fraction, or all.  "
        "[default: 0.2]",
    ),
    split: str | None = option(None, "NAME", "Benchmarks: the named split; see --list."),
    given: list[Path] | None = option(
        None, "DIR|ARCHIVE", "Benchmarks: files you already have (repeatable).", "--from"
    ),
    lists: list[Path] | None = option(
        None, "DIR", "Benchmarks: published file lists; they decide which images belong."
    ),
    val_classes: int | None = option(
        None, "N", "Seen classes held out for model selection.  [default: a tenth; benchmarks: 0]"
    ),
    holdout: int | None = option(
        None, "N", "Sketches per seen class kept out of training.  [default: 0; benchmarks: as published]"
    ),
    subset: options.PerClass = None,
    ambiguity: float | None = option(
        None,
        "0-1",
        "demo: how many and how large other things in the photos are.  [default: 0.2]",
        min=0,
        max=1,
    ),
    seed: int = option(0, "N", "Seed of every random choice."),
    size: int | None = option(None, "N", "Resize pictures to N pixels on the shorter side.  [default: keep]"),
    square: bool = flag(
        "With --size N: store the N x N network inputs themselves (sketches cropped to their ink, photos "
        "squashed); fastest to train on at data.size N.",
        "--square",
    ),
    workers: int = option(0, "N", "Threads; 0 = one per core."),
    strict: bool = flag("Treat an unusable image as an error.", "--strict"),
    dedup: bool = flag("Leave out repeated images (EXTEND repeats originals).", "--dedup"),
    allow_leak: bool = flag("Record leaks instead of refusing them.", "--allow-leak"),
    show_list: bool = flag("Show data sets, splits, counts and papers, and exit.", "--list"),
    verify: Path | None = option(None, "DIR", "Check every byte of a prepared set and report problems."),
) -> None:
    """Turn sketches and photos into a prepared data set: shards and a manifest.

    Example: zssbir prepare pictures --unseen 5   (pictures/sketch/<class>/* and pictures/photo/<class>/*)
    """
    if show_list:
        options.allow_only(context, "--list", "show_list")
        _show_splits()
    elif verify is not None:
        options.allow_only(context, "--verify", "verify", "workers")
        _verify(verify, workers)
    else:
        if source == ["demo"]:
            options.allow_only(context, "`prepare demo`", *OF_THE_DEMO)
        from zssbir_cli.cli.console import note
        from zssbir_cli.cli.display import progress as shown
        from zssbir_cli.workflows.prepare import prepare as run_prepare

        with shown("prepare: looking at the pictures") as bar:
            result = run_prepare(
                source or [], out=out, name=name, unseen=unseen, val_classes=val_classes, holdout=holdout,
                per_class=subset, seed=seed, size=size, square=square, split=split, files=given or [],
                lists=lists or [], ambiguity=ambiguity, dedup=dedup, strict=strict, allow_leak=allow_leak,
                workers=workers, say=note, progress=bar,
            )  # fmt: skip
        _show(result, "demo" if source == ["demo"] else "mobilenet")


def _show(result: "Prepared", recipe: str) -> None:
    """The summary of a prepared set, on stdout, and what to do next."""
    import shlex

    from zssbir_cli.cli.console import note, table
    from zssbir_cli.cli.info import show_published
    from zssbir_cli.names import counted, listed
    from zssbir_cli.preparation.journal import REPORT_NAME
    from zssbir_cli.types import Role
    from zssbir_cli.workflows.info import describe

    found = describe(result.root)
    if not result.fresh:
        note(f"{result.root} is already prepared with these options; nothing to do")
    columns = ("part", "classes", "sketches", "photos", "megabytes")
    title = f"{found['name']} ({found['split']}), identity {found['identity']}"
    table(columns, [tuple(row[c] for c in columns) for row in found["parts"]], title)
    show_published(found["published"], found["differing_classes"])
    if found["skipped"]:
        were = "was" if found["skipped"] == 1 else "were"
        print(f"{counted(found['skipped'], 'image')} {were} left out; see {result.root / REPORT_NAME}")
    for leak in found["leaks"][:5]:
        print(f"leak ({leak['kind']}): {leak['what']} is in {leak['where']}")
    if len(found["leaks"]) > 5:
        print(f"... {len(found['leaks'])} leaks in all, recorded in the manifest")
    for role, meaning in (
        (Role.VAL, "validation, for model selection"),
        (Role.UNSEEN, "unseen, for the test"),
    ):
        names = [c.name for c in result.manifest.classes_of(role)]
        if names:
            print(f"{meaning}: {listed(names)}")
    trains = bool(result.manifest.classes_of(Role.SEEN))
    use = f"train --recipe {recipe}" if trains else "eval --model NAME"
    print(f"prepared in {result.root}; next: zssbir {use} --data {shlex.quote(str(result.root))}")


def _show_splits() -> None:
    import textwrap

    from zssbir_cli.benchmarks.splits import DEFAULT_SPLIT, SPLITS
    from zssbir_cli.cli.console import paragraph_width, table

    def figure(value: int | None, exact: bool) -> str:
        return "-" if value is None else f"{value:,}" if exact else f"~{value:,}"

    rows = []
    for s in SPLITS.values():
        p, mark = s.published, " (default)" if s.name in DEFAULT_SPLIT.values() else ""
        train = [figure(c, s.exact_train) for c in (p.train_sketches, p.train_photos)]
        test = [figure(c, True) for c in (p.test_sketches, p.test_photos)]
        rows.append((s.name + mark, len(s.seen), len(s.unseen), *train, *test))
    columns = ("split", "seen", "unseen", "train sketches", "train photos", "test sketches", "test photos")
    table(columns, rows)
    print("\nused by:")
    for s in SPLITS.values():
        print(textwrap.fill(f"{s.name}: {s.papers}", paragraph_width(), initial_indent="  ", subsequent_indent="    ",
                            break_on_hyphens=False))  # fmt: skip
    print(
        "\nzssbir prepare sketchy|tuberlin|quickdraw --split NAME; counts as published, '-' = not published"
    )


def _verify(root: Path, workers: int) -> None:
    from zssbir_cli.cli.display import progress as shown
    from zssbir_cli.errors import DataError
    from zssbir_cli.names import counted
    from zssbir_cli.preparation.verify import verify

    with shown("verify: reading the manifest") as bar:
        verdict = verify(root, workers, bar)
    for problem in verdict.problems:
        print(problem)
    if verdict.problems:
        raise DataError(
            f"{root}: {counted(len(verdict.problems), 'problem')}; delete the folder and prepare it again"
        )
    print(
        f"{root} is intact: {verdict.images:,} images in {verdict.shards} shards, {verdict.leaks} recorded leaks"
    )
