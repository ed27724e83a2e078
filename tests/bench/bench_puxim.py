"""PuXIM's training step against the published way, on the same small ViT, batch and machine.

    python tests/bench/bench_puxim.py

Published way, re-implemented here from the paper's program: in every step CLIP's text tower runs for each photo and
its image tower with surgery for each photo in a Python loop, the unused negative sketch is encoded, everything in
fp32, anomaly detection on, CLIP's parameters in the optimizer, the decoder's plain torch layers. Ours: the step of
`zssbir train` with cached scores. Rounds are interleaved; medians and their ratio are printed.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import open_clip
import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn

from zssbir_cli.compute.precision import Precision, choose_device
from zssbir_cli.methods.base import Batch
from zssbir_cli.methods.puxim.config import PuximConfig
from zssbir_cli.methods.puxim.method import Puxim
from zssbir_cli.models.encoder import Encoder, build_encoder
from zssbir_cli.models.surgery import SurgeryTower, feature_surgery
from zssbir_cli.recipe.schema import ModelConfig

SIZE, GRID = 112, 7


class Published(nn.Module):
    """The published step: CLIP inside, four images a row, decoder of torch layers."""

    def __init__(self, encoder: Encoder, clip: CLIP) -> None:
        super().__init__()
        self.encoder, self.clip = encoder, clip
        self.tower = SurgeryTower(clip.visual, 6)
        layer = nn.TransformerDecoderLayer(encoder.dim, 4, 1024, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 4)
        self.head = nn.Linear(encoder.dim, 2)

    def mask(self, photo: Tensor) -> Tensor:
        """Kept tokens of one photo, float [1, N, 1]; text and image tower run here, each time."""
        words = open_clip.tokenize(["a photo of a", "a photo of cat"])
        text = nn.functional.normalize(self.clip.encode_text(words), dim=-1)
        tokens = nn.functional.normalize(self.tower(photo[None].float() / 127.5 - 1), dim=-1)
        scores = feature_surgery(tokens, text)[:, 1:, 1]
        order = scores.argsort(1)
        keep = torch.ones_like(scores)
        keep[0, order[0, : int(0.7 * scores.shape[1]) + 1]] = 0
        return keep[..., None]

    def forward(self, batch: Batch) -> Tensor:
        """Loss of a batch."""
        images = [batch["sketch"].expand(-1, 3, -1, -1), batch["photo"], batch["negative"]]
        sketch, photo, negative = (self.encoder(x) for x in images)
        self.encoder(batch["sketch"].flip(0).expand(-1, 3, -1, -1))  # the negative sketch that nothing uses
        loss = nn.functional.triplet_margin_loss(sketch.embedding, photo.embedding, negative.embedding)
        for label, found, pictures in ((1, photo, batch["photo"]), (0, negative, batch["negative"])):
            mask = torch.cat([self.mask(p) for p in pictures])
            loss = loss + 0.05 * nn.functional.mse_loss(found.tokens, mask * found.tokens)
            seen = torch.cat([found.embedding[:, None], mask * found.tokens], 1)
            asked = torch.cat([sketch.embedding[:, None], sketch.tokens], 1)
            logits = self.head(self.decoder(asked, seen)).mean(1)
            target = torch.full((len(logits),), label, device=logits.device)
            loss = loss + 0.1 * nn.functional.cross_entropy(logits, target)
        return loss


def batch_of(n: int, device: torch.device) -> Batch:
    """Random images and scores."""
    gen = torch.Generator().manual_seed(0)
    out: Batch = {"sketch": torch.randint(256, (n, 1, SIZE, SIZE), dtype=torch.uint8, generator=gen)}
    for name in ("photo", "negative"):
        out[name] = torch.randint(256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=gen)
        out[f"{name}_scores"] = torch.rand(n, GRID, GRID, generator=gen)
        out[f"{name}_label"] = torch.arange(n) % 4
    return {k: v.to(device) for k, v in out.items()}


def small_clip() -> CLIP:
    """A CLIP as large as the encoder (in the paper both are ViT-B/16)."""
    vision = CLIPVisionCfg(layers=12, width=192, head_width=64, patch_size=16, image_size=SIZE)
    return CLIP(128, vision, CLIPTextCfg(width=128, heads=4, layers=12), quick_gelu=True)


def steps(batch: Batch, device: torch.device, only: str | None) -> dict[str, Callable[[], None]]:
    """One training step each way (or one way only)."""
    model = ModelConfig(backbone="vit_tiny_patch16_224", weights="none", options={"proj_drop_rate": 0.1})
    torch.manual_seed(0)
    out: dict[str, Callable[[], None]] = {}
    if only in (None, "published"):
        published = Published(build_encoder(model, SIZE), small_clip()).to(device).train()
        old = torch.optim.Adam(published.parameters(), 1e-5, weight_decay=1e-3, foreach=False)

        def published_step() -> None:
            old.zero_grad()
            with torch.autograd.detect_anomaly(check_nan=True):
                published(batch).backward()
            old.step()

        out["published"] = published_step
    precision = Precision.choose("auto", device)
    plain = ModelConfig(backbone="vit_tiny_patch16_224", weights="none")
    for name, settings, options in (
        ("ours (puxim.yaml, fp32)", model, {}),
        (f"ours (puxim.yaml, {precision.name})", model, {}),
        (
            f"ours (puxim-fast.yaml, {precision.name})",
            plain,
            {"negatives": "batch", "distance": "cosine", "decoder_layers": 2, "decoder_dropout": 0.0},
        ),
    ):
        if only not in (None, name):
            continue
        method = Puxim(PuximConfig(**options), build_encoder(settings, SIZE)).to(device).train()
        fused = torch.optim.Adam(method.parameters(), 1e-5, weight_decay=1e-3, fused=True)
        used = {k: v for k, v in batch.items() if not (options and k.startswith("negative"))}
        number = Precision.choose("fp32", device) if "fp32" in name else precision

        def step(
            method: Puxim = method, fused: torch.optim.Adam = fused, used: Batch = used, number=number
        ) -> None:
            fused.zero_grad(set_to_none=True)
            with number.autocast():
                loss = method(used).loss
            loss.backward()
            fused.step()

        out[name] = step
    return out


def main() -> None:
    """Time interleaved rounds and print medians, ratios and memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default=None, help="one contender's peak memory, in this process")
    args = parser.parse_args()
    device = choose_device("auto")
    contenders = steps(batch_of(args.batch, device), device, args.only)
    if args.only:
        print(peak(contenders[args.only]))
        return
    for step in contenders.values():
        step()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(args.rounds):
        for name, step in contenders.items():
            start = time.perf_counter()
            step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times[name].append(time.perf_counter() - start)
    base = statistics.median(times["published"])
    print(f"{torch.get_num_threads()} threads, {device}, ViT-Ti/16 at {SIZE} px, batch {args.batch}")
    for name, values in times.items():
        median = statistics.median(values)
        print(
            f"{name:34s} {1000 * median:8.1f} ms  {base / median:5.2f} x  {args.batch / median:7.1f} items/s"
        )
    for name in contenders:
        command = [sys.executable, __file__, "--only", name, "--batch", str(args.batch)]
        print(
            f"{name:34s} {subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()}"
        )


def peak(step: Callable[[], None]) -> str:
    """Memory of this process before and after three steps (run alone in a process)."""
    before = peak_mib()
    for _ in range(3):
        step()
    return f"peak memory {peak_mib():.0f} MiB, {peak_mib() - before:.0f} MiB of it for training"


def peak_mib() -> float:
    """Largest resident memory of this program so far; not `getrusage`, which begins at the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
