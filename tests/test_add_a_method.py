"""docs/add-a-method.md, followed to the letter in a copy of the package."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def test_the_documented_method_trains(tmp_path: Path, tiny_demo: Path) -> None:
    guide = (REPOSITORY / "docs" / "add-a-method.md").read_text("utf-8")
    for folder in ("zssbir_cli", "recipes"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    blocks = re.findall(r"```(?:python|yaml)\n(.*?)```", guide, re.DOTALL)
    for block in blocks:
        if found := re.match(r"# (\S+/\S+)\n", block):
            file = tmp_path / found[1]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block, "utf-8")
    (tmp_path / "zssbir_cli/methods/mine/__init__.py").touch()
    entry, union = (block for block in blocks if not block.startswith("# "))
    table, schema = tmp_path / "zssbir_cli/methods/table.py", tmp_path / "zssbir_cli/recipe/schema.py"
    table.write_text(table.read_text("utf-8").replace("METHODS = {\n", "METHODS = {\n" + entry), "utf-8")
    text = re.sub(r"^MethodConfig = .*\n", union, schema.read_text("utf-8"), flags=re.MULTILINE)
    known = "from zssbir_cli.methods.triplet.config"
    text = text.replace(known, f"from zssbir_cli.methods.mine.config import MineConfig\n{known}")
    schema.write_text(text, "utf-8")

    settings = {"data.root": tiny_demo, "data.size": 32, "data.workers": 0, "train.epochs": 1}
    settings |= {"train.steps_per_epoch": 2, "train.batch_size": 6}
    command = [
        sys.executable,
        "-m",
        "zssbir_cli",
        "train",
        "--recipe",
        "recipes/mine.yaml",
        "--device",
        "cpu",
    ]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = (tmp_path / "runs" / "latest" / "metrics.jsonl").read_text("utf-8").splitlines()
    assert any("loss/match" in json.loads(line) for line in metrics)
