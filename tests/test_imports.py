"""Import directions: what may know what (docs/architecture.md)."""

import ast
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


def outside(*folders: str) -> list[Path]:
    return [f for f in FILES if f not in inside(*folders)]


def show(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


RULES = [
    ("nobody but the entry point imports cli", outside("cli"), ("zssbir_cli.cli",), {"__main__.py"}),
    ("only cli imports typer and rich", outside("cli"), ("typer", "rich"), set()),
    ("only data imports h5py", outside("data"), ("h5py",), set()),
    ("engine knows no method", inside("engine"), tuple(f"zssbir_cli.methods.{m}" for m in ("puxim", "ama", "triplet", "table")), set()),
    ("engine knows no data format", inside("engine"), ("zssbir_cli.data", "zssbir_cli.workflows"), set()),
    ("data knows no methods", inside("data"), ("zssbir_cli.methods", "zssbir_cli.engine", "zssbir_cli.workflows"), set()),
    ("recipe imports no torch", inside("recipe"), ("torch", "timm", "numpy", "h5py", "zssbir_cli.data", "zssbir_cli.models"), set()),
    ("retrieval: tensors in, numbers out", inside("retrieval"), ("timm", "PIL", "matplotlib", "zssbir_cli.data", "zssbir_cli.methods", "zssbir_cli.engine", "zssbir_cli.models"), set()),
    ("viz draws, no more", inside("viz"), ("timm", "h5py", "zssbir_cli.data", "zssbir_cli.methods", "zssbir_cli.engine", "zssbir_cli.models"), set()),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "files", "forbidden", "except_"), RULES, ids=[r[0] for r in RULES])
def test_direction(rule: str, files: list[Path], forbidden: tuple[str, ...], except_: set[str]) -> None:
    assert files, rule
    broken = {show(f): uses(f, *forbidden) for f in files if show(f) not in except_ and uses(f, *forbidden)}
    assert not broken, f"{rule}: {broken}"


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
