"""Embedding speed: bf16 weights and autocast against the fp32 forward pass, and their cosines to it.

    python tests/bench/bench_embed.py [--backbone vit_small_patch16_224] [--images 64] [--batch 32] [--repeat 3]

The floor is a plain fp32 forward pass of the same backbone in a Python loop, as published evaluators run it. All run
interleaved on the same random pictures and (randomly initialised) weights; medians, images per second.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from zssbir_cli.engine.precision import Precision
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.methods.triplet.method import build
from zssbir_cli.recipe.schema import ModelConfig, Recipe
from zssbir_cli.types import Modality
from zssbir_cli.workflows.embed import with_bf16_weights


def main() -> None:
    """Run the comparison and print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.manual_seed(0)
    recipe = Recipe(
        name="bench", method=TripletConfig(), model=ModelConfig(backbone=args.backbone, weights="none")
    )
    method = build(recipe, load_weights=False).eval()
    fast = with_bf16_weights(method)
    coarse = torch.rand(args.images, 3, 12, 12)
    images = torch.nn.functional.interpolate(coarse, size=(args.size, args.size), mode="bicubic").clamp(0, 1)
    images = (images * 255).to(torch.uint8)
    bf16 = Precision.choose("bf16", torch.device("cpu"))

    def run(embed: Callable[[Tensor, Modality], Tensor], batch: int, autocast: bool) -> Tensor:
        out = []
        with torch.inference_mode():
            for a in range(0, len(images), batch):
                if autocast:
                    with bf16.autocast():
                        out.append(embed(images[a : a + batch], Modality.PHOTO).float())
                else:
                    out.append(embed(images[a : a + batch], Modality.PHOTO).float())
        return torch.cat(out)

    ways: dict[str, Callable[[], Tensor]] = {
        "fp32 (published forward pass)": lambda: run(method.embed, args.batch, False),
        "bf16 autocast": lambda: run(method.embed, args.batch, True),
        "bf16 weights (what `embed` uses)": lambda: run(fast.embed, args.batch, True),
    }
    results = {name: way() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeat):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    exact, *_ = results.values()
    base = statistics.median(next(iter(times.values())))
    print(
        f"{args.backbone}, {args.size} px, {args.images} images, batch {args.batch}, {torch.get_num_threads()} threads"
    )
    print("\n| | images/s | x fp32 | least cosine to fp32 |\n|---|---|---|---|")
    for name, rows in results.items():
        middle = statistics.median(times[name])
        cosine = float(torch.cosine_similarity(exact, rows).min())
        print(f"| {name} | {args.images / middle:.1f} | {base / middle:.1f} | {cosine:.5f} |")


if __name__ == "__main__":
    main()
