"""How a fuzzer damages things: bytes, the values of a JSON or YAML text, names. All of it follows from `rng`."""

import copy
import random
from typing import Any

TEXTS = (
    "true",
    "nan",
    "-1",
    "1e400",
    "[]",
    "{}",
    "null",
    '"',
    "\x00",
    "\u0301",
    "..",
    "/etc/passwd",
    "9" * 40,
    "\udce9",
)
DEEP = "[" * 5000 + "]" * 5000
"""A JSON text nested deeper than Python reads."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**30, 1.5, -0.0, float("nan"), float("inf"), float("-inf"), "", [], {}, [[]],
    [None], {"": None}, {"a": {"a": {}}}, "a\nb", "\ud800", "\x1b[31m", "x" * 3000, *TEXTS,
)  # fmt: skip


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """The bytes cut, flipped, with a hole, or with something in them that does not belong there."""
    data, at = bytearray(raw), rng.randrange(max(1, len(raw)))
    match rng.randrange(5):
        case 0:
            del data[at:]
        case 1 | 2:
            for _ in range(rng.choice((1, 1, 4, 30))):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 3:
            del data[at : at + rng.randrange(1, 200)]
        case _:
            data[at:at] = rng.choice(TEXTS).encode("utf-8", "surrogateescape") or rng.randbytes(8)
    return bytes(data)


def warped(value: Any, rng: random.Random) -> Any:
    """A copy of plain values (of JSON or YAML) in which one or two are others, are gone or have another name."""
    whole = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2))):
        places = list(_places(whole))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[rng.choice(TEXTS)] = holder.pop(key)
            case _:
                holder[key] = copy.deepcopy(rng.choice(VALUES))
    return whole if rng.random() < 0.97 else copy.deepcopy(rng.choice(VALUES))


def _places(value: Any) -> Any:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(pairs):
        yield value, key
        yield from _places(inner)


def name(rng: random.Random) -> str:
    """Any characters that a file system takes."""
    text = "".join(
        chr(rng.choice((rng.randrange(1, 128), rng.randrange(128, 0xD800), 0x1F600)))
        for _ in range(rng.randrange(1, 12))
    )
    return text.replace("/", "").replace("\n", "") or "a"
