"""The words of the command line: help without Python's, a wrong command line as one line with the nearest right word,
and options by the names that they had in 0.1."""

import re
from collections.abc import Sequence
from typing import Any

import typer
import typer.core

from zssbir_cli.errors import UsageError, ZssbirError
from zssbir_cli.names import did_you_mean, suggestion


def explain(error: Exception) -> ZssbirError | None:
    """The UsageError for what the parser of the command line refuses; None for anything else.

    Typer brings its own copy of Click or uses the installed one, so the classes are told by name.
    """
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "ClickException" not in kinds:
        return UsageError("stopped") if isinstance(error, typer.Abort) else None
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "zssbir"
    return UsageError(f"{_what(error, context)}; see `{path} --help`")


def _what(error: Exception, context: typer.Context | None) -> str:
    option = getattr(error, "option_name", None)
    if option and type(error).__name__ == "NoSuchOption" and context is not None:
        known = [o for p in context.command.params for o in p.opts if o.startswith("--")]
        return f"there is no option {option}{_meant(option, known)}"
    text = str(getattr(error, "format_message", lambda: str(error))()).strip().rstrip(".")
    if text.startswith("No such command") and context is not None:
        names = list(getattr(context.command, "commands", {}))
        wrong = text.split("'")[1] if "'" in text else ""
        return f"there is no command {wrong!r}{_meant(wrong, names)}"
    text = text[:1].lower() + text[1:]
    return f"{text.partition(': ')[0]}: {wrong}" if (wrong := _wrong_value(error)) else text


def _wrong_value(error: Exception) -> str:
    """The value that Typer's copy of pydantic refuses, and what it should be; empty for any other error."""
    for found in getattr(error.__cause__, "errors", list)()[:1]:
        limits = found.get("ctx", {})
        should = [f"{word} {limits[key]}" for key, word in LIMITS.items() if key in limits]
        named = KINDS.get(found["type"], found["msg"].removeprefix("Input should be "))
        return f"{found['input']!r} is not {' '.join(should) or named}"
    return ""


LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
KINDS = {"int_parsing": "a whole number", "float_parsing": "a number"}


def _meant(word: str, known: list[str]) -> str:
    """`; did you mean ...?` for a misspelt word or a beginning of one; empty when nothing is near."""
    begins = [k for k in known if len(word.strip("-")) >= 2 and k.startswith(word)]
    return did_you_mean(begins[:2]) or suggestion(word, known)


OLD: dict[tuple[str, str], str] = {
    ("search", "--gallery"): "--photos",
    ("search", "-g"): "--photos",
    ("draw", "--gallery"): "--photos",
    ("embed", "--images"): "--photos",
    ("mask-viz", "--images"): "--photos",
    ("demo", "--photos"): "--per-class",
    ("prepare", "--subset"): "--per-class",
    ("info", "--classes"): "--list-classes",
}
"""(command, old option) -> new option."""


def modern(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The command line in today's names, and a note for each old name in it.

    >>> modern(["search", "a.png", "--gallery=pics"])
    (['search', 'a.png', '--photos=pics'], ['--gallery is now --photos; the old name goes away in 0.3'])
    """
    command = next((word for word in argv if not word.startswith("-")), "")
    line, notes, options = [], [], True
    for word in argv:
        options &= word != "--"
        name, equals, value = word.partition("=")
        new = OLD.get((command, name)) if options else None
        if new is None:
            line.append(word)
            continue
        line.append(new + equals + value)
        notes.append(f"{name} is now {new}; the old name goes away in 0.3")
    return line, notes


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


def _check_once(command: Any, context: typer.Context, words: Sequence[str]) -> None:
    """Refuse an option that takes one value and is given several, of which the parser would keep the last. Errors:
    UsageError."""
    if context.resilient_parsing:  # the shell completes a line
        return
    _, _, order = command.make_parser(context).parse_args(args=list(words))
    for parameter in {p.name: p for p in order if order.count(p) > 1}.values():
        if not (parameter.multiple or parameter.nargs != 1 or parameter.is_flag):
            name = max(parameter.opts, key=len)
            raise UsageError(f"{name} is given more than once and takes one value; leave one of them out")


class Command(typer.core.TyperCommand):
    """A command whose help a user can read."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words after the options. Errors: UsageError for an option that is given twice."""
        _check_once(self, ctx, args)
        return super().parse_args(ctx, args)

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

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As for `Command`."""
        _check_once(self, ctx, args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The options, then the commands."""
        Command.format_options(self, ctx, formatter)  # type: ignore[arg-type]
        self.format_commands(ctx, formatter)
