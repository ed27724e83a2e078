"""`zssbir search`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zssbir_cli.cli import options
from zssbir_cli.cli.options import flag, option
from zssbir_cli.errors import UsageError
from zssbir_cli.names import counted, listed, table_address
from zssbir_cli.types import FOUND_FILES

if TYPE_CHECKING:
    from zssbir_cli.workflows.search import Found, SearchResult


def search(
    context: typer.Context,
    sketches: list[Path] = typer.Argument(
        None, metavar="SKETCH", help="Drawings: PNG, JPEG, SVG, ..., or folders of them."
    ),
    gallery: Path = option(..., "PATH", options.PHOTOS, "--photos"),
    k: int = option(20, "N", "Photos per sketch.", "-k", min=1),
    out: Path | None = options.out("Write pictures with scores (.html, .png), or a list (.json, .csv)."),
    run: options.Run = None,
    model: options.Model = None,
    checkpoint: options.Checkpoint = "best",
    like: list[Path] = option(
        [], "PHOTO", "Find photos similar to this one, instead of or beside a drawing."
    ),
    text: str = option(
        "",
        "WORDS",
        "Words to look for, alone or added to each picture; for --model siglip, clip and others with a text side.",
        show_default=False,
    ),
    min_score: float = option(
        -1.0, "X", "Show no photo with a cosine below X (-1 to 1).", show_default=False
    ),
    approximate: bool = flag("Use the index of a table; what it finds is scored exactly.", "--approximate"),
    device: options.Device = "auto",
    workers: options.Workers = None,
    runs: options.Runs = Path("runs"),
    json_: options.Json = False,
) -> None:
    """Find the photos that match a drawing: exact search, best first.

    Example: zssbir search boat.png --photos holiday --out found.html

    Without training: zssbir search boat.png --photos holiday --model siglip
    """
    import json

    from zssbir_cli.cli.console import note
    from zssbir_cli.cli.display import loading

    options.one_of_run_and_model(context, "runs")
    if out is not None:
        options.one_of("--out", str(out), FOUND_FILES, out.suffix.lower())
    if approximate and not table_address(gallery):
        raise UsageError(f"--approximate is for tables (.lance); {gallery} is searched exactly")
    options.of_embeddings(context, gallery)
    options.exists(gallery, "--photos")
    for place in (*(sketches or ()), *like):
        options.exists(place)
    with loading("search", "the weights") as progress:
        from zssbir_cli.workflows import search as workflow
        from zssbir_cli.workflows.search_pages import why_no_pictures

        result = workflow.search_sketches(
            sketches or [], gallery, run=run, model=model, runs=runs, checkpoint=checkpoint, k=k, like=like,
            text=text, min_score=min_score, approximate=approximate, device=device, workers=workers, progress=progress,
        )  # fmt: skip
    if out is not None:
        workflow.write_result(result, out)
        note(f"written: {out}")
        if out.suffix.lower() in (".html", ".png") and (why := why_no_pictures(result)):
            note(f"{out} shows no pictures: {why}")
    _say(result, gallery)
    if json_:
        print(json.dumps(workflow.result_json(result), indent=1))
        return
    for found in result.found:
        _show_found(found, result.photos)


def _say(result: "SearchResult", gallery: Path) -> None:
    """What one must know beside the photos, on stderr."""
    from zssbir_cli.cli.console import note

    for path, reason in result.left_out:
        note(f"left out: {path}: {reason}")
    if (done := result.folder) is not None:
        for name, reason in done.skipped:
            note(f"skipped {name}: {reason}")
        if done.new or done.changed or done.gone or done.others:
            note(f"{gallery}: {done}")
    note(result.weights)
    if result.note:
        note(result.note)
    if result.folder is None and (changed := _changed(result)):
        text = (
            f"{counted(len(changed), 'photo')} gone or changed since {gallery} was made: {listed(changed, 3)}"
        )
        note(f"{text}; run `zssbir embed --photos` again")
    if result.share is not None:
        note(
            f"approximate search found {result.share:.0%} of what exact search finds (tried with the first queries)"
        )
    for found in result.found:
        if found.note:
            note(f"{found.title}: {found.note}")


def _changed(result: "SearchResult") -> list[str]:
    from zssbir_cli.workflows.search_pages import changed_photos

    return changed_photos(result)


def _show_found(found: "Found", photos: int) -> None:
    """The photos of one query, best first; classes where the gallery has some."""
    from zssbir_cli.cli.console import table

    classes = any(h.name for h in found.hits)
    rows = [(h.rank, f"{h.score:.4f}", *([h.name] if classes else ()), h.source) for h in found.hits]
    columns = ("", "cosine", *(["class"] if classes else ()), "photo")
    table(columns, rows, f"{found.title} in {photos:,} photos")
