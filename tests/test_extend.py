"""docs/add-a-backbone.md and docs/add-a-data-set.md, followed to the letter."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zssbir_cli.demo.pictures import Look, draw_pictures, draw_roles
from zssbir_cli.preparation.roles import Unseen

REPOSITORY = Path(__file__).parents[1]


def blocks(page: str, language: str) -> list[str]:
    text = (REPOSITORY / "docs" / page).read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def run(place: Path, *line: str) -> str:
    """Standard output of a Python process in `place`, which finds its own modules there, then this package."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(place), str(REPOSITORY))), "COLUMNS": "200"}
    done = subprocess.run([sys.executable, *line], cwd=place, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "pictures"
    draw_pictures(folder, draw_roles(0, Unseen(draw=4), 3), Look(size=48, photos=3, sketches=2))
    return folder


def test_a_network_of_ones_own_trains_and_searches(tmp_path: Path, tiny_demo: Path, pictures: Path) -> None:
    module, use = blocks("add-a-backbone.md", "python")
    assert module.startswith("# slim.py\n")
    (tmp_path / "slim.py").write_text(module)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/pictures").symlink_to(tiny_demo)
    value = float(
        run(tmp_path, "-c", use.replace('steps_per_epoch": 10', 'steps_per_epoch": 2, "data.workers": 0'))
    )
    assert 0 < value < 1
    (tmp_path / "photos").symlink_to(pictures / "photo")
    shutil.copy(next((pictures / "sketch").rglob("*.png")), tmp_path / "drawing.png")
    line = blocks("add-a-backbone.md", "sh")[-1]
    inner = re.fullmatch(r'python -c "(.*)" (search .*)\n', line)
    assert inner is not None
    found = json.loads(run(tmp_path, "-c", inner[1], *inner[2].split(), "--json"))
    assert len(found["sketches"][0]["results"]) == 20


def test_a_table_of_files_becomes_a_data_set(tmp_path: Path, pictures: Path) -> None:
    with (tmp_path / "files.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "kind", "class"))
        for path in sorted(p for p in pictures.rglob("*") if p.is_file() and "mask" not in p.parts):
            rows.writerow((path, path.parts[-3], path.parts[-2]))
    classes = sorted(p.name for p in (pictures / "sketch").iterdir())
    (tmp_path / "unseen.txt").write_text("\n".join(classes[:3]))
    (script,) = blocks("add-a-data-set.md", "python")
    (tmp_path / "to_folders.py").write_text(script)
    first, *lines = blocks("add-a-data-set.md", "sh")[0].splitlines()
    run(tmp_path, *first.split()[1:])
    for line in lines:
        said = run(tmp_path, "-m", "zssbir_cli", *line.split()[1:])
    assert [name for name in classes if re.search(rf"{name}\s+unseen", said)] == classes[:3]


def test_a_split_of_ones_own_is_listed(tmp_path: Path) -> None:
    shutil.copytree(
        REPOSITORY / "zssbir_cli",
        tmp_path / "zssbir_cli",
        ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
    )
    shutil.copytree(REPOSITORY / "recipes", tmp_path / "recipes")
    table = tmp_path / "zssbir_cli/benchmarks/splits.yaml"
    (entry,) = blocks("add-a-data-set.md", "yaml")
    table.write_text(table.read_text("utf-8").replace("  splits:\n", f"  splits:\n{entry}", 1), "utf-8")
    assert re.search(r"sketchy-mine +121 +4 ", run(tmp_path, "-m", "zssbir_cli", "prepare", "--list"))
