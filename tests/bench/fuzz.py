"""Damaged files through every reader: each case ends in a result or in one of our errors, and soon.

Run: python tests/bench/fuzz.py [CASES] [SEED]. Cases are shared over the readers; what ends otherwise is told, and makes
the exit code 1.
"""

import collections
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import yaml
from damage import TEXTS, damaged, name
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from zssbir_cli.data.embeddings import EmbeddingInfo, read_embeddings, write_embeddings
from zssbir_cli.data.embeddings_user import read_user_embeddings
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.engine.runs import read_metrics, read_record
from zssbir_cli.errors import DataError, ZssbirError
from zssbir_cli.models.weights import read_state
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.preparation.verify import verify
from zssbir_cli.recipe.loader import parse_recipe, shipped_recipes
from zssbir_cli.types import Modality
from zssbir_cli.workflows.eval import evaluate_ranking
from zssbir_cli.workflows.prepare import prepare

SLOW = 20.0
"""Seconds after which a case counts as one that hangs."""
SVG = b"""<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 100 100'><g transform='rotate(30) scale(2 3)'>
<path d='M10 10 L90 90 C1 2 3 4 5 6 A5 5 0 0 1 8 8 Z' stroke='black' fill='none' stroke-width='2'/><circle r='3' cx='9' cy='8'/>
<polyline points='1,2 3,4 50,60' style='stroke:red;fill:none;stroke-dasharray:1 2'/></g></svg>"""
Case = Callable[[random.Random], object]


def picture(kind: str) -> bytes:
    image = Image.new("L", (120, 100), 255)
    ImageDraw.Draw(image).ellipse((20, 20, 90, 80), outline=0, width=4)
    out = io.BytesIO()
    image.convert("RGB" if kind != "PNG" else "L").save(out, kind)
    return out.getvalue()


def cases(root: Path) -> dict[str, Case]:
    """What is damaged and read, by name. Files lie below `root`."""
    rows = np.eye(6, 8, dtype=np.float32)
    labels = np.arange(6, dtype=np.int32) % 3
    write_embeddings(root / "e.h5", rows, labels, np.arange(6) // 3, [f"{i}.png" for i in range(6)],
                     EmbeddingInfo(classes=("a", "b", "c")))  # fmt: skip
    np.savez(root / "u.npz", query=rows, gallery=rows, query_labels=labels, gallery_labels=labels)
    (root / "u.csv").write_text(
        "set,label,e0,e1\n" + "".join(f"{m},c{i},{i},1\n" for m in ("query", "gallery") for i in range(3))
    )
    save_file({"w": torch.eye(3)}, root / "w.safetensors")
    torch.save({"w": torch.eye(3)}, root / "w.pth")
    (root / "run").mkdir()
    (root / "run" / "run.json").write_text(json.dumps({"data": {"root": "x"}, "seed": 0}))
    (root / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n' * 5)
    (root / "q.txt").write_text("s1 0 p1 1\ns1 0 p2 0\ns2 0 p2 1\n")
    (root / "r.txt").write_text("s1 Q0 p1 1 0.9 x\ns1 Q0 p2 2 0.8 x\ns2 Q0 p1 1 0.7 x\n")
    for side, kind in (("sketch", "PNG"), ("photo", "JPEG")):
        for i, label in enumerate("abcd"):
            for n in range(3):
                place = root / "pics" / side / label / f"{n}.{kind.lower()}"
                place.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.random.default_rng([i, n]).integers(0, 256, (30, 30), np.uint8)).save(
                    place
                )
    prepared = prepare(root / "pics", out=root / "set", unseen=2, val_classes=0).root
    stored = {p: p.read_bytes() for p in prepared.iterdir() if p.is_file()}
    pictures = [picture(k) for k in ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")] + [SVG] * 3
    recipes = [p.read_text("utf-8") for p in shipped_recipes()]
    whole = {
        n: (root / n).read_bytes()
        for n in (
            "e.h5",
            "u.npz",
            "u.csv",
            "w.safetensors",
            "w.pth",
            "q.txt",
            "r.txt",
            "run/run.json",
            "run/metrics.jsonl",
        )
    }

    def of_file(file: str, read: Callable[[Path], object]) -> Case:
        def case(rng: random.Random) -> object:
            (root / file).write_bytes(damaged(whole[file], rng))
            try:
                return read(root / file)
            finally:
                (root / file).write_bytes(whole[file])

        return case

    def of_set(rng: random.Random) -> object:
        file = rng.choice(sorted(stored))
        file.write_bytes(damaged(stored[file], rng))
        try:
            found = PreparedSet.open(prepared)
            return (
                verify(prepared)
                if rng.random() < 0.3
                else [s.read(0) for s in (found.images(p, m) for p, m in found.manifest.counts)]
            )
        finally:
            file.write_bytes(stored[file])

    def of_recipe(rng: random.Random) -> object:
        text = rng.choice(recipes)
        if rng.random() < 0.5:
            content = yaml.safe_load(text)
            section = rng.choice([content, *(v for v in content.values() if isinstance(v, dict))])
            section[rng.choice([*section, "x"])] = rng.choice(
                [True, -1, 1.5, float("nan"), 10**30, None, [], {}, [True], *TEXTS[:12]]
            )
            text = yaml.safe_dump(content)
        else:
            text = damaged(text.encode(), rng).decode("utf-8", "replace")
        return parse_recipe(
            text,
            "r.yaml",
            [f"{rng.choice(('train.epochs', 'model.options.x', name(rng)))}={rng.choice(TEXTS)}"]
            if rng.random() < 0.3
            else (),
        )

    def of_names(rng: random.Random) -> object:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            for side in ("sketch", "photo"):
                for label in {name(rng) for _ in range(3)} | {"x", "y", "z"}:
                    try:
                        place = Path(folder) / side / label / f"{name(rng)}.png"
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.write_bytes(pictures[0] + rng.randbytes(3))
                    except (OSError, ValueError):
                        continue  # not a name for a file here
            return prepare(folder, out=Path(folder) / "out", unseen=1, val_classes=0, allow_leak=True)

    def trec(_: Path) -> object:
        return evaluate_ranking(root / "q.txt", root / "r.txt")

    return {
        "picture": lambda rng: clean(damaged(rng.choice(pictures), rng), Modality(rng.randrange(2)), rng.choice((CleanOptions(), CleanOptions(40, square=True)))),
        "recipe": of_recipe,
        "prepared set": of_set,
        "embeddings": of_file("e.h5", read_embeddings),
        "npz": of_file("u.npz", read_user_embeddings),
        "csv": of_file("u.csv", read_user_embeddings),
        "safetensors": of_file("w.safetensors", read_state),
        "pth": of_file("w.pth", read_state),
        "run.json": of_file("run/run.json", lambda p: read_record(p.parent)),
        "metrics": of_file("run/metrics.jsonl", lambda p: read_metrics(p.parent)),
        "qrels": of_file("q.txt", trec),
        "ranking": of_file("r.txt", trec),
        "names": of_names,
    }  # fmt: skip


def main(count: int = 20_000, seed: int = 0) -> int:
    rng, ended, wrong = random.Random(seed), collections.Counter[str](), 0
    with tempfile.TemporaryDirectory() as folder:
        known = cases(Path(folder))
        chosen = [k for k in known for _ in range(1 if k in ("names", "prepared set") else 8)]
        for number in range(count):
            kind, began = rng.choice(chosen), time.monotonic()
            try:
                known[kind](rng)
                ended[f"{kind}: result"] += 1
            except ZssbirError as error:
                ended[f"{kind}: {'named' if isinstance(error, DataError) else type(error).__name__}"] += 1
            except Exception as error:
                wrong += 1
                print(f"case {number}, {kind}: {type(error).__name__}: {str(error)[:200]}")
            if time.monotonic() - began > SLOW:
                wrong += 1
                print(f"case {number}, {kind}: {time.monotonic() - began:.0f} s")
    print(
        f"{count:,} cases, seed {seed}: {wrong} ended otherwise; "
        + ", ".join(f"{k} {n:,}" for k, n in sorted(ended.items()))
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
