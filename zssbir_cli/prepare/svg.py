"""SVG sketches -> PNG bytes, by resvg (one wheel of 3 MB, no system library, no scripts, no network)."""

import gzip
import io

from zssbir_cli.errors import DataError

SIDE = 512
"""The drawing is fitted into a square of this many pixels."""
MAX_BYTES = 16 << 20


def rasterise(raw: bytes) -> bytes:
    """Draw an SVG on a transparent ground; returns PNG bytes.

    Errors: DataError when it does not parse, is enormous, or draws nothing that has a size.
    """
    import resvg_py

    try:
        if raw[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(raw)) as file:
                raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise DataError(f"an SVG of more than {MAX_BYTES >> 20} MiB")
        text = raw.decode("utf-8-sig")
        return bytes(resvg_py.svg_to_bytes(svg_string=text, width=SIDE, height=SIDE, skip_system_fonts=True))
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"not a readable SVG ({' '.join(str(error).split())[:120]})") from None
