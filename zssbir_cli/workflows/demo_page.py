"""The page that tells what `zssbir demo` did: data, training, results, masks, and what to do next."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from zssbir_cli.models.known import OFFLINE
from zssbir_cli.viz.page import Table, write_page
from zssbir_cli.workflows.mask_viz import MaskRequest, mask_viz

if TYPE_CHECKING:
    from zssbir_cli.workflows.demo import DemoResult

MASKED_PHOTOS = 4


def write_demo_page(result: "DemoResult", out: Path, device: str) -> Path:
    """Write `out`/demo.html and the masks that it shows, `out`/masks; returns the page. Raises DataError."""
    mask_viz(
        MaskRequest(data=result.data, model=OFFLINE, count=MASKED_PHOTOS, out=out / "masks", device=device)
    )
    trained, chance = result.scores[-1], result.scores[0]
    rows = [(s.name, f"{100 * s.map_all:.1f}", f"{100 * s.p_10:.1f}", s.what) for s in result.scores]
    photos = out / "pictures" / "photo"
    return write_page(
        out / "demo.html",
        "demo",
        title="zssbir demo: search photos by drawing",
        cards=[
            {"value": f"{100 * trained.map_all:.1f} %", "name": "mAP@all (voc) on unseen classes"},
            {"value": f"{100 * chance.map_all:.1f} %", "name": "by chance"},
            {"value": f"{result.gain:.1f} ×", "name": "over the untrained network"},
            {"value": f"{result.photos:,}", "name": "photos searched"},
        ],
        pictures=str(out / "pictures"),
        unseen=[name.replace("_", " ") for name in result.unseen],
        about=f"{result.queries:,} sketches against {result.photos:,} photos of {len(result.unseen)} unseen classes, percent, "
        "voc convention.",
        scores=Table(("", "mAP@all", "P@10", "what it is"), rows),
        draw=shlex.join(["zssbir", "draw", "--photos", str(photos), "--run", str(result.run)]),
    )
