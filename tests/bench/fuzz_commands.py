"""Damaged runs, bundles, sets, galleries, tables and requests through whole commands: each case ends in a result or in
one of our errors, in one line that names a file, and soon.

Run: python tests/bench/fuzz_commands.py [CASES] [SEED] [KIND ...]. What ends otherwise is told, and makes the exit code 1.
"""

import collections
import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from damage import DEEP, TEXTS, damaged, warped
from fuzz_files import other_values, repack, rewrite, user_rows
from puxim_helpers import masked_gallery
from retrieval_helpers import photos

from zssbir_cli.cli import app
from zssbir_cli.errors import ZssbirError
from zssbir_cli.web.live import LiveGallery

SLOW, HANGS, GREEDY = 20.0, 120.0, 1 << 30
"""Seconds after which a case counts as slow, and as one that hangs; bytes of memory that no case may need."""
FOLDERS = ("runs", "data", "pics", "photos.lance")
Case = Callable[[random.Random], object]


def command(*words: object) -> str:
    """What a command prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        app.run([str(word) for word in words])
    return out.getvalue()


class World:
    """A small run with its set, pictures, galleries and results in `whole`, and a copy of it in `here` to spoil."""

    def __init__(self, root: Path) -> None:
        self.whole, self.here = root / "whole", root / "here"
        os.environ["ZSSBIR_CACHE"] = str(root / "cache")
        self.here.mkdir(parents=True)
        os.chdir(self.here)
        gallery = masked_gallery(self.here)
        self.live_file = gallery.stored.path
        photos(self.here / "pics", 4)
        shutil.copytree(self.here / "runs" / "one", self.here / "runs" / "two")
        (self.here / "runs" / "one" / "metrics.jsonl").write_text(
            '{"step": 1, "epoch": 0.5, "loss": 2.0}\n{"step": 2, "epoch": 1.0, "val/mAP@all": 0.5}\n'
        )
        for run in ("one", "two"):
            command("eval", "--run", f"runs/{run}", "--no-baselines", "--no-report")
        command(
            "embed",
            "--run",
            "runs/one",
            "--photos",
            "pics",
            "--out",
            "runs/one/embeddings/pics.h5",
            "--workers",
            0,
        )
        command("embed", "--run", "runs/one", "--photos", "pics", "--out", "photos.lance", "--workers", 0)
        command("export", "--run", "runs/one", "--format", "run", "--out", "run.zip")
        shutil.copytree(self.here, self.whole)

    def fresh(self) -> None:
        """Make good what the last case has spoilt."""
        for name in FOLDERS:
            shutil.rmtree(self.here / name, ignore_errors=True)
            shutil.copytree(self.whole / name, self.here / name)
        shutil.copy(self.whole / "run.zip", self.here)

    def spoil(self, folder: str, rng: random.Random) -> Path:
        """Damage one file below a folder."""
        file = rng.choice(sorted(p for p in (self.here / folder).rglob("*") if p.is_file()))
        raw = file.read_bytes()
        if file.suffix in (".json", ".jsonl", ".yaml") and rng.random() < 0.8:
            raw = other_values(file, raw, rng)
        elif rng.random() < 0.05:
            raw = rng.choice((b"", b"\0" * 100, DEEP.encode()))
        else:
            raw = damaged(raw, rng)
        file.write_bytes(raw)
        return file


QUICK = ("--device", "cpu", "--workers", 0)
OF_RUNS: tuple[Sequence[object], ...] = (
    ("runs",), ("runs", "--json"), ("runs", "compare", "one", "two"), ("runs", "compare", "two", "one", "--json"),
    ("runs", "export"), ("runs", "export", "--format", "csv"), ("runs", "export", "--format", "latex"),
    ("eval", "--run", "one", "--no-report", *QUICK), ("eval", "--run", "latest", "--no-baselines", "--json", *QUICK),
    ("eval", "--compare", "one", "two"), ("eval", "--run", "one", "--out", "out", "--no-baselines", *QUICK),
    ("embed", "--run", "one", *QUICK), ("embed", "--run", "one", "--photos", "pics", *QUICK),
    ("search", "pics", "--photos", "pics", "--run", "one", *QUICK),
    ("search", "pics", "--photos", "runs/one/embeddings/pics.h5", "--json", *QUICK),
    ("search", "pics", "--photos", "photos.lance", *QUICK),
    ("mask-viz", "--run", "one", "--count", 1, "--out", "out", "--device", "cpu"),
    ("doctor", "--run", "one"), ("export", "--run", "one", "--format", "run", "--out", "out/x.zip"),
)  # fmt: skip
OF_DATA: tuple[Sequence[object], ...] = (
    ("info", "data"), ("doctor", "--data", "data"), ("mask-viz", "--run", "one", "--count", 1, "--out", "out"),
    ("eval", "--run", "one", "--no-baselines", "--no-report", *QUICK), ("embed", "--run", "one", "--force", *QUICK),
    ("search", "pics", "--photos", "data", "--run", "one", *QUICK),
)  # fmt: skip
OF_BUNDLE: tuple[Sequence[object], ...] = (
    ("eval", "--run", "run.zip", "--no-baselines", "--no-report", "--data", "data", *QUICK),
    ("search", "pics", "--photos", "pics", "--run", "run.zip", *QUICK), ("runs", "compare", "one", "run.zip"),
)  # fmt: skip


def cases(world: World) -> dict[str, Case]:
    """What is damaged and used, by name."""
    here = world.here

    def of_run(rng: random.Random) -> object:
        world.spoil(rng.choice(("runs/one", "runs/one", "runs")), rng)
        return command(*rng.choice(OF_RUNS))

    def of_data(rng: random.Random) -> object:
        world.spoil("data", rng)
        return command(*rng.choice(OF_DATA))

    def of_bundle(rng: random.Random) -> object:
        if rng.random() < 0.5:
            (here / "run.zip").write_bytes(damaged((here / "run.zip").read_bytes(), rng))
        else:
            repack(here / "run.zip", rng)
        return command(*rng.choice(OF_BUNDLE))

    def of_table(rng: random.Random) -> object:
        world.spoil("photos.lance", rng)
        return command("search", "pics", "--photos", "photos.lance", *QUICK)

    def of_gallery(rng: random.Random) -> object:
        file = here / "runs" / "one" / "embeddings" / "pics.h5"
        rewrite(file, rng)
        words = [("search", "pics", "--photos", file, *QUICK), ("search", "pics", "--photos", file, "--run", "one", *QUICK),
                 ("embed", "--run", "one", "--photos", "pics", "--out", file, *QUICK), ("eval", "--embeddings", file),
                 ("eval", "--run", "one", "--gallery-extra", file, "--no-report", "--no-baselines", *QUICK)]  # fmt: skip
        return command(*rng.choice(words))

    def of_rows(rng: random.Random) -> object:
        return command("eval", "--embeddings", user_rows(here, rng))

    return {
        "run": of_run, "data": of_data, "bundle": of_bundle, "table": of_table, "gallery": of_gallery, "rows": of_rows,
        "request": _requests(world),
    }  # fmt: skip


def _requests(world: World) -> Case:
    """Requests to the drawing page's server: JSON, multipart bodies, addresses."""
    from starlette.testclient import TestClient

    from zssbir_cli.embedding.gallery import open_gallery
    from zssbir_cli.web.server import build_app

    live = LiveGallery(open_gallery(world.live_file, torch.device("cpu"), workers=0))
    client = TestClient(build_app(live, k=3), raise_server_exceptions=True)
    good = {"strokes": [[[1, 2], [3, 4], [5, 60]], [[0.5, 1.5, 0.3]]], "k": 3, "min_score": 0.1}
    like = {"like": 1, "k": 3, "text": ""}
    picture = next(iter(sorted((world.here / "pics").rglob("*.jpg")))).read_bytes()

    def case(rng: random.Random) -> object:
        headers = {"content-type": "application/json"}
        match rng.randrange(6):
            case 0 | 1:
                body = json.dumps(warped(rng.choice((good, like)), rng)).encode()
            case 2:
                body = damaged(json.dumps(good).encode(), rng)
            case 3:
                kind = rng.choice(("image", "photo", "strokes", "like", "x"))
                request = client.build_request(
                    "POST", "/search", files={kind: damaged(picture, rng)}, data={"k": rng.choice(TEXTS[:-1])}
                )
                headers, body = dict(request.headers), request.read()
                body = damaged(body, rng) if rng.random() < 0.6 else body
                headers.pop("content-length", None)
                if rng.random() < 0.3:
                    kind = damaged(headers["content-type"].encode(), rng).decode("latin-1")
                    headers["content-type"] = "".join(c for c in kind if c.isprintable() and ord(c) < 127)
            case 4:
                query = {
                    rng.choice(("k", "min_score", "like", "text", "token", "size")): rng.choice(TEXTS[:-1])
                }
                with contextlib.suppress(UnicodeEncodeError):
                    return _checked(client.post("/search", params=query, json=good))
                return None
            case _:
                part = rng.choice(("0", "1", "-1", "999", "9" * 30, "x", "%00", "1.5", "0" * 5000, "０"))
                size = rng.choice(
                    ("", "?size=16", "?size=x", "?size=²", "?size=" + "9" * 5000, "?size=０３２", "?size=-1")
                )
                return _checked(client.get(f"/photo/{part}{rng.choice(('', '/mask'))}{size}"))
        return _checked(client.post("/search", content=body, headers=headers))

    return case


def _checked(answer: Any) -> int:
    assert answer.status_code < 500, f"{answer.status_code}: {answer.text[:200]}"
    assert "/here" not in answer.text, f"tells a path: {answer.text[:200]}"
    json.loads(answer.text) if "json" in answer.headers.get("content-type", "") else None
    return int(answer.status_code)


def ended(case: Case, rng: random.Random, where: Path) -> tuple[str, str]:
    """How a case ended, in a word, and what is wrong with that ("" = nothing)."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    faulthandler.dump_traceback_later(HANGS, exit=True)
    wrong, how = [], "result"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            case(rng)
        except ZssbirError as error:
            how, text = type(error).__name__, str(error)
            if "\n" in text:
                wrong.append(f"more than a line: {text[:300]!r}")
            if len(text) > 1500:
                wrong.append(f"{len(text)} characters: {text[:300]!r}")
        except BaseException as error:
            places = [p for p in traceback.extract_tb(error.__traceback__) if "zssbir_cli" in p.filename]
            place = (
                f"{places[-1].filename.rpartition('zssbir_cli/')[2]}:{places[-1].lineno}" if places else "?"
            )
            wrong.append(f"{type(error).__name__} at {place}: {str(error)[:200]}")
    faulthandler.cancel_dump_traceback_later()
    ours = {f"{w.category.__name__} at {w.filename.rpartition('zssbir_cli/')[2]}:{w.lineno}: {w.message}" for w in told if "zssbir_cli" in w.filename and w.category is not ResourceWarning}  # fmt: skip
    wrong += sorted(ours)
    if (took := time.monotonic() - began) > SLOW:
        wrong.append(f"{took:.0f} s")
    if (more := (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10) > GREEDY:
        wrong.append(f"{more >> 20} MiB more memory")
    return how, "; ".join(wrong)


def main(count: int = 2000, seed: int = 0, *kinds: str) -> int:
    """Run the cases; each has a seed of its own, so that one can be repeated alone."""
    found, bad, home = collections.Counter[str](), 0, Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        known = cases(world)
        for number in range(count):
            rng = random.Random(f"{seed} {number}")
            kind = rng.choice(kinds or sorted(known))
            world.fresh()
            how, wrong = ended(known[kind], rng, world.here)
            found[f"{kind}: {how}"] += 1
            if wrong:
                bad += 1
                print(f"case {number}, {kind}: {wrong}", flush=True)
        os.chdir(home)
    print(
        f"{count:,} cases, seed {seed}: {bad} ended otherwise; {', '.join(f'{k} {n:,}' for k, n in sorted(found.items()))}"
    )
    return int(bad > 0)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(*numbers, *sys.argv[3:]))
