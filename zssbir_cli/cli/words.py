"""Help in words: no Python types, no `x>=1`, no brackets that mean something to parsers only."""

import re
from typing import Any

import typer.core

NUMBER = r"-?\d+(?:\.\d+)?"
BRACES = re.compile(r"^\{([^{}]+)\}|^\[\[([^\[\]]+)\]\]")
TYPE = re.compile(r" <[^<>]+>$")


def plainly(text: str) -> str:
    """The text of an option with ranges as one says them.

    >>> plainly("How many.  [default: 8; 1<=x<=200]"), plainly("[x>=0]"), plainly("no range")
    ('How many.  [default: 8; 1 to 200]', '[at least 0]', 'no range')
    """
    text = re.sub(rf"\b({NUMBER})<=x<=({NUMBER})", r"\1 to \2", text)
    text = re.sub(rf"\bx>=({NUMBER})", r"at least \1", text)
    return re.sub(rf"\bx<=({NUMBER})", r"at most \1", text)


class Command(typer.core.TyperCommand):
    """A command whose help a user can read."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """The usage line's parts: `DIR` where it must be given, `[RUN]...` where it may be."""
        return [
            BRACES.sub(lambda m: m[1] or f"[{m[2]}]", piece) for piece in super().collect_usage_pieces(ctx)
        ]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Arguments and options, without Python's words."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                part = "Arguments" if parameter.param_type_name == "argument" else "Options"
                parts[part].append((TYPE.sub("", record[0]), plainly(record[1])))
        for title, rows in parts.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


class Group(typer.core.TyperGroup):
    """A command with commands of its own, and the same kind of help."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, then the commands."""
        Command.format_options(self, ctx, formatter)  # type: ignore[arg-type]
        self.format_commands(ctx, formatter)
