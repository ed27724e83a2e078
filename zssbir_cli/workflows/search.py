"""`zssbir search`: sketches, or photos to find more like them, against a gallery that is embedded once and reused."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zssbir_cli import files
from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.embeddings import Embeddings
from zssbir_cli.embedding.folder import FolderResult
from zssbir_cli.embedding.gallery import Gallery, Hit, open_gallery
from zssbir_cli.errors import UsageError
from zssbir_cli.inputs.folder import Pictures, QueryImage, QueryInputs, expand, read_queries
from zssbir_cli.names import table_address
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import FOUND_FILES, AnyPath, Modality

CHECKED = 3
"""So many queries of an approximate search are also searched exactly."""
SHOW_PROGRESS = 500_000
"""Photos of a gallery from which on a search shows its progress."""


@dataclass(frozen=True)
class Found:
    """A query and its photos, best first. `modality`: whether `sketch` is a drawing, or a photo to find more like."""

    sketch: Path
    hits: tuple[Hit, ...]
    note: str
    modality: Modality
    image: Tensor | None = field(compare=False, repr=False)
    """Its pixels; None for a text alone, whose `sketch` is an empty path."""
    text: str = ""
    """What was searched for in words, alone or beside the picture."""

    @property
    def title(self) -> str:
        """The query, for people."""
        picture = [] if self.image is None else [str(self.sketch)]
        return " + ".join([*picture, f'"{self.text}"'] if self.text else picture)

    @property
    def kind(self) -> str:
        """`sketch`, `photo` or `text`."""
        return "text" if self.image is None else self.modality.word


@dataclass(frozen=True)
class SearchResult:
    """All queries' results and the gallery they are from."""

    opened: Gallery
    found: tuple[Found, ...]
    left_out: tuple[tuple[Path, str], ...] = ()
    """Queries that are broken or blank, and why."""
    share: float | None = None
    """After an approximate search, the share of the exact results that it found for the first queries."""

    @property
    def gallery(self) -> Embeddings:
        """The gallery's embeddings."""
        return self.opened.stored

    @property
    def photos(self) -> int:
        """How many photos were searched."""
        return self.opened.table.rows if self.opened.table else len(self.opened.rows)

    @property
    def weights(self) -> str:
        """Which run's or model's weights, in words."""
        return self.opened.embedder.weights.label

    @property
    def folder(self) -> FolderResult | None:
        """What following the gallery's folder did."""
        return self.opened.folder

    @property
    def note(self) -> str:
        """What the user should know of the gallery."""
        return self.opened.note


def search_sketches(
    sketches: Pictures,
    photos: AnyPath,
    *,
    run: AnyPath | None = None,
    model: str | None = None,
    checkpoint: str = "best",
    runs: AnyPath = "runs",
    k: int = 20,
    like: Pictures = (),
    text: str = "",
    min_score: float = -1.0,
    approximate: bool = False,
    device: str = "auto",
    workers: int | None = None,
    progress: Progress = silent,
) -> SearchResult:
    """Find the `k` nearest photos of every sketch.

    Args:
        sketches: drawings: files, folders, PIL images or arrays. Broken and blank ones are left out, with the reason
            in the result.
        photos: the gallery: an embeddings file (made with the same weights), a prepared data set (its test photos),
            any folder of photos (embedded on first use, then followed: only what is new or changed is embedded), or a
            LanceDB table (`photos.lance`).
        run, model, checkpoint: whose weights, as `embedding.weights.choose_weights` takes them; default: those that made
            the file, or the latest run under `runs`.
        like: photos to find more like; they do not find themselves.
        text: what to look for in words, for a frozen model with a text side: alone, or added to each picture (the mean
            of both unit vectors).
        min_score: the least cosine of a photo that is shown.
        approximate: use the index of a table; what it finds is scored exactly.

    Errors: DataError (no query can be read, gallery of another model), UsageError, CheckpointError.

    >>> found = zssbir.search("drawing.png", photos="photos", k=3).found[0]
    >>> [hit.rank for hit in found.hits]
    [1, 2, 3]
    """
    if approximate and not table_address(photos):
        raise UsageError(f"--approximate is for tables (`.lance`); {photos} is searched exactly")
    asked = _asked(sketches, like, text, k, min_score)
    opened = open_gallery(
        Path(photos), choose_device(device), run=run, model=model, runs=Path(runs), which=checkpoint,
        workers=workers, text=bool(text), progress=progress,
    )  # fmt: skip
    result = _search(opened, asked, progress, approximate)
    opened.embedder.keep_ready()
    return result


def search_gallery(
    gallery: Gallery,
    sketches: Pictures,
    *,
    k: int = 20,
    like: Pictures = (),
    text: str = "",
    min_score: float = -1.0,
    progress: Progress = silent,
) -> SearchResult:
    """As `search_sketches`, in a gallery that is open already."""
    return _search(gallery, _asked(sketches, like, text, k, min_score), progress)


@dataclass(frozen=True)
class _Asked:
    queries: list[QueryImage]
    left_out: list[tuple[Path, str]]
    text: str
    k: int
    min_score: float


def _asked(sketches: Pictures, like: Pictures, text: str, k: int, min_score: float) -> _Asked:
    if not -1 <= min_score <= 1:
        raise UsageError(f"--min-score {min_score}: a cosine lies between -1 and 1")
    left_out: list[tuple[Path, str]] = []
    drawings, photos = expand(sketches, left_out), expand(like, left_out)
    if not drawings and not photos and not text.strip():
        raise UsageError(
            "nothing to search for: give a drawing, or a photo with --like, or words with --text"
        )
    if k < 1:
        raise UsageError(f"-k {k}: give 1 or more")
    queries, unreadable = read_queries(drawings, photos) if drawings or photos else ([], [])
    return _Asked(queries, unreadable + left_out, text, k, min_score)


def _search(opened: Gallery, asked: _Asked, progress: Progress, approximate: bool = False) -> SearchResult:
    """The photos of each query."""
    most = asked.k + any(q.modality is Modality.PHOTO for q in asked.queries)
    vectors = _vectors(opened, asked.queries, asked.text)
    opened = opened.narrowed(vectors, most, approximate=approximate)
    nearest = opened.nearest(vectors, most, progress if len(opened.rows) > SHOW_PROGRESS else silent)
    share = _share(opened, vectors[:CHECKED], nearest, most) if approximate else None
    found, stored = [], opened.stored
    queries: list[QueryImage | None] = [*asked.queries] or [None]
    for query, hits in zip(queries, nearest, strict=True):
        if query and query.modality is Modality.PHOTO:
            itself = query.path.resolve()
            places = {hit.row: stored.file_of(hit.row) for hit in hits}
            same = {row for row, p in places.items() if p and p.name == itself.name and p.resolve() == itself}
            hits = [hit for hit in hits if hit.row not in same]
        best = [replace(hit, rank=rank) for rank, hit in enumerate(hits[: asked.k], 1)]
        shown = tuple(hit for hit in best if hit.score >= asked.min_score)
        notes = [query.note] if query and query.note else []
        if best and not shown:
            notes.insert(0, f"nothing above {asked.min_score:g} (the best photo has {best[0].score:.3f})")
        path, modality, image = (
            (query.path, query.modality, query.image) if query else (Path(), Modality.SKETCH, None)
        )
        found.append(Found(path, shown, "; ".join(notes), modality, image, asked.text))
    return SearchResult(opened, tuple(found), tuple(asked.left_out), share)


def _share(opened: Gallery, vectors: Tensor, nearest: list[list[Hit]], k: int) -> float:
    """The share of the exact `k` nearest photos of each query that an approximate search has found."""
    exact = opened.narrowed(vectors, k).nearest(vectors, k)
    names = [
        ({h.source for h in right}, {h.source for h in hits})
        for right, hits in zip(exact, nearest, strict=False)
    ]
    return sum(len(right & hits) for right, hits in names) / sum(len(right) for right, _ in names)


def _vectors(gallery: Gallery, queries: list[QueryImage], text: str) -> Tensor:
    """Unit embeddings [N, D] of the queries, sketches first, each with the text if there is one; of the text alone."""
    embedder = gallery.embedder
    vectors = [
        embedder.embed(QueryInputs(some, embedder.size, embedder.sketch_crop, gallery.of_files), modality)
        for modality in (Modality.SKETCH, Modality.PHOTO)
        if (some := [q for q in queries if q.modality is modality])
    ]
    if not text:
        return torch.cat(vectors)
    words = embedder.embed_text(text)
    return functional.normalize(torch.cat(vectors) + words, dim=1) if vectors else words


def result_json(result: SearchResult) -> dict[str, Any]:
    """Results as plain values."""
    info = result.gallery.info
    return {
        "gallery": table_address(str(result.gallery.path)) or str(result.gallery.path),
        "photos": result.photos,
        "data_root": info.data_root,
        "weights": result.weights,
        "checkpoint": info.checkpoint,
        "exact": result.share is None,
        **({} if result.share is None else {"share_of_exact": result.share}),
        "left_out": [{"sketch": str(path), "reason": reason} for path, reason in result.left_out],
        "sketches": [
            {
                "sketch": "" if f.image is None else str(f.sketch),
                **({"text": f.text} if f.text else {}),
                "note": f.note,
                "results": [
                    {"rank": h.rank, "score": h.score, "photo": h.source, "class": h.name} for h in f.hits
                ],
            }
            for f in result.found
        ],
    }


def result_csv(result: SearchResult) -> str:
    """Results as a table, one line per photo that was found."""
    hits = (
        [f.title, f.kind, h.rank, f"{h.score:.6f}", h.source, h.name] for f in result.found for h in f.hits
    )
    return files.csv_text([["query", "kind", "rank", "cosine", "photo", "class"], *hits])


def check_out(out: Path | None) -> None:
    """Refuse an output of an unknown kind before the work is done. Errors: UsageError."""
    if out is not None and out.suffix.lower() not in FOUND_FILES:
        raise UsageError(f"--out {out}: expected {', '.join(FOUND_FILES)}")


def write_result(result: SearchResult, out: Path) -> None:
    """Write a .json or .csv file, or pictures with scores as a .html page or a .png sheet. Errors: UsageError, DataError."""
    from zssbir_cli.workflows.search_pages import write_search_page, write_sheet

    check_out(out)
    if out.suffix.lower() == ".png":
        write_sheet(result, out)
    elif out.suffix.lower() == ".html":
        write_search_page(result, out)
    else:
        with files.writing(out):
            if out.suffix.lower() == ".csv":
                files.write_text(out, result_csv(result))
            else:
                files.write_json(out, result_json(result))
