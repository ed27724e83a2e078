"""`zssbir info`."""

from pathlib import Path

import typer

from zssbir_cli.cli import complete, options
from zssbir_cli.cli.options import flag, option

INTERNAL = ("plan", "ground")
"""Options of a set that nobody gives: what the bytes were made by."""


def info(
    root: Path = typer.Argument(
        metavar="DIR", autocompletion=complete.data_sets, help="Folder of a prepared data set."
    ),
    as_json: options.Json = False,
    sheet: Path | None = option(
        None, "FILE.png", "Also draw a contact sheet: a row of images per class.", callback=options.writable
    ),
    classes: bool = flag("Also list every class with its counts.", "--list-classes"),
) -> None:
    """Show what a prepared data set contains.

    Example: zssbir info data/sketchy --list-classes
    """
    import json

    from zssbir_cli.cli.console import note, table
    from zssbir_cli.workflows.info import contact_sheet, describe

    found = describe(root)
    if sheet is not None:
        note(f"contact sheet: {contact_sheet(root, sheet)}")
    if as_json:
        print(json.dumps(found, indent=1))
        return
    columns = ("part", "role", "classes", "sketches", "photos", "megabytes")
    title = f"{found['name']} ({found['split']}), identity {found['identity']}"
    table(columns, [tuple(row[c] for c in columns) for row in found["parts"]], title)
    show_published(found["published"], found["differing_classes"])
    if classes:
        table(("id", "class", "role", "sketches", "photos"), [tuple(c.values()) for c in found["classes"]])
    given = {k: v for k, v in found["options"].items() if v not in (None, False) and k not in INTERNAL}
    print("options: " + ", ".join(f"{k} {v}" for k, v in given.items()))
    for source in found["sources"]:
        print(
            f"from {source['kind']} {source['name']}: {source['files']:,} files, sha256 {str(source['sha256'])[:16]}"
        )
    print(f"{found['skipped']:,} images left out, {len(found['leaks']):,} leaks recorded")
    for line in found["warnings"]:
        print(f"warning: {line}")


def show_published(rows: list[dict[str, str | int | bool | None]], differing: list[str]) -> None:
    """Our counts beside the published ones."""
    from zssbir_cli.cli.console import table

    if not rows:
        return
    shown = []
    for row in rows:
        theirs, ours = row["published"], row["ours"]
        about = "" if row["exact"] else "about "
        text = "-" if theirs is None else f"{about}{theirs:,}"
        verdict = "" if theirs is None or not row["exact"] else "equal" if ours == theirs else "differs"
        shown.append((row["what"], ours, text, verdict))
    table(("count", "here", "published", ""), shown)
    for line in differing[:10]:
        print(f"differs: {line}")
    if len(differing) > 10:
        print(f"... and {len(differing) - 10} more classes")
