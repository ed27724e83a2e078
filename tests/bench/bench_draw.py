"""`zssbir draw` under load, beside a program that loads the network for every query.

    python tests/bench/bench_draw.py                                       # 10,000 photos, everything
    python tests/bench/bench_draw.py --photos 1000000 --hostile 0          # 1,000,000 photos (5 GB in the temporary folder)

MobileNetV2 at 96 px with random weights over generated unit rows. Prints the time from the end of a stroke to the
answer (the drawing of 640 px as PNG, over HTTP on this machine), the times of many clients at once, what hostile
requests get, the server's processor time per query and its memory (without the gallery's pages, which the system can
take back); the last row is `zssbir search` as a new process for each drawing. Each line names its goal.
"""

import argparse
import http.client
import io
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image, ImageDraw

BLOCK = 4096
HOSTILE_CLIENTS = 4
GOALS = {10_000: 120, 1_000_000: 500}
"""Milliseconds from the end of a stroke to the answer (95 %), by photos."""
RECIPE = """
name: bench
method: {name: triplet, contrast_weight: 1.0}
data: {root: ., size: 96, workers: 0}
model: {backbone: mobilenetv2_100, weights: none, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}
"""


def make_run(folder: Path) -> Path:
    """A run with random weights."""
    from zssbir_cli.engine import checkpoint
    from zssbir_cli.methods.table import build_method
    from zssbir_cli.recipe.loader import load_recipe

    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "run.json").write_text("{}")
    recipe = load_recipe(folder / "recipe.yaml")
    torch.manual_seed(0)
    facts = {
        "step": 1, "epoch": 1, "recipe": recipe.model_dump(mode="json"), "metrics": {}, "precision": "fp32",
        "data": {"name": "bench", "identity": "0" * 16},
    }  # fmt: skip
    for name in ("best", "last"):
        checkpoint.save(folder / "checkpoints" / name, build_method(recipe).retrieval_state(), None, facts)
    return folder


def make_gallery(path: Path, run: Path, photos: int) -> Path:
    """An embeddings file of that many random unit rows."""
    from zssbir_cli.data.embeddings import write_embeddings
    from zssbir_cli.embedding.embedder import Embedder
    from zssbir_cli.embedding.weights import RunWeights
    from zssbir_cli.types import Modality

    embedder = Embedder(RunWeights(run), torch.device("cpu"), workers=0)
    width = embedder.embed_batch(torch.zeros(1, 3, 96, 96, dtype=torch.uint8), Modality.PHOTO).shape[1]
    names = [f"{i:08d}.jpg" for i in range(photos)]
    kind = np.full(photos, int(Modality.PHOTO), np.uint8)
    return write_embeddings(
        path, unit_rows(photos, width), np.full(photos, -1, np.int32), kind, names, embedder.info()
    )


def unit_rows(count: int, width: int) -> Iterator[np.ndarray]:
    """Blocks of random unit rows; the first block, rolled along its columns, since drawing a billion numbers takes longer
    than the benchmark."""
    base = np.random.default_rng(0).standard_normal((BLOCK, width), np.float32)
    base /= np.linalg.norm(base, axis=1, keepdims=True)
    for i, a in enumerate(range(0, count, BLOCK)):
        yield np.roll(base, i, axis=1)[: count - a]


def drawing(seed: int) -> bytes:
    """A few strokes on a sheet of 640 px, as PNG."""
    rng, image = random.Random(seed), Image.new("L", (640, 640), 255)
    for _ in range(5):
        points = [(rng.randint(40, 600), rng.randint(40, 600)) for _ in range(6)]
        ImageDraw.Draw(image).line(points, fill=0, width=7)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def multipart(raw: bytes) -> tuple[bytes, dict[str, str]]:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    return head + raw + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def ask(port: int, body: bytes, headers: dict[str, str]) -> tuple[int, float]:
    """Status and seconds of one search."""
    start = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", "/search", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, time.perf_counter() - start


def hostile(number: int) -> tuple[bytes, dict[str, str]]:
    """A request that no honest client sends."""
    rng = random.Random(number)
    raw = bytearray(drawing(number % 20))
    match number % 5:
        case 0:
            del raw[rng.randrange(len(raw)) :]
        case 1:
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 2:
            raw = bytearray(rng.randbytes(rng.randrange(2000)))
        case 3:
            return rng.randbytes(rng.randrange(500)), {"Content-Type": "application/json"}
        case _:
            values = [
                "[[",
                '{"strokes": [[[1e999, 0]]]}',
                '{"like": -1}',
                '{"strokes": 7}',
                "null",
                '{"k": []}',
            ]
            return rng.choice(values).encode(), {"Content-Type": "application/json"}
    return multipart(bytes(raw))


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))] * 1000


def memory(process: int) -> int:
    """MiB of a process that are not pages of files (Linux)."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    return int(re.search(r"RssAnon:\s+(\d+)", text)[1]) // 1024  # type: ignore[index]


def busy(process: int) -> float:
    """Seconds of processor time that a process has used (Linux)."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def goal(value: float, most: float | None, unit: str = "ms") -> str:
    """Whether a value keeps to its goal."""
    return "" if most is None else f" (goal {most:g} {unit}: {'met' if value <= most else 'MISSED'})"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--hostile", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=3, help="queries of the program that loads anew")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        run = make_run(place / "runs" / "bench")
        gallery = make_gallery(place / "gallery.h5", run, options.photos)
        command = [sys.executable, "-m", "zssbir_cli"]
        served = subprocess.Popen(
            [*command, "draw", "--photos", str(gallery), "--run", str(run), "--port", "0", "--device", "cpu"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            measure(options, served)
        finally:
            served.terminate()
            served.wait()
        (place / "a.png").write_bytes(drawing(0))
        times = []
        for _ in range(options.loads):
            start = time.perf_counter()
            line = [*command, "search", str(place / "a.png"), "--photos", str(gallery), "--run", str(run)]
            subprocess.run(line, check=True, capture_output=True, env={**os.environ})
            times.append(time.perf_counter() - start)
        if times:
            print(f"a process per query: median {median(times) * 1000:.0f} ms")


def measure(options: argparse.Namespace, served: "subprocess.Popen[str]") -> None:
    """All that is asked of the running server."""
    assert served.stderr is not None
    port = 0
    while not port:
        line = served.stderr.readline()
        if not line:
            raise SystemExit("the server did not start")
        if found := re.search(r"127\.0\.0\.1:(\d+)", line):
            port = int(found[1])
    bodies = [multipart(drawing(i)) for i in range(20)]
    ask(port, *bodies[0])
    before, used = memory(served.pid), busy(served.pid)
    one = [ask(port, *bodies[i % 20])[1] for i in range(options.queries)]
    spent = (busy(served.pid) - used) / options.queries * 1000
    slow = quantile(one, 0.95)
    print(
        f"{options.photos:,} photos, one client: p50 {quantile(one, 0.5):.0f} ms, p95 {slow:.0f} ms"
        f"{goal(slow, GOALS.get(options.photos))}, {spent:.0f} ms of processor time"
    )
    with ThreadPoolExecutor(options.clients) as pool:
        many = list(pool.map(lambda i: ask(port, *bodies[i % 20]), range(4 * options.clients)))
    refused = sum(status != 200 for status, _ in many)
    times = [seconds for _, seconds in many]
    slow = quantile(times, 0.95)
    print(
        f"{options.clients} clients at once: p50 {quantile(times, 0.5):.0f} ms, p95 {slow:.0f} ms"
        f"{goal(slow, 2000 if options.photos == 10_000 else None)}, refused {refused}{goal(refused, 0, 'refused')}"
    )
    print(
        f"memory of the server: {before} MiB after the first query, {memory(served.pid)} MiB after {len(one) + len(many):,}"
    )
    if options.hostile:
        counts: dict[int, int] = {}
        with ThreadPoolExecutor(HOSTILE_CLIENTS) as pool:
            for status, _ in pool.map(lambda i: ask(port, *hostile(i)), range(options.hostile)):
                counts[status] = counts.get(status, 0) + 1
        failed = sum(n for status, n in counts.items() if status >= 500)
        print(
            f"{options.hostile:,} hostile requests: {dict(sorted(counts.items()))}{goal(failed, 0, 'of 5xx')}"
        )
        print(f"memory of the server at the end: {memory(served.pid)} MiB")


if __name__ == "__main__":
    main()
