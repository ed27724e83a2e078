"""The text of a checkpoint's meta.json: plain facts and the sha256 of this text (`seal`). Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zssbir_cli.files import parsed

SEAL = "seal"
EXPORTED = "exported"
"""Key of the name that a checkpoint had, where `zssbir export` packed another one than the best."""
BLANK = "0" * 64
"""Stands where the seal goes while it is computed."""


def meta_text(facts: Mapping[str, Any]) -> str:
    """What meta.json holds for `facts`, sealed anew."""
    text = json.dumps({**facts, SEAL: BLANK}, indent=1, sort_keys=True) + "\n"
    place = f'"{SEAL}": "{{}}"'
    return text.replace(place.format(BLANK), place.format(_sha256(text)))


def read_meta(path: Path) -> dict[str, Any]:
    """The facts of a meta.json. Those of older versions have no seal.

    Raises OSError, and ValueError when it is no JSON object, or not as it was written, to the byte.
    """
    text = path.read_bytes().decode("utf-8")
    found = parsed(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    seal = found.pop(SEAL, None)
    if seal is None:
        changed = any(
            isinstance(value, str) and len(value) == len(BLANK) for value in found.values()
        )  # its name was
    else:
        changed = _sha256(text.replace(str(seal), BLANK)) != seal
    if changed:
        raise ValueError("it was changed after it was written: its checksum differs")
    return found


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
