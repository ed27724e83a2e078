"""Options that had another name in 0.1: the old name works for one more version, with a note."""

from collections.abc import Sequence

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
