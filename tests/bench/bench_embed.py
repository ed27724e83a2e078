"""Embedding speed: bf16 weights and autocast against the fp32 forward pass, and their cosines to it.

    python tests/bench/bench_embed.py [--backbone vit_small_patch16_224] [--images 64] [--batch 32] [--repeat 3]

The baseline is the published evaluators' forward pass: fp32, attention as two explicit products and a softmax, in a
Python loop. The last row is no forward pass but the bare bf16 products of the linear layers: what would be left if all
else took no time. All run interleaved on the same random pictures and (randomly initialised) weights; medians, images
per second.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zssbir_cli.compute.precision import Precision
from zssbir_cli.methods.triplet.config import TripletConfig
from zssbir_cli.methods.triplet.method import build
from zssbir_cli.recipe.schema import ModelConfig, Recipe
from zssbir_cli.types import Modality


def explicit_attention(method: nn.Module) -> nn.Module:
    """A copy whose attention is not fused."""
    out = copy.deepcopy(method)
    for module in out.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return out


def linear_products(method: nn.Module, forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The products of all linear layers of one forward pass, on their own."""
    jobs: list[tuple[Tensor, Tensor]] = []

    def note(layer: nn.Linear, inputs: tuple[Tensor], _: Tensor) -> None:
        rows = inputs[0].reshape(-1, layer.in_features)
        jobs.append((rows.bfloat16(), layer.weight.detach().bfloat16().T))

    hooks = [m.register_forward_hook(note) for m in method.modules() if isinstance(m, nn.Linear)]
    forward()
    for hook in hooks:
        hook.remove()
    return lambda: [rows @ weight for rows, weight in jobs][-1]


def with_bf16_weights(method: nn.Module) -> nn.Module:
    """A copy whose weights are bf16, batch norm's and buffers left in fp32 (tried, and not worth it)."""
    fast = copy.deepcopy(method)
    for module in fast.modules():
        if "BatchNorm" not in type(module).__name__:
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(torch.bfloat16)
    return fast


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
    fast, published = with_bf16_weights(method), explicit_attention(method)
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
        "published forward pass": lambda: run(published.embed, args.batch, False),
        "fp32": lambda: run(method.embed, args.batch, False),
        "bf16 autocast": lambda: run(method.embed, args.batch, True),
        "bf16 weights (what `embed` uses)": lambda: run(fast.embed, args.batch, True),
    }
    products = linear_products(fast, ways["bf16 weights (what `embed` uses)"])
    results = {name: way() for name, way in ways.items()}
    times: dict[str, list[float]] = {name: [] for name in ways}
    bare = "bare bf16 products of the linear layers"
    times[bare] = []
    for _ in range(args.repeat):
        for name, way in {**ways, bare: products}.items():
            start = time.perf_counter()
            way()
            times[name].append(time.perf_counter() - start)
    exact, *_ = results.values()
    base = statistics.median(next(iter(times.values())))
    print(
        f"{args.backbone}, {args.size} px, {args.images} images, batch {args.batch}, {torch.get_num_threads()} threads"
    )
    print("\n| | images/s | x published | least cosine to fp32 |\n|---|---|---|---|")
    for name, rows in results.items():
        middle = statistics.median(times[name])
        cosine = float(torch.cosine_similarity(exact, rows).min())
        print(f"| {name} | {args.images / middle:.1f} | {base / middle:.1f} | {cosine:.5f} |")
    middle = statistics.median(times[bare])
    print(f"| {bare} | {args.images / middle:.1f} | {base / middle:.1f} | - |")


if __name__ == "__main__":
    main()
