"""README and docs: every command that they name exists, every link leads somewhere, and the quick start works."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from zssbir_cli.cli.app import app
from zssbir_cli.demo.pictures import Look, draw_pictures, draw_roles
from zssbir_cli.preparation.roles import Unseen

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
START = re.compile(
    r"^(?:\$ )?(?:[A-Z_]+=\S+ )*(?:torchrun [^|]*-m zssbir_cli|python -m zssbir_cli|zssbir) (.*)$"
)
COMMAND: Any = typer.main.get_command(app)


def commands(page: Path) -> Iterator[str]:
    """What follows `zssbir` in the code blocks and code spans of a page, comments cut off."""
    text = page.read_text("utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.S | re.M)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    for line in [line for block in blocks for line in block.splitlines()] + spans:
        for part in re.split(r"&&|\|(?= )", line.partition("  #")[0]):
            if found := START.match(part.strip()):
                yield found[1].strip()


def parser_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words behind its name."""
    command, rest = COMMAND, list(words)
    while rest and rest[0] in getattr(command, "commands", {}):
        command, rest = command.commands[rest[0]], rest[1:]
    return command, rest


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_and_their_options_exist(page: Path) -> None:
    for line in commands(page):
        words = shlex.split(line.replace("...", ""), comments=True)
        if not words or words[0].isupper() or words[0].startswith("-"):
            continue
        command, rest = parser_of(words)
        assert command is not COMMAND, f"{page.name}: no command `zssbir {line}`"
        known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {
            "--help",
            "-h",
            "--debug",
        }
        for word in rest:
            flag = word.partition("=")[0]
            is_flag = re.fullmatch(r"--?[a-zA-Z][\w-]*", flag) is not None
            assert not is_flag or flag in known, f"{page.name}: `zssbir {line}` has no {flag}"


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        assert place.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(place), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+)", page.read_text("utf-8"))
        todo += [(page.parent / link).resolve() for link in links if not re.match(r"[a-z]+:", link)]
    assert not {p.name for p in PAGES} - {p.name for p in seen}


def test_equations_lead_to_code_and_keys_that_exist() -> None:
    text = (ROOT / "docs/methods.md").read_text("utf-8")
    found = re.findall(r"\| ((?:`\w+`(?:, )?)+) in `([\w/.]+)` \|", text)
    assert len(found) >= 13
    for names, file in found:
        defined = {
            node.name
            for node in ast.walk(ast.parse((ROOT / "zssbir_cli" / file).read_text("utf-8")))
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }
        assert set(re.findall(r"\w+", names)) <= defined, file
    reference = (ROOT / "docs/recipes.md").read_text("utf-8").split("\n## ")
    for section in text.split("\n## ")[1:]:
        name = section.split()[0].lower()
        (known,) = [part for part in reference if part.startswith(f"method: {name}")]
        for key in re.findall(r"`(method\.\w+)`", section):
            assert re.search(rf"^\| `{key}[.`]", known, re.M), f"{name}: {key}"


SMALLER = {
    "train": "--set model.weights=none --set train.epochs=1 --set train.steps_per_epoch=2 --set data.workers=0",
}
"""What is added to commands of the quick start so that they run without a network, in seconds."""


@pytest.mark.nightly
def test_the_quick_start_works_as_typed(tmp_path: Path) -> None:
    look, pictures = Look(size=96, photos=6, sketches=4), tmp_path / "PICTURES"
    draw_pictures(pictures, draw_roles(0, Unseen(draw=13), 5), look)
    some = next((pictures / "sketch/cup").iterdir())
    (tmp_path / "drawing.png").write_bytes(some.read_bytes())
    (tmp_path / "FOLDER_OF_PHOTOS").symlink_to(pictures / "photo")
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    for line in commands(ROOT / "docs/quick-start.md"):
        words = shlex.split(line, comments=True)
        if not words or words[0] in ("demo", "draw"):  # long; waits for visitors
            continue
        words += shlex.split(SMALLER.get(words[0], "") if "--resume" not in words else "")
        done = subprocess.run(
            [sys.executable, "-m", "zssbir_cli", *words],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"zssbir {line}: {done.stderr[-800:]}"
    assert (tmp_path / "results.html").is_file()


def test_each_row_of_the_fault_tables_has_tests_that_exist() -> None:
    tests = Path(__file__).parent
    rows = [
        r for r in (ROOT / "docs" / "reliability.md").read_text("utf-8").splitlines() if r.startswith("| ")
    ]
    faults = [r for r in rows if not r.startswith("| fault |") and r.count("|") == 4]
    assert len(faults) > 40
    for row in faults:
        shown = row.rsplit("|", 2)[1]
        assert "test_" in shown or "the same test" in shown, row
        file = ""
        for found, name in re.findall(r"`(test_\w+\.py)?(?:::(\w+))?`", shown):
            file = found or file
            text = (tests / file).read_text("utf-8")
            assert not name or f"def {name}(" in text, f"{file}::{name}"
