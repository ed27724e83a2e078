"""Fused against explicit attention in a bf16 training step and forward pass of a ViT on a CPU.

    python tests/bench/bench_attention.py --model vit_small_patch16_224 --size 96 --batch 32

This is why `engine.precision.choose_attention` exists. Turns alternate; medians.
"""

import argparse
import time
from statistics import median

import timm
import torch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="vit_small_patch16_224")
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    model = timm.create_model(options.model, img_size=options.size, num_classes=0)
    blocks = [m for m in model.modules() if hasattr(m, "fused_attn")]
    x = torch.rand(options.batch, 3, options.size, options.size)

    def train() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x).float().square().mean().backward()

    def embed() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
            model(x)

    print(f"{options.model}, {options.size} px, batch {options.batch}, {torch.get_num_threads()} threads")
    for name, work in (("training step", train), ("forward pass", embed)):
        times: dict[bool, list[float]] = {True: [], False: []}
        for turn in range(options.turns + 1):
            for fused in (True, False):
                for block in blocks:
                    block.fused_attn = fused
                start = time.perf_counter()
                work()
                if turn:  # the first is warm-up
                    times[fused].append(time.perf_counter() - start)
        ratio = median(a / b for a, b in zip(times[True], times[False], strict=True))
        fused_ms, explicit_ms = (median(times[f]) * 1e3 for f in (True, False))
        print(f"{name}: fused {fused_ms:.0f} ms, explicit {explicit_ms:.0f} ms, median ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
