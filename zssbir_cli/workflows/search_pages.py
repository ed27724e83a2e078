"""What `zssbir search --out` shows: the photos found, as a page or as a sheet."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from zssbir_cli.evaluation import pictures
from zssbir_cli.viz.page import link, write_page
from zssbir_cli.viz.sheet import Row, Tile, save_sheet

if TYPE_CHECKING:
    from zssbir_cli.workflows.search import Found, SearchResult

TITLE = "Photos found by drawing"


def write_sheet(result: "SearchResult", out: Path) -> Path:
    """A PNG with a row per drawing; returns `out`. Raises DataError."""
    rows = [Row([[query], results]) for query, results in (_tiles(result, f, out) for f in result.found)]
    return save_sheet(out, rows, title=TITLE, subtitle=_about(result))


def write_search_page(result: "SearchResult", out: Path) -> Path:
    """A self-contained HTML page with links to the photos; returns `out`. Raises DataError."""
    queries = []
    for found in result.found:
        query, results = _tiles(result, found, out)
        queries.append(
            {
                "heading": _title(found),
                "note": found.note,
                "query": replace(query, name=query.spare),
                "results": results,
            }
        )
    return write_page(out, "search", title=TITLE, about=_about(result), queries=queries)


def _tiles(result: "SearchResult", found: "Found", out: Path) -> tuple[Tile, list[Tile]]:
    """A drawing and its photos, best first."""
    images = pictures.of_gallery(result.gallery, [h.row for h in found.hits])
    results = []
    for hit, image in zip(found.hits, images, strict=True):
        original = result.gallery.file_of(hit.row) if image is not None else None
        results.append(
            Tile(
                image,
                hit.name.replace("_", " ") or Path(hit.source).name,
                f"{hit.score:.3f}",
                hit.rank,
                link=link(original, out) if original is not None and original.is_file() else "",
                spare=f"photo {hit.row}",
            )
        )
    kind = "drawing" if found.kind == "sketch" else found.kind
    image = None if found.image is None else pictures.thumbnail(found.image, found.modality)
    return Tile(image, _title(found), mark="query", spare=kind), results


def _title(found: "Found") -> str:
    """The query, without folders."""
    return found.title.replace(str(found.sketch), found.sketch.name) if found.sketch.name else found.title


def _about(result: "SearchResult") -> str:
    place, how = result.gallery.info.data_root or "?", "exact" if result.share is None else "approximate"
    return f"{result.photos:,} photos of {place}; {result.weights}; {how} search; scores are cosines"
