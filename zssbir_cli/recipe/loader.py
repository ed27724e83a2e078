"""Reading recipes: YAML with line numbers in every error, `--set` overrides, and where recipes are found."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from zssbir_cli.errors import UsageError
from zssbir_cli.files import reason
from zssbir_cli.names import did_you_mean, nearest, readable
from zssbir_cli.recipe.explain import explain
from zssbir_cli.recipe.schema import Recipe

SHIPPED = next(
    p
    for p in (Path(__file__).parents[1] / "shipped_recipes", Path(__file__).parents[2] / "recipes")
    if p.is_dir()
)
"""The recipes of the package: inside the wheel, or at the top of a source checkout."""

Lines = dict[tuple[str, ...], int]


class _Loader(yaml.SafeLoader):
    """PyYAML reads `1e-4` as a string, `no` and `on` as booleans, `010` as 8 and `1:30` as 90, and the last of two equal
    keys; this one does not."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, regexp)
        for tag, regexp in resolvers
        if not tag.endswith((":bool", ":int", ":float", ":timestamp"))
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][\d_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.inf|\.nan)$"
    ),
    list("-+.0123456789"),
)


def find_recipe(name: str) -> Path:
    """A recipe by path or name: the working folder, then ./recipes, then the shipped ones; `.yaml` may be left
    out. Raises UsageError with the nearest names."""
    names = [name] if name.endswith((".yaml", ".yml")) else [name, f"{name}.yaml"]
    for folder in (Path(), Path("recipes"), SHIPPED):
        for candidate in (folder / n for n in names):
            if candidate.is_file():
                return candidate
    raise UsageError(
        f"recipe {readable(name)!r}: no such file here, in ./recipes or among the shipped ones{_nearest(name)}"
    )


def _nearest(name: str) -> str:
    """Recipes whose names are near: of the folder that was named, the working folder, ./recipes and the shipped ones."""
    folders = (Path(name).parent, Path(), Path("recipes"), SHIPPED)
    paths = [p for folder in folders if folder.is_dir() for p in sorted(folder.glob("*.y*ml")) if p.is_file()]
    stems = {p.stem: p for p in reversed(paths)}
    close = [stems[stem] for stem in nearest(Path(name).stem, stems, 2)]
    here = (readable(p.name if p.parent == SHIPPED else str(p)) for p in close)
    return did_you_mean(here) or "; `zssbir recipes` lists those"


def shipped_recipes() -> list[Path]:
    """Paths of the recipes that come with the package, by name."""
    return sorted(SHIPPED.glob("*.yaml"))


def load_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read and check a recipe; `overrides` are `section.key=value` texts (value in YAML).

    Raises UsageError that names file, line, key and what is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise UsageError(f"{path}: cannot be read as a recipe ({error})") from error
    return parse_recipe(text, str(path), overrides)


def parse_recipe(text: str, source: str, overrides: Iterable[str] = ()) -> Recipe:
    """As `load_recipe`, from text; `source` is named in errors."""
    content, lines = _parse_yaml(text, source)
    for override in overrides:
        _apply(content, lines, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise UsageError(explain(error, content, lines, source)) from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe, fully resolved, as YAML that `load_recipe` reads back unchanged."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _parse_yaml(text: str, source: str) -> tuple[dict[str, Any], Lines]:
    lines: Lines = {}
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            _walk(node, (), lines, source)
            content = loader.construct_document(node) if node is not None else None
        finally:
            loader.dispose()
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        raise UsageError(
            f"{where}: not valid YAML: {getattr(error, 'problem', None) or reason(error)}"
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{source}: a recipe is a mapping with the keys {', '.join(Recipe.model_fields)}")
    return content, lines


def _walk(node: yaml.Node | None, path: tuple[str, ...], lines: Lines, source: str) -> None:
    """Note the line of each key; refuse duplicates, anchors into themselves and merge keys."""
    if len(path) > 8:
        raise UsageError(f"{source}: nested too deeply at {'.'.join(path)}")
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(getattr(key, "value", "?")), key.start_mark.line + 1
        if name in seen:
            raise UsageError(f"{source}:{line}: the key {name!r} appears twice (first on line {seen[name]})")
        seen[name] = lines[(*path, name)] = line
        _walk(value, (*path, name), lines, source)


def _apply(content: dict[str, Any], lines: Lines, override: str) -> None:
    path, value = read_change(override)
    section = content
    for part in path[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UsageError(f"--set {override!r}: {part!r} is not a section of the recipe")
    section[path[-1]] = value
    lines[path] = 0


def read_change(override: str) -> tuple[tuple[str, ...], Any]:
    """The parts of the key of `section.key=value`, and the value. Errors: UsageError."""
    key, equals, value = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UsageError(f"--set {override!r}: write section.key=value, e.g. --set optim.lr=1e-4")
    try:
        return path, yaml.load(value, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if readable(value) != value:
            raise UsageError(
                f"--set {readable(override)}: a recipe is UTF-8 text and cannot hold this name; rename the file or give a link"
            ) from error
        raise UsageError(f"--set {override!r}: the value is not valid YAML") from error
