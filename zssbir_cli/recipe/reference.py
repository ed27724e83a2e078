"""The recipe reference, generated from the schema: every key with its type, default and meaning."""

import json
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from zssbir_cli.recipe.schema import DataConfig, MethodConfig, ModelConfig, OptimConfig, Recipe, TrainConfig


@dataclass(frozen=True)
class Key:
    """One key of a recipe."""

    path: str
    kind: str
    default: str
    meaning: str
    section: str


def sections() -> list[tuple[str, str, type[BaseModel]]]:
    """(heading, prefix of the keys, model) of each section."""
    methods = get_args(get_args(MethodConfig)[0])
    return [
        ("recipe", "", Recipe),
        *((f"method: {m.model_fields['name'].default}", "method.", m) for m in methods),
        ("data", "data.", DataConfig),
        ("model", "model.", ModelConfig),
        ("optim", "optim.", OptimConfig),
        ("train", "train.", TrainConfig),
    ]


def all_keys() -> list[Key]:
    """Every key of every section, in the schema's order."""
    return [key for heading, prefix, model in sections() for key in _keys(heading, prefix, model)]


def _keys(heading: str, prefix: str, model: type[BaseModel]) -> Iterator[Key]:
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            if prefix:  # a section within a method; the recipe's own sections have their own headings
                yield from _keys(heading, f"{prefix}{name}.", kind)
        elif prefix or name in ("name", "description"):
            meaning = info.description or "" if name != "name" or not prefix else "Which method this is."
            yield Key(prefix + name, type_name(kind, info), default_text(info), meaning, heading)


def default_text(info: FieldInfo) -> str:
    """The default as one would write it in YAML; `required` when there is none."""
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    return json.dumps(value) if value is None or isinstance(value, bool) or value == "" else str(value)


def type_name(kind: Any, info: FieldInfo | None = None) -> str:
    """A type as a reader of recipes would say it, with its limits."""
    text = _type_text(kind)
    limits = [
        f"{sign} {getattr(m, attr)}"
        for m in (info.metadata if info else ())
        for attr, sign in _LIMITS
        if hasattr(m, attr)
    ]
    return f"{text} ({', '.join(limits)})" if limits else text


_LIMITS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))


def _type_text(kind: Any) -> str:
    origin = get_origin(kind)
    if origin is Annotated:
        return type_name(*get_args(kind)[:2])
    if origin is Literal:
        return " / ".join(str(a) for a in get_args(kind))
    if origin in (Union, types.UnionType):
        return " / ".join("null" if a is type(None) else _type_text(a) for a in get_args(kind))
    if origin in (tuple, list):
        return f"list of {_type_text(get_args(kind)[0])}"
    if origin is dict:
        return "mapping"
    names = {str: "text", int: "whole number", float: "number", bool: "true / false"}
    return names.get(kind, str(kind))


def reference_markdown() -> str:
    """docs/recipes.md: one table per section."""
    out = [
        "# Recipe reference\n",
        "Generated from the schema with `zssbir recipes --keys --markdown`; do not edit by hand.\n",
        "A recipe is YAML with the keys below; `--set key=value` on the command line overrides any of them.\n",
    ]
    for heading, _, model in sections():
        out += [f"## {heading}\n", " ".join((model.__doc__ or "").split()) + "\n"]
        out += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for k in all_keys():
            if k.section == heading:
                out.append(f"| `{k.path}` | {_cell(k.kind)} | `{_cell(k.default)}` | {_cell(k.meaning)} |")
        out.append("")
    return "\n".join(out)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
