"""Import directions: what may know what (docs/architecture.md)."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "zssbir_cli"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Modules that a file imports, those under `if TYPE_CHECKING:` left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            if top_level and isinstance(child, ast.FunctionDef):
                continue
            if isinstance(child, ast.Import):
                found.update(a.name for a in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                found.add(child.module)
                found.update(f"{child.module}.{a.name}" for a in child.names)
            visit(child)

    visit(ast.parse(path.read_text("utf-8")))
    return found


def uses(path: Path, *modules: str, top_level: bool = False) -> list[str]:
    names = imports(path, top_level=top_level)
    return [n for n in names if any(n == m or n.startswith(m + ".") for m in modules)]


def inside(*folders: str) -> list[Path]:
    return [f for f in FILES if any((PACKAGE / d) in f.parents for d in folders)]


def show(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


ROOMS = (
    "cli", "workflows", "web", "evaluation", "embedding", "engine", "methods", "inputs", "benchmarks", "demo",
    "preparation", "models", "compute", "data", "retrieval", "viz", "recipe", "config", "section", "files", "names", "progress", "arrays", "types", "errors",
)  # fmt: skip
"""A room may import those after it, never one before it: so there are no circles. `config` stands for
`methods/*/config.py` (the recipe's part of a method), the last seven for files at the top."""

FORBIDDEN = {
    "engine": ("zssbir_cli.methods.puxim", "zssbir_cli.methods.ama", "zssbir_cli.methods.triplet",
               "zssbir_cli.methods.table", "zssbir_cli.data", "zssbir_cli.inputs"),
    "recipe": ("torch", "timm", "numpy", "h5py"),
    "retrieval": ("timm", "PIL", "matplotlib", "h5py", "zssbir_cli.viz"),
    "viz": ("torch", "timm", "h5py"),
}  # fmt: skip
"""What a room must not import besides. Engine: no concrete method and no data format."""

ONLY = {"typer": "cli", "rich": "cli", "h5py": "data", "lancedb": "data"}
"""Packages that one room alone imports."""

LARGEST_SHARE = 0.15
LONGEST_FILE = 350
LONGEST_FUNCTION = 80


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a module by its path below the package."""
    return "config" if parts[0] == "methods" and parts[2:3] == ("config",) else parts[0]


def package_imports(path: Path) -> set[str]:
    """Rooms that a file imports."""
    found = {n.removeprefix("zssbir_cli.") for n in imports(path) if n.startswith("zssbir_cli.")}
    return {room_of(tuple(n.split("."))) for n in found} & set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=show)
def test_directions(file: Path) -> None:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    if parts[0].startswith("__"):
        return
    room = room_of(parts)
    assert room in ROOMS, f"{show(file)} is in no room of the table"
    above = ROOMS[: ROOMS.index(room)]
    assert not package_imports(file) & set(above), f"{show(file)} imports from above"
    assert not uses(file, *FORBIDDEN.get(room, ())), show(file)
    assert not uses(file, *(name for name, owner in ONLY.items() if owner != room)), show(file)


def test_no_room_outgrows_the_house() -> None:
    lines = {f: len(f.read_text("utf-8").splitlines()) for f in FILES}
    rooms: dict[str, int] = {}
    for file, count in lines.items():
        room = file.relative_to(PACKAGE).parts[0]
        rooms[room] = rooms.get(room, 0) + count
    assert max(rooms.values()) <= LARGEST_SHARE * sum(rooms.values()), rooms
    assert not {show(f): n for f, n in lines.items() if n > LONGEST_FILE}


def test_functions_are_short() -> None:
    long = {
        f"{show(f)}:{node.name}": node.end_lineno - node.lineno + 1
        for f in FILES
        for node in ast.walk(ast.parse(f.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert not long


def test_method_configs_import_no_torch() -> None:
    configs = [*PACKAGE.glob("methods/*/config.py"), PACKAGE / "methods/table.py", PACKAGE / "types.py"]
    assert len(configs) >= 5
    assert not {show(f): uses(f, "torch", "timm") for f in configs if uses(f, "torch", "timm")}


def test_commands_import_heavy_packages_only_in_their_bodies() -> None:
    heavy = (
        "torch",
        "timm",
        "numpy",
        "h5py",
        "rich",
        "matplotlib",
        "PIL",
        "pydantic",
        "zssbir_cli.workflows",
    )
    files = inside("cli")
    assert not {show(f): uses(f, *heavy, top_level=True) for f in files if uses(f, *heavy, top_level=True)}


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; sys.argv=['zssbir','--help']\n"
        "from zssbir_cli.__main__ import main\n"
        "try: main()\nexcept SystemExit as e: assert e.code in (0, None), e.code\n"
        "bad=[m for m in ('torch','timm','numpy','h5py','matplotlib','pydantic') if m in sys.modules]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


SAME_NAME = {"build"}
"""Each method's folder has a `build` for the method and one for its data (see methods/table.py)."""


def test_no_two_things_have_one_name() -> None:
    """Public classes and functions; a command is called after what its workflow does, so `cli` is left out."""
    places: dict[str, list[str]] = {}
    for file in FILES:
        if PACKAGE / "cli" not in file.parents:
            for node in ast.parse(file.read_text("utf-8")).body:
                if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                    places.setdefault(node.name, []).append(show(file))
    assert not {name: at for name, at in places.items() if len(at) > 1 and name not in SAME_NAME}
    assert {p.split("/")[0] for p in places["build"]} == {"methods"}


def test_no_private_names_of_libraries() -> None:
    private = re.compile(r"\b(torch|nn|F|functional|timm|h5py|np|cv2|open_clip|PIL|mpl)(\.\w+)*\._[a-z]\w*")
    found = {show(f): m.group() for f in FILES if (m := private.search(f.read_text("utf-8")))}
    assert not found


def test_commands_that_may_find_all_embedded_import_no_timm_before_they_know() -> None:
    code = (
        "import sys\nfrom zssbir_cli.workflows import embed, eval, search\n"
        "bad = [m for m in ('timm', 'torchvision', 'open_clip') if m in sys.modules]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_preparing_pictures_imports_no_torch() -> None:
    """Its import would take longer than preparing a small set."""
    code = "import sys\nfrom zssbir_cli.workflows import info, prepare\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
