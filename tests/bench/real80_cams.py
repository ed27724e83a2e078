"""Class activation maps of an ImageNet MobileNetV2 as masks for `masks: FILE`, for the classes whose names it knows.

    python tests/bench/real80_cams.py --data data/real80 --weights mobilenetv2_100_imagenet.pth --out cams.h5

The map of a photo is the classifier's weights for the ImageNet classes that bear its class's name, applied to the
last feature map; a photo of a class that ImageNet does not name gets the map of the network's own first guess.
"""

import argparse
from pathlib import Path

import numpy as np
import timm
import torch
from timm.data import ImageNetInfo

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.scores import write_scores
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.models.clip_text import clean_class_name
from zssbir_cli.types import Modality, Part

SIZE = 224


def same_name(name: str, info: ImageNetInfo) -> list[int]:
    """ImageNet classes one of whose names is `name` or ends with it ("tabby cat" for "cat")."""
    words = clean_class_name(name, {name: name.replace("_", " ")}).lower()
    found = []
    for i in range(1000):
        names = [n.strip().lower() for n in info.index_to_description(i).split(",")]
        if any(n == words or n.endswith(" " + words) for n in names):
            found.append(i)
    return found


@torch.inference_mode()
def main() -> None:
    """Compute and store the maps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("cams.h5"))
    parser.add_argument("--size", type=int, default=SIZE)
    args = parser.parse_args()
    model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001).eval()
    model.load_state_dict(torch.load(args.weights, weights_only=True))
    prepared, info = PreparedSet.open(args.data), ImageNetInfo("imagenet-1k")
    photos = prepared.images(Part.TRAIN, Modality.PHOTO)
    images = EvalImages(photos, args.size)
    known = {
        int(c): [i + 1 for i in same_name(prepared.classes[c], info)] for c in set(photos.labels.tolist())
    }
    without = sorted(prepared.classes[c] for c, found in known.items() if not found)
    print(
        f"{len(known) - len(without)} of {len(known)} training classes are named in ImageNet; not: {without}"
    )
    maps = []
    for start in range(0, len(images), 32):
        rows = range(start, min(start + 32, len(images)))
        x = torch.stack([images[i] for i in rows]).float() / 127.5 - 1
        features = model.forward_features(x)
        logits = model.forward_head(features)
        logits[:, 0] = float("-inf")  # background
        cams = torch.einsum("bchw,kc->bkhw", features, model.classifier.weight)
        for j, i in enumerate(rows):
            classes = known[int(photos.labels[i])] or [int(logits[j].argmax())]
            best = max(classes, key=lambda k: float(logits[j, k]))
            maps.append((cams[j, best] - cams[j, 1:].mean(0)).numpy())
    write_scores(args.out, np.stack(maps), data=prepared.identity, facts={"model": "mobilenetv2 CAM"})
    print(f"{args.out}: {len(maps)} maps of {maps[0].shape}")


if __name__ == "__main__":
    main()
