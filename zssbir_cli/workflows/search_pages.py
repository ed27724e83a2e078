"""What `zssbir search --out` shows: the photos found, as a page or as a sheet."""

import os
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from zssbir_cli.evaluation import pictures
from zssbir_cli.names import table_address
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
        shown = {"query": replace(query, name=query.spare), "results": results}
        queries.append({"heading": _title(result, found), "note": found.note, **shown})
    return write_page(out, "search", title=TITLE, about=_about(result), queries=queries)


def _tiles(result: "SearchResult", found: "Found", out: Path) -> tuple[Tile, list[Tile]]:
    """A drawing and its photos, best first."""
    images = pictures.of_gallery(result.gallery, [h.row for h in found.hits])
    results = []
    for hit, image in zip(found.hits, images, strict=True):
        place = PurePosixPath(hit.source)
        original = result.gallery.file_of(hit.row) if image is not None else None
        address = link(original, out) if original is not None and original.is_file() else ""
        name = hit.name.replace("_", " ") or place.name
        results.append(
            Tile(
                image,
                name,
                f"{hit.score:.3f}",
                hit.rank,
                link=address,
                spare=f"photo {hit.row}",
                folder="" if hit.name or place.parent == PurePosixPath() else str(place.parent),
            )
        )
    kind = "drawing" if found.kind == "sketch" else found.kind
    image = None if found.image is None else pictures.thumbnail(found.image, found.modality)
    return Tile(image, _title(result, found), mark="query", spare=kind), results


def _title(result: "SearchResult", found: "Found") -> str:
    """The query, without folders that all queries share."""
    if found.image is None:
        return found.title
    folders = [os.path.dirname(os.path.abspath(f.sketch)) for f in result.found]  # noqa: PTH100, PTH120 - `..` goes
    own = PurePath(os.path.abspath(found.sketch))  # noqa: PTH100
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # on several drives
        shared = str(own.parent)
    return found.title.replace(str(found.sketch), own.relative_to(shared).as_posix(), 1)


def _about(result: "SearchResult") -> str:
    """What was searched, without the folder's place on this machine: pages are passed on."""
    info, how = result.gallery.info, "exact" if result.share is None else "approximate"
    name = info.data_name or PurePath(info.data_root).name or "?"
    return f"{result.photos:,} photos of {name}; {result.weights}; {how} search; scores are cosines"


def changed_photos(result: "SearchResult") -> list[str]:
    """Photos of a folder's embeddings file that were found and are not there any more, or are others now."""
    stored = result.gallery
    if stored.stamps is None or why_no_pictures(result):
        return []
    rows = sorted({hit.row for found in result.found for hit in found.hits})
    return [stored.sources[row] for row in rows if pictures.file_as_embedded(stored, row) is None]


def why_no_pictures(result: "SearchResult") -> str:
    """Why none of the photos can be shown; "" when they can be."""
    stored, info = result.gallery, result.gallery.info
    if info.part:
        if pictures.set_as_embedded(stored):
            return ""
        return f"{info.data_root} does not hold the data set that was embedded ({info.data_name}, {info.data_identity})"
    if not info.data_root:
        return "the gallery does not say where its photos lie, as one that was joined of several folders"
    if Path(info.data_root).is_dir():
        return ""
    gone = f"there is no folder {info.data_root}"
    if info.data_identity:  # of tar shards
        return gone
    place = table_address(str(stored.path)) or stored.path
    return f"{gone}; where the photos are now, run `zssbir embed --photos FOLDER --out {place}`"
