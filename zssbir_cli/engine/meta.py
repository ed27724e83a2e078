"""The text of a checkpoint's meta.json: plain facts and a checksum of them (`seal`). Imports no torch."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SEAL = "seal"


def meta_text(facts: Mapping[str, Any]) -> str:
    """What meta.json holds for `facts`, sealed anew."""
    plain = {key: value for key, value in facts.items() if key != SEAL}
    return json.dumps(plain | {SEAL: _seal(plain)}, indent=1, sort_keys=True) + "\n"


def read_meta(text: str) -> dict[str, Any]:
    """The facts of a meta.json. Those of older versions have no seal.

    Raises ValueError when it is no JSON object, or not as it was written.
    """
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("not a JSON object")
    seal = found.pop(SEAL, None)
    if seal is not None and seal != _seal(found):
        raise ValueError("it was changed after it was written: its checksum differs")
    return found


def _seal(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
