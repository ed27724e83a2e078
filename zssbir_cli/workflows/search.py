"""`zssbir search`: sketches against a gallery of photos, embedded once and reused."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from zssbir_cli import files
from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.data.embeddings import Embeddings, Rows, read_embeddings
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import ink_box
from zssbir_cli.embedding.folder import run_folder
from zssbir_cli.embedding.parts import Embedder, Request, embed_part, embeddings_path, is_fresh
from zssbir_cli.engine.runs import RunChoice, find_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.inputs.folder import SketchFiles, picture_files, read_sketch
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.search import search
from zssbir_cli.types import Modality, Part

FORMATS = (".html", ".png", ".json")
SHOW_PROGRESS = 500_000
"""Photos of a gallery from which on a search shows its progress."""


@dataclass(frozen=True)
class Hit:
    """A photo that was found: place from 1, cosine, row of the gallery, its name and class ("" if not known)."""

    rank: int
    score: float
    row: int
    source: str
    name: str


@dataclass(frozen=True)
class Found:
    """A sketch and its photos, best first."""

    sketch: Path
    hits: tuple[Hit, ...]
    note: str = ""


@dataclass(frozen=True)
class SearchResult:
    """All sketches' results and the gallery they are from."""

    gallery: Embeddings
    found: tuple[Found, ...]
    photos: int
    recall: float | None = None
    """With an approximate index: its measured share of the exact results."""
    skipped: tuple[tuple[str, str], ...] = ()
    """Files of the gallery's folder that could not be read, and why (when it was embedded just now)."""


def search_sketches(
    sketches: Sequence[Path],
    gallery: Path,
    *,
    run: str | Path | None = None,
    runs: Path = Path("runs"),
    which: str = "best",
    k: int = 20,
    device: str = "auto",
    workers: int | None = None,
    approximate: bool = False,
    progress: Progress = silent,
) -> SearchResult:
    """Find the `k` nearest photos of every sketch.

    gallery: an embeddings file (its model must be the run's), a prepared data set (its test photos), or any folder
    of photos (embedded on first use, then reused while its files and the weights stay the same).
    Errors: DataError (broken or blank sketch, gallery of another model), UsageError, CheckpointError.
    """
    paths, notes = _checked_sketches(sketches)
    chosen = RunChoice(Path(), which) if run is None else find_run(run, runs, which)
    options = Request(chosen.path, chosen.which, device, "auto", workers)
    embedder, stored, skipped = _open_gallery(gallery, options, run is not None, runs, progress)
    rows, start = _photo_rows(stored)
    if not len(rows):
        raise DataError(f"{gallery}: holds no photos")
    data = embedder.recipe.data
    queries = embedder.embed(SketchFiles(paths, data.size, data.sketch_crop), Modality.SKETCH)
    recall = None
    if approximate:
        from zssbir_cli.embedding.approximate import approximate_search

        nearest, recall = approximate_search(stored, rows, queries, k)
    else:
        nearest = search(
            queries,
            rows,
            k,
            products=Precision.choose("auto", torch.device("cpu")).dtype,
            progress=progress if len(rows) > SHOW_PROGRESS else silent,
        )
    found = []
    for i, path in enumerate(paths):
        numbers = [start + int(r) for r in nearest.rows[i]]
        hits = tuple(
            Hit(j + 1, float(nearest.scores[i, j]), row, stored.sources[row], _class_of(stored, row))
            for j, row in enumerate(numbers)
        )
        found.append(Found(path, hits, notes[i]))
    return SearchResult(stored, tuple(found), len(rows), recall, skipped)


def _class_of(stored: Embeddings, row: int) -> str:
    label = int(stored.label[row])
    return stored.info.classes[label] if 0 <= label < len(stored.info.classes) else ""


def _checked_sketches(sketches: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Sketch files (folders are listed), each readable and with ink, and a note for what looks like a photo."""
    paths = [file for place in sketches for file in picture_files(place)]
    notes = []
    for path in paths:
        image = read_sketch(path)
        if ink_box(image) is None:
            raise DataError(f"{path}: the sketch is blank (no ink found); draw something or leave it out")
        grey = float(((image > 40) & (image < 215)).float().mean())
        notes.append("looks like a photo, not a drawing; searched all the same" if grey > 0.35 else "")
    return paths, notes


def _open_gallery(
    gallery: Path, options: Request, named: bool, runs: Path, progress: Progress
) -> tuple[Embedder, Embeddings, tuple[tuple[str, str], ...]]:
    """The gallery's embeddings, the weights that made them, and what had to be skipped."""
    if gallery.is_file():
        stored = read_embeddings(gallery)
        request = _request_for(stored, gallery, options, named, runs)
        return request.open(choose_device(request.device)), stored, ()
    if not gallery.is_dir():
        raise UsageError(f"--gallery {gallery}: no such file or folder")
    request = options if named else _with_run(options, find_run(None, runs).path)
    device = choose_device(request.device)
    embedder = request.open(device)
    if (gallery / "manifest.json").is_file():
        prepared = PreparedSet.open(gallery)
        path = embeddings_path(request.run, request.which, prepared, Part.TEST)
        if path.exists() and is_fresh(found := read_embeddings(path), embedder.checkpoint.sha256, prepared):
            return embedder, found, ()
        return embedder, embed_part(embedder, prepared, Part.TEST, path, progress), ()
    result = run_folder(request, gallery, None, half=False, force=False, progress=progress)
    return embedder, read_embeddings(result.path), result.skipped


def _with_run(request: Request, run: Path, which: str | None = None) -> Request:
    return Request(
        run, which or request.which, request.device, request.precision, request.workers, request.batch
    )


def _request_for(stored: Embeddings, path: Path, options: Request, named: bool, runs: Path) -> Request:
    """The run and checkpoint whose weights made an embeddings file.

    Errors: DataError when no run at hand has those weights: a sketch embedded by another model would be compared
    with nonsense.
    """
    if not stored.info.checkpoint:
        raise DataError(
            f"{path}: does not say which weights it came from; embed the photos with `zssbir embed`"
        )
    candidates = [options.run] if named else [Path(stored.info.run)]
    if not named and not candidates[0].is_dir():
        candidates = [find_run(None, runs).path]
    for run in candidates:
        for folder in sorted((run / "checkpoints").glob("*/meta.json")):
            if _weights_of(folder) == stored.info.checkpoint:
                return _with_run(options, run, folder.parent.name)
    raise DataError(
        f"{path}: made with the weights {stored.info.checkpoint[:12]} of run {stored.info.run or '?'} (recipe "
        f"{stored.info.recipe or '?'}), which {candidates[0]} does not have; give --run, or embed the photos again "
        f"with `zssbir embed --images`"
    )


def _weights_of(meta: Path) -> str:
    try:
        return str(json.loads(meta.read_text())["sha256"]["model.safetensors"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{meta}: damaged ({error})") from error


def _photo_rows(stored: Embeddings) -> tuple[Rows, int]:
    """The photos' rows (a slice: no copy of a memory map) and the first one's number."""
    rows = stored.rows_of(Modality.PHOTO)
    if not len(rows):
        return stored.embedding[:0], 0
    if int(rows[-1]) - int(rows[0]) + 1 != len(rows):
        raise DataError(f"{stored.path}: sketches and photos are mixed; write it with `zssbir embed`")
    return stored.embedding[rows[0] : rows[-1] + 1], int(rows[0])


def as_json(result: SearchResult) -> dict[str, Any]:
    """Results as plain values."""
    info = result.gallery.info
    return {
        "gallery": str(result.gallery.path),
        "photos": result.photos,
        "data_root": info.data_root,
        "checkpoint": info.checkpoint,
        "exact": result.recall is None,
        "recall_of_index": result.recall,
        "sketches": [
            {
                "sketch": str(f.sketch),
                "note": f.note,
                "results": [
                    {"rank": h.rank, "score": h.score, "photo": h.source, "class": h.name} for h in f.hits
                ],
            }
            for f in result.found
        ],
    }


def check_out(out: Path | None) -> None:
    """Refuse an output of an unknown kind before the work is done. Errors: UsageError."""
    if out is not None and out.suffix.lower() not in FORMATS:
        raise UsageError(f"--out {out}: expected {', '.join(FORMATS)}")


def write_result(result: SearchResult, out: Path) -> None:
    """Write a .json file, or pictures with scores as a .html page or a .png sheet. Errors: UsageError, DataError."""
    from zssbir_cli.workflows.search_pages import write_search_page, write_sheet

    check_out(out)
    if out.suffix.lower() == ".png":
        write_sheet(result, out)
    elif out.suffix.lower() == ".html":
        write_search_page(result, out)
    else:
        try:
            files.write_json(out, as_json(result))
        except OSError as error:
            raise DataError(f"{out}: cannot be written ({files.reason(error)})") from error
