"""What a drawing loses on other grounds than white paper, before and after `prepare.ground`.

    python tests/bench/bench_ground.py --folder sketchy104 --weights mobilenetv2_100_imagenet.pth

The folder holds `sketch/CLASS/*` and `photo/CLASS/*`. For every ground: the correlation of the network inputs with
those of the clean drawings, and with frozen ImageNet features at 96 pixels how many of each sketch's ten nearest
photos, and of its ten nearest among other clean sketches, are of its class. `covered` tells what a strip or frame that hides ink loses at best: the clean drawing with
that place left white.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import timm
import torch
from PIL import Image

from zssbir_cli.data.square import square_sketch
from zssbir_cli.preparation.colour import drawing_of
from zssbir_cli.preparation.ground import on_white

Array = np.ndarray
SIZE = 96


def paper(a: Array, level: float, ink: float = 25) -> Array:
    return ink + a / 255 * (level - ink)


def jpeg(a: Array, quality: int) -> Array:
    data = cv2.imencode(".jpg", np.clip(a, 0, 255).astype(np.uint8), [1, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED).astype(float)


def grain(a: Array, sigma: float) -> Array:
    return np.clip(a + np.random.default_rng(0).normal(0, sigma, a.shape), 0, 255)


def places(a: Array) -> tuple[Array, Array]:
    y, x = np.mgrid[: a.shape[0], : a.shape[1]]
    return y / a.shape[0], x / a.shape[1]


def lined(a: Array, both: bool = False) -> Array:
    sheet, step = np.full_like(a, 245.0), max(8, len(a) // 16)
    sheet[step // 2 :: step] = 190
    if both:
        sheet[:, step // 2 :: step] = 190
    return np.minimum(sheet, a / 255 * 245)


def tilted(a: Array) -> Array:
    y, x = np.mgrid[: a.shape[0], : a.shape[1]]
    lines = np.where((y + 0.02 * x) % max(9, len(a) // 14) < 1.2, 180, 235.0)
    return jpeg(np.minimum(lines, a / 255 * 235), 80)


def shadow(a: Array) -> Array:
    y, x = places(a)
    return jpeg(paper(a, 230) * (0.5 + 0.5 / (1 + np.exp(-(x + y / 2 - 0.6) / 0.02))), 75)


def vignette(a: Array) -> Array:
    y, x = places(a)
    return jpeg(grain(paper(a, 225) * (1 - 1.2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)), 4), 60)


def strip(a: Array, colour: float = 30) -> Array:
    out = a.copy()
    out[:, : max(4, a.shape[1] // 14)] = colour
    return out


def lid(a: Array, white: bool = False) -> Array:
    out, deep = paper(a, 210), max(4, len(a) // 12)
    if white:
        out = a.copy()
        out[-deep:] = 255
        return out
    out[-deep:] = grain(np.full((deep, a.shape[1]), 50.0), 10)
    return jpeg(out, 85)


def frame(a: Array, colour: float = 0) -> Array:
    out, t = a.copy(), max(3, len(a) // 25)
    out[:t] = out[-t:] = colour
    out[:, :t] = out[:, -t:] = colour
    return out


def inner_frame(a: Array, level: float = 255) -> Array:
    """A thin printed frame inside the margin of the sheet, around the whole drawing."""
    t = len(a) // 10
    out = cv2.copyMakeBorder(paper(a, level, 0), t, t, t, t, cv2.BORDER_CONSTANT, value=level)
    s = max(2, t // 3)
    cv2.rectangle(out, (s, s), (out.shape[1] - s - 1, len(out) - s - 1), 40, max(1, len(a) // 128))
    return out


def table(a: Array) -> Array:
    t = len(a) // 8
    out = cv2.copyMakeBorder(paper(a, 215), t, t, t, t, cv2.BORDER_CONSTANT, value=-1)
    return jpeg(np.where(out < 0, grain(np.full_like(out, 70), 8), out), 80)


def chalk(a: Array) -> Array:
    n = np.random.default_rng(0)
    clouds = cv2.GaussianBlur(n.normal(0, 60, a.shape), (0, 0), len(a) / 20) * 1.5
    return 45 + clouds + n.normal(0, 6, a.shape) + (255 - a) / 255 * 170 * n.uniform(0.6, 1, a.shape)


def coloured(a: Array, ink: tuple[int, ...], ground: tuple[int, ...]) -> Array:
    """[H, W, 3] in RGB, as a camera's JPEG."""
    w = a[..., None] / 255
    return jpeg(grain(w * np.array(ground, float) + (1 - w) * np.array(ink, float), 3), 85)


GROUNDS: dict[str, Callable[[Array], Array]] = {
    "white (as drawn)": lambda a: a,
    "grey paper": lambda a: paper(a, 200),
    "dark grey paper": lambda a: paper(a, 140),
    "grainy paper": lambda a: grain(paper(a, 215), 3),
    "ruled": lined,
    "squared": lambda a: lined(a, True),
    "ruled, inclined, JPEG": tilted,
    "light from the right": lambda a: a / 255 * np.linspace(90, 235, a.shape[1])[None],
    "shadow of a hand": shadow,
    "vignette, grain, JPEG": vignette,
    "dark strip": strip,
    "scanner's lid": lid,
    "frame at the edge": frame,
    "frame in the margin": inner_frame,
    "the same, grey paper": lambda a: inner_frame(a, 205),
    "sheet on a table": table,
    "inverted": lambda a: 255 - a,
    "pencil": lambda a: jpeg(grain(paper(a, 235, 185), 2.5), 85),
    "chalk on a board": chalk,
    "uneven board": lambda a: np.linspace(30, 110, len(a))[:, None] + (255 - a) / 255 * 120,
    "blue on yellow": lambda a: coloured(a, (40, 60, 170), (240, 225, 110)),
    "yellow on white": lambda a: coloured(a, (255, 235, 90), (255, 255, 255)),
    "red on green": lambda a: coloured(a, (205, 60, 60), (80, 120, 90)),
    "white on green board": lambda a: coloured(a, (225, 225, 215), (50, 95, 70)),
    "green on red": lambda a: coloured(a, (70, 150, 90), (200, 95, 90)),
}
COVERED: dict[str, Callable[[Array], Array]] = {
    "dark strip": lambda a: strip(a, 255), "scanner's lid": lambda a: lid(a, True),
    "frame at the edge": lambda a: frame(a, 255),
}  # fmt: skip


def pixels(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def network_input(page: Array) -> Array:
    return square_sketch(torch.from_numpy(np.ascontiguousarray(page))[None], SIZE)[0].numpy()


def agreement(a: Array, b: Array) -> float:
    x, y = (cv2.GaussianBlur(255.0 - v, (0, 0), 2).ravel() for v in (a, b))
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-9))


def files(folder: Path, kind: str, classes: list[str], each: int) -> Iterator[tuple[int, Path]]:
    for label, name in enumerate(classes):
        for path in sorted((folder / kind / name).iterdir())[:each]:
            yield label, path


@torch.inference_mode()
def embed(model: torch.nn.Module, images: list[Array]) -> torch.Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    out = []
    for start in range(0, len(images), 50):
        batch = torch.from_numpy(np.stack(images[start : start + 50])).float() / 255
        batch = batch[..., None].expand(*batch.shape[:3], 3) if batch.ndim == 3 else batch
        out.append(model(((batch - mean) / std).permute(0, 3, 1, 2)))
    return torch.nn.functional.normalize(torch.cat(out))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--only", nargs="*")
    args = parser.parse_args()
    model = timm.create_model("mobilenetv2_100", num_classes=0).eval()
    model.load_state_dict(torch.load(args.weights, weights_only=True), strict=False)
    names = sorted(p.name for p in (args.folder / "sketch").iterdir())
    names = names[:: max(1, len(names) // args.classes)][: args.classes]
    sketches = list(files(args.folder, "sketch", names, 10))
    photos = list(files(args.folder, "photo", names, 15))
    labels = torch.tensor([i for i, _ in photos])
    truth = torch.tensor([i for i, _ in sketches])[:, None]
    gallery = embed(model, [np.asarray(Image.open(p).convert("RGB").resize((SIZE, SIZE))) for _, p in photos])
    drawings = [np.asarray(Image.open(p).convert("L")).astype(float) for _, p in sketches]
    clean = [network_input(pixels(a)) for a in drawings]

    others = [(i, p) for i, p in files(args.folder, "sketch", names, 25) if (i, p) not in set(sketches)]
    kin = embed(model, [network_input(np.asarray(Image.open(p).convert("L"))) for _, p in others])
    kinds = torch.tensor([i for i, _ in others])

    def hits(inputs: list[Array]) -> str:
        found = embed(model, inputs)
        shares = [
            (of[(found @ rows.T).topk(10).indices] == truth).float().mean()
            for rows, of in ((gallery, labels), (kin, kinds))
        ]
        return " ".join(f"{100 * float(s):.1f}" for s in shares)

    print(f"{len(sketches)} sketches, {len(photos)} photos, {len(names)} classes")
    print("ground | untreated: agreement, P@10 among photos, among sketches | treated | covered | ms")
    for name in args.only or GROUNDS:
        found = [pixels(GROUNDS[name](a)) for a in drawings]
        plain = [x if x.ndim == 2 else cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in found]
        start = time.perf_counter()
        white = [on_white(x if x.ndim == 2 else drawing_of(x)[0])[0] for x in found]
        took = 1000 * (time.perf_counter() - start) / len(found)
        cells = []
        for inputs in ([network_input(x) for x in plain], [network_input(x) for x in white]):
            same = float(np.mean([agreement(x, c) for x, c in zip(inputs, clean, strict=True)]))
            cells.append(f"{same:.3f} {hits(inputs)}")
        if name in COVERED:
            best = [network_input(pixels(COVERED[name](a))) for a in drawings]
            same = float(np.mean([agreement(x, c) for x, c in zip(best, clean, strict=True)]))
            cells.append(f"{same:.3f} {hits(best)}")
        print(" | ".join([f"{name:22s}", *cells, f"{took:.1f} ms"]), flush=True)


if __name__ == "__main__":
    main()
