"""Options that several commands share, each declared once. Their values are checked before torch is loaded."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from zssbir_cli.cli import complete
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import check_writable
from zssbir_cli.names import suggestion, table_address

PHOTOS = "An embeddings file, a folder of photos, or a prepared data set; for search also a LanceDB table (.lance)."


def _matching(pattern: str, words: str) -> Any:
    """What refuses a value that does not match."""

    def check(parameter: typer.CallbackParam, value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise UsageError(f"{parameter.opts[0]} {value}: use {words}")
        return value

    return check


def _split(value: str) -> str:
    from zssbir_cli.evaluation.protocols import check_protocol

    check_protocol(value)
    return value


def _data(value: Path | None) -> Path | None:
    if value is not None and not (value.expanduser() / "manifest.json").is_file():
        from zssbir_cli.workflows.recipes import neighbour

        raise DataError(
            f"--data {value}: no prepared data set here (no manifest.json); make one with `zssbir prepare`"
            + neighbour(value)
        )
    return value


def _not_empty(parameter: typer.CallbackParam, value: str | None) -> str | None:
    """Refuse a list of names without a name, such as a variable of a script that is not set."""
    if value is not None and not value.strip(", "):
        raise UsageError(
            f"{parameter.opts[0]} is empty; name one or several, separated by commas, or leave it out"
        )
    return value


def writable(value: Path | None) -> Path | None:
    """Refuse a file that cannot be written, before it is computed. Errors: DataError."""
    if value is not None:
        check_writable(value)
    return value


def writable_folder(value: Path | None) -> Path | None:
    """As `writable`, of a folder."""
    if value is not None:
        check_writable(value, folder=True)
    return value


def shared(metavar: str, help: str, *names: str, **more: Any) -> Any:
    """An option for `Annotated`; `names` where they are not that of the parameter. A help with `[default: ...]` says
    itself what happens without the option."""
    return typer.Option(
        *names, metavar=metavar, help=help, **{"show_default": "[default: " not in help, **more}
    )


def option(default: Any, metavar: str, help: str, *names: str, **more: Any) -> Any:
    """An option of one command, as the default of its parameter; the rest as for `shared`."""
    return shared(metavar, help, default, *names, **more)


def out(help: str, *, folder: bool = False) -> Any:
    """`--out`, of a file or a folder: looked at before the work begins."""
    check = writable_folder if folder else writable
    return option(None, "DIR" if folder else "FILE", help, "--out", "-o", callback=check)


def flag(help: str, *names: str, default: bool = False) -> Any:
    """An option without a value."""
    return typer.Option(default, *names, help=help)


Split = Annotated[
    str,
    shared(
        "NAME",
        "zs (unseen classes), val (held-out seen classes), or a generalised protocol: gzs-sem-pcyc, gzs-ocean, "
        "gzs-dr-clip, gzs-distractors, gzs-distractors-equal.",
        "--split", "-s", callback=_split, autocompletion=complete.splits,
    ),
]  # fmt: skip
Run = Annotated[
    str | None,
    shared(
        "RUN", "A run: its folder, its name or a part of it.  [default: the latest; under torchrun write -R]",
        "--run", "-R", autocompletion=complete.runs,
    ),
]  # fmt: skip
Model = Annotated[
    str | None,
    shared(
        "MODEL",
        "A frozen model instead of a run, nothing trained: siglip, siglip2, dfn, eva02-clip, clip, dinov2, dinov3, "
        "mobilenet, a timm model, a weight file (or BACKBONE=FILE), or a recipe's start (NAME.yaml).",
        "--model", "-M", show_default=False,
    ),
]  # fmt: skip
Runs = Annotated[Path, shared("DIR", "Folder of the runs.", "--runs")]
CHECKPOINTS, DEVICES = "best, last or epoch-NNNN", "auto, cpu, cuda or cuda:N"
PRECISIONS = "auto, fp32 or bf16"
Checkpoint = Annotated[
    str,
    shared(
        "NAME", f"{CHECKPOINTS}.", "--checkpoint", callback=_matching(r"best|last|epoch-\d+", CHECKPOINTS)
    ),
]
Data = Annotated[
    Path | None,
    shared(
        "DIR", "A prepared data set.  [default: the run's own]", "--data", callback=_data,
        autocompletion=complete.data_sets,
    ),
]  # fmt: skip
Device = Annotated[
    str, shared("DEVICE", f"{DEVICES}.", "--device", callback=_matching(r"auto|cpu|cuda(:\d+)?", DEVICES))
]
Precision = Annotated[
    str,
    shared(
        "NAME",
        f"Number format of the network: {PRECISIONS}.",
        "--precision",
        callback=_matching(r"auto|fp32|bf16", PRECISIONS),
    ),
]
Workers = Annotated[
    int | None, shared("N", "Image-loading processes.  [default: the recipe's]", "--workers", min=0)
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
Seed = Annotated[int, shared("N", "Seed of every random choice.", "--seed", min=0)]
Set = Annotated[
    list[str] | None,
    shared("KEY=VALUE", "Override a key of the recipe, e.g. --set optim.lr=1e-4 (repeatable).", "--set"),
]
PerClass = Annotated[
    int | None, shared("N", "At most N sketches and N photos per class.", "--per-class", min=1)
]
Classes = Annotated[
    str | None, shared("NAMES", "Only these classes, separated by commas.", "--classes", callback=_not_empty)
]


def one_of(option: str, value: str, known: Collection[str], compared: str | None = None) -> None:
    """Refuse a `value` that is none of `known`; `compared`: the part of it that counts, such as a file's suffix."""
    compared = value if compared is None else compared
    if compared not in known:
        raise UsageError(
            f"{option} {value}: one of {', '.join(known)}{suggestion(compared, map(str, known))}"
        )


def exists(place: Path, option: str = "") -> None:
    """Refuse a file or folder that is not there, before torch is loaded. Errors: DataError, with `option` UsageError.
    Tables are looked for when they are opened."""
    if not table_address(place) and not place.expanduser().exists():
        if option:
            raise UsageError(f"{option} {place}: no such file or folder")
        raise DataError(f"{place}: cannot be read (no such file or folder)")


def given(context: typer.Context) -> dict[str, str]:
    """Parameters that were written on the command line, with the option's name."""
    found = {}
    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            long = [o for o in parameter.opts if o.startswith("--")] or parameter.opts
            found[name] = long[0] if long[0].startswith("-") else str(parameter.metavar or name)
    return found


def one_of_run_and_model(context: typer.Context, *idle: str) -> None:
    """Refuse --run and --model together, what means nothing with --model (`--checkpoint` and `idle` parameters), and a
    run or a model that is not there.

    Errors: UsageError, CheckpointError.
    """
    found = given(context)
    if "model" in found:
        for name in ("run", "checkpoint", *idle):
            if name in found:
                raise UsageError(f"{found[name]} has no effect with --model; leave one of them out")
        from zssbir_cli.models.known import check_model_name

        check_model_name(context.params["model"])
    elif "run" in found and "qrels" not in found:  # with --qrels it is a file
        from zssbir_cli.engine.runs import find_run

        named = find_run(context.params["run"], context.params["runs"], which="").which
        if named and "checkpoint" in found and context.params["checkpoint"] != named:
            raise UsageError(
                f"--checkpoint {context.params['checkpoint']} has no effect with --run {context.params['run']}, which names a "
                "checkpoint itself; leave one of them out"
            )


def of_embeddings(context: typer.Context, gallery: Path) -> None:
    """Refuse --checkpoint where the gallery is an embeddings file, which says itself which weights made it."""
    if gallery.is_file() and "checkpoint" in given(context):
        raise UsageError(
            f"--checkpoint has no effect with {gallery}, which is searched with the weights that made it; leave it out"
        )


def needs_data(model: str | None, data: Path | None) -> None:
    """Refuse a model without a data set, before it is downloaded."""
    if model is not None and data is None:
        raise UsageError(
            f"--model {model}: a frozen model has no data set of its own; name one with --data DIR"
        )


def allow_only(context: typer.Context, mode: str, *names: str) -> None:
    """Refuse every option that `mode` would ignore; `names` are the parameters that it uses."""
    for name, option in given(context).items():
        if name not in names:
            raise UsageError(f"{option} has no effect with {mode}; leave it out")
