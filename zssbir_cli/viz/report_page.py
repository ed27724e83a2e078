"""Self-contained HTML pages: no script, no link to anything outside the file. User text is escaped."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

UInt8 = npt.NDArray[np.uint8]
THUMB = 112

STYLE = """
:root { --ink: #1c2330; --soft: #5d6778; --line: #dde2ea; --paper: #ffffff; --tint: #f5f7fa; --hit: #1a9850;
  --miss: #d73027; --accent: #2b5fb3; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 18px; margin: 40px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--line); }
p, li { color: var(--soft); margin: 4px 0; } ul { padding-left: 20px; margin: 8px 0; }
.warn { color: #8a4b00; background: #fff5e5; border-left: 4px solid #f0a020; padding: 6px 12px; margin: 8px 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 10px 0; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: 13px; }
th, td { padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; }
tr.pub td { color: var(--accent); } tr.first td { border-top: 2px solid var(--line); }
.cards { display: flex; flex-wrap: wrap; gap: 12px; margin: 18px 0; }
.card { background: var(--tint); border-radius: 8px; padding: 12px 18px; min-width: 140px; }
.card b { display: block; font-size: 26px; line-height: 1.2; } .card span { color: var(--soft); font-size: 13px; }
figure { margin: 14px 0; } figure svg, figure > img { max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 13px; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(430px, 1fr)); gap: 12px 28px; }
.strip { display: flex; gap: 6px; align-items: flex-start; overflow-x: auto; padding: 6px 0; }
.strip div { width: 88px; flex: none; font-size: 11px; line-height: 1.3; color: var(--soft); overflow-wrap: anywhere; }
.strip img { width: 88px; height: 88px; object-fit: cover; border: 3px solid var(--line); border-radius: 4px; display: block; }
.strip .q { margin-right: 10px; } .strip .q img { object-fit: contain; border-color: var(--ink); background: #fff; }
.strip .hit img { border-color: var(--hit); } .strip .miss img { border-color: var(--miss); }
footer { margin-top: 48px; font-size: 12px; color: var(--soft); }
@media print { main { max-width: none; padding: 0; } h2 { break-after: avoid; } figure, .strip { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Thumb:
    """A picture in a strip: uint8 [H, W, 3] (None: no picture), text below, `hit`, `miss` or no mark."""

    image: UInt8 | None
    text: str
    mark: str = ""


def page(title: str, body: Sequence[str]) -> str:
    """A whole HTML document."""
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    return (
        f"<!doctype html><html lang=en><head>{head}<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(body)}</main></body></html>\n"
    )


def escape(text: str) -> str:
    """Text as HTML."""
    return html.escape(text, quote=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], classes: Sequence[str] = ()) -> str:
    """A table; cells that are numbers stand right. `classes`: CSS class of each row."""
    numeric = [
        all(_is_number(row[i]) for row in rows if row[i]) and any(row[i] for row in rows)
        for i in range(len(columns))
    ]

    def cell(tag: str, text: str, i: int) -> str:
        return f"<{tag}{' class=n' if numeric[i] else ''}>{escape(text)}</{tag}>"

    head = "".join(cell("th", c, i) for i, c in enumerate(columns))
    body = "".join(
        f'<tr class="{classes[r] if classes else ""}">{"".join(cell("td", c, i) for i, c in enumerate(row))}</tr>'
        for r, row in enumerate(rows)
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "").replace("%", "").replace("–", "-").split(" ")[0])
    except ValueError:
        return False
    return True


def figure(content: str, caption: str) -> str:
    """An inline SVG document or an <img> with a caption."""
    inner = content[content.index("<svg") :] if "<svg" in content else content
    return f"<figure>{inner}<figcaption>{escape(caption)}</figcaption></figure>"


def strip(query: Thumb, results: Sequence[Thumb]) -> str:
    """A query and its results in one line."""
    items = [_thumb(query, "q"), *(_thumb(r, r.mark) for r in results)]
    return f'<div class="strip">{"".join(items)}</div>'


def _thumb(thumb: Thumb, kind: str) -> str:
    picture = f'<img alt="" src="{data_uri(thumb.image)}">' if thumb.image is not None else ""
    return f'<div class="{kind}">{picture}{escape(thumb.text)}</div>'


def data_uri(image: UInt8, quality: int = 82) -> str:
    """uint8 [H, W, 3] -> a data: URI (JPEG)."""
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def square(image: UInt8, side: int = THUMB) -> UInt8:
    """An image [H, W] or [H, W, 1 or 3] -> [side, side, 3], cropped to its middle square."""
    picture = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image).convert(
        "RGB"
    )
    edge = min(picture.size)
    left, top = (picture.width - edge) // 2, (picture.height - edge) // 2
    cut = picture.crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(cut)


def contact_sheet(rows: Sequence[tuple[Thumb, Sequence[Thumb]]], per_line: int = 10) -> UInt8:
    """Queries with their results as one picture, uint8 [H, W, 3]: the query left, results in lines beside it."""
    from PIL import ImageDraw, ImageFont

    cell, gap, text = THUMB, 8, 16
    lines = [max(1, -(-len(results) // per_line)) for _, results in rows]
    width = (1 + per_line) * (cell + gap) + 3 * gap
    height = sum(n * (cell + text + gap) + 2 * gap for n in lines) + gap
    sheet = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    colors = {"hit": "#1a9850", "miss": "#d73027"}
    y = gap
    for (query, results), n in zip(rows, lines, strict=True):
        for i, thumb in enumerate([query, *results]):
            line, column = (0, 0) if i == 0 else divmod(i - 1, per_line)
            x = gap if i == 0 else 3 * gap + (column + 1) * (cell + gap)
            at = y + line * (cell + text + gap)
            if thumb.image is not None:
                sheet.paste(Image.fromarray(thumb.image).resize((cell, cell)), (x, at))
            outline = "#1c2330" if i == 0 else colors.get(thumb.mark, "#dde2ea")
            draw.rectangle((x - 2, at - 2, x + cell + 1, at + cell + 1), outline=outline, width=2)
            draw.text((x, at + cell + 3), thumb.text[:19], fill="#5d6778", font=font)
        y += n * (cell + text + gap) + 2 * gap
    return np.asarray(sheet)
