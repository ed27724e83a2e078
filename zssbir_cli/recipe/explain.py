"""What is wrong with a recipe, in words of the recipe: pydantic's errors as one line that names place and remedy."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import ValidationError

from zssbir_cli.names import did_you_mean, nearest, suggestion
from zssbir_cli.recipe.reference import all_keys
from zssbir_cli.recipe.schema import MethodConfig

Lines = Mapping[tuple[str, ...], int]
MOST = 3
"""So many problems are told; of the others there is a count."""
METHODS = tuple(str(m.model_fields["name"].default) for m in get_args(get_args(MethodConfig)[0]))


def explain(error: ValidationError, content: Mapping[str, Any], lines: Lines, source: str) -> str:
    """One line: where each problem is (a line of `source`, or `--set`) and what to write instead."""
    found = _foreign_method(error, content, lines, source)
    problems = [] if found else error.errors(include_url=False)
    told = dict.fromkeys([found] if found else [])
    for problem in sorted(
        problems, key=lambda p: (p["type"] == "missing", _line(_path(p["loc"]), lines) or 0)
    ):
        path = _path(problem["loc"])
        place = ("method", "name") if problem["type"] == "union_tag_invalid" else path
        told.setdefault(f"{_where(place, lines, source)}: {_message(problem, path)}", None)
    first, *others = told
    more = "".join(f"; {text.removeprefix(f'{source}: ')}" for text in others[: MOST - 1])
    rest = f"; and {len(others) - MOST + 1} more" if len(others) >= MOST else ""
    return f"{first}{more}{rest}; `zssbir recipes --keys` lists all keys"


def _path(loc: Sequence[int | str]) -> tuple[str, ...]:
    """The keys that lead to a problem, without what pydantic adds: the method's name, branches of a union."""
    path = tuple(str(p) for p in loc)
    if path[:1] == ("method",) and path[1:2] and path[1] in METHODS:
        path = (path[0], *path[2:])
    if path[:2] == ("model", "options"):
        return path[:3]
    keys = {k.path for k in all_keys()}
    known = next((path[:n] for n in range(len(path), 1, -1) if ".".join(path[:n]) in keys), None)
    return known or path


def _line(path: tuple[str, ...], lines: Lines) -> int | None:
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), None)


def _where(path: tuple[str, ...], lines: Lines, source: str) -> str:
    line = _line(path, lines)
    return "--set" if line == 0 else f"{source}:{line}" if line else source


def _message(problem: Mapping[str, Any], path: tuple[str, ...]) -> str:
    key, kind, given = ".".join(path), str(problem["type"]), problem.get("input")
    if kind == "extra_forbidden":
        return f"unknown key {key!r}{_near_key(path)}"
    if path == ("method",) and kind == "value_error":  # keys that do not go together
        return f"method: {str(problem['msg']).partition(', ')[2]}"
    if path == ("method",) and kind != "missing":
        return _method(given)
    if kind == "missing" and isinstance(problem["loc"][-1], str):
        return f"the key {key!r} is missing"
    if kind in ("value_error", "assertion_error"):
        return f"{key} = {_shown(given)}: {str(problem['msg']).partition(', ')[2]}"
    return f"{key} = {_shown(given)}: expected {_expected(path)}{_near_value(path, given)}"


def _shown(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _method(given: Any) -> str:
    """What is wrong with the whole section `method`."""
    known = ", ".join(METHODS)
    name = given.get("name") if isinstance(given, Mapping) else given
    close = nearest(str(name), METHODS, cutoff=0.4)
    if isinstance(given, Mapping) and name is not None:
        return (
            f"method.name = {_shown(name)}: no such method; there are {known}{did_you_mean(map(repr, close))}"
        )
    if isinstance(given, str):
        return f"method = {_shown(given)}: write method: {{name: {close[0] if close else METHODS[0]}}} (there are {known})"
    if isinstance(given, Mapping):
        return f"method has no name: add name: {METHODS[0]} (there are {known})"
    return f"method = {_shown(given)}: write method: {{name: NAME}} with one of {known}"


def _expected(path: tuple[str, ...]) -> str:
    """What a key takes, as the reference says it."""
    if path[:2] == ("model", "options"):
        return "a mapping of options" if len(path) == 2 else "a number, a text, true or false"
    below = next((k.path for k in all_keys() if k.path.startswith(".".join(path) + ".")), "")
    if below:
        return f"a section of keys, such as {path[-1]}: {{{below.split('.')[len(path)]}: ...}}"
    key = next((k for k in all_keys() if k.path == ".".join(path)), None)
    if key is None:
        return "another value"
    return key.kind if key.kind != "text" else f"text ({key.meaning.partition('. ')[0].rstrip('.')})"


def _near_value(path: tuple[str, ...], given: Any) -> str:
    """A suggestion where a key takes one of several words."""
    kinds = [k.kind for k in all_keys() if k.path == ".".join(path)]
    words = [w for kind in kinds if " / " in kind for w in kind.split(" / ")]
    if isinstance(given, str) and given in words:
        return "; write it without quotes"
    return suggestion(given, words, 0.5) if isinstance(given, str) else ""


def _near_key(path: tuple[str, ...]) -> str:
    known = [k.path for k in all_keys() if k.path != ".".join(path)]  # it may be a key of another method
    beside = {".".join(k.split(".")[: len(path)]) for k in known if k.count(".") >= len(path) - 1}
    name = ".".join(path)
    elsewhere = [k for k in known if k.rpartition(".")[2] == path[-1]]
    close = nearest(name, sorted(beside), cutoff=0.5) or elsewhere[:1] or nearest(name, known, cutoff=0.5)
    return did_you_mean(map(repr, close))


def _foreign_method(
    error: ValidationError, content: Mapping[str, Any], lines: Lines, source: str
) -> str | None:
    """What to say when the name of the method was changed in a recipe of another one: one sentence instead of a
    complaint about each of its keys."""
    method = content.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    foreign = (_path(e["loc"]) for e in error.errors() if e["type"] == "extra_forbidden")
    unknown = [p for p in foreign if p[:1] == ("method",) and len(p) == 2]
    keys = all_keys()
    owners = [
        other
        for other in METHODS
        if other != name
        and unknown
        and all(
            any(k.path.startswith(".".join(p)) and k.section.endswith(other) for k in keys) for p in unknown
        )
    ]
    if name not in METHODS or not owners or len(unknown) < min(2, len(error.errors())):
        return None
    shown = ", ".join(p[1] for p in unknown[:MOST]) + (
        f" and {len(unknown) - MOST} more" if len(unknown) > MOST else ""
    )
    where = _where(("method", "name"), lines, source)
    return (
        f"{where}: method.name = {name!r}, but {shown} are keys of {owners[0]}: take a recipe of {name} "
        f"(`zssbir recipes` lists them), or leave these keys out"
    )
