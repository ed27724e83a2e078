"""For the tests of embed, eval and search: a run with random weights, as `zssbir train` leaves it; folders of photos."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zssbir_cli.data.embeddings import EmbeddingInfo, write_embeddings
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.embedding.folder import FolderResult
from zssbir_cli.engine import checkpoint
from zssbir_cli.methods.table import build_method
from zssbir_cli.recipe.loader import load_recipe
from zssbir_cli.workflows.embed import embed


def make_run(folder: Path, recipe_file: Path, seed: int = 0) -> Path:
    """Write recipe.yaml, run.json and the checkpoints `best` and `last` of an untrained method."""
    recipe = load_recipe(recipe_file)
    torch.manual_seed(seed)
    method = build_method(recipe)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(recipe_file.read_text())
    (folder / "run.json").write_text("{}")
    prepared = PreparedSet.open(recipe.data.root)
    facts = {
        "step": 10, "epoch": 2, "recipe": recipe.model_dump(mode="json"), "metrics": {}, "precision": "fp32",
        "data": {"name": prepared.manifest.name, "identity": prepared.identity},
    }  # fmt: skip
    for name in ("best", "last"):
        checkpoint.save(folder / "checkpoints" / name, method.retrieval_state(), None, facts)
    return folder


def write_rows(path: Path, rows: np.ndarray, **options: object) -> Path:
    """An embeddings file of two classes."""
    n = len(rows)
    info = EmbeddingInfo(checkpoint="ab", classes=("a", "é b"), size=32)
    return write_embeddings(
        path, rows, np.arange(n) % 2, np.arange(n) % 2, [f"p/{i}.jpg" for i in range(n)], info, **options
    )  # type: ignore[arg-type]


def photos(folder: Path, count: int = 5, seed: int = 0) -> Path:
    """Photos of noise, in two subfolders."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        path = folder / f"sub {i % 2}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(path)
    return folder


def follow(run: Path, folder: Path, **options: object) -> FolderResult:
    """Bring the embeddings of a folder of photos in line with it."""
    result = embed(run, photos=folder, workers=0, batch=4, **options).folder  # type: ignore[arg-type]
    assert result is not None
    return result
