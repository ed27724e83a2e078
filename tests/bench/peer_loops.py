"""What users of other libraries run, as those libraries' own introductions show it; started by bench_peers.py.

    python tests/bench/peer_loops.py NAME FOLDER COUNT SIZE WEIGHTS OUT

Embedding loops embed all photos of FOLDER and write to OUT; training loops take COUNT steps over FOLDER/photo/<class>/* and
FOLDER/sketch/<class>/*. WEIGHTS: a MobileNetV2 as TensorFlow trained it, or of open_clip's ViT-B-32.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

MEAN = STD = (0.5, 0.5, 0.5)
CLIP = "ViT-B-32"
CLASSES, IMAGES_EACH = 12, 4


def mobilenet(weights: Path) -> nn.Module:
    """The network of every contender, without its classifier."""
    import timm

    model = timm.create_model("mobilenetv2_100", pad_type="same", num_classes=1001)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.reset_classifier(0)
    return model


def open_clip(folder: Path, _count: int, _size: int, weights: Path, out: Path) -> None:
    """open_clip's model and preprocessing in a DataLoader."""
    import open_clip
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    model, _, preprocess = open_clip.create_model_and_transforms(CLIP, pretrained=str(weights))
    model.eval()
    files = sorted(folder.glob("*.jpg"))

    class Photos(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> torch.Tensor:
            return preprocess(Image.open(files[i]))

    with torch.inference_mode():
        loader = DataLoader(Photos(), batch_size=128, num_workers=2)
        torch.save(torch.cat([model.encode_image(x, normalize=True) for x in loader]), out)


def lightly_train(folder: Path, _count: int, size: int, weights: Path, out: Path) -> None:
    """`lightly_train.embed`, which takes a checkpoint of its own kind: written here from the weights (a second)."""
    import lightly_train
    from lightly_train._checkpoint import (
        Checkpoint,
        CheckpointLightlyTrain,
        CheckpointLightlyTrainModels,
    )
    from lightly_train._models.embedding_model import EmbeddingModel
    from lightly_train._models.package_helpers import get_wrapped_model
    from lightly_train._transforms.transform import NormalizeArgs

    model = mobilenet(weights)
    wrapped = get_wrapped_model(model, num_input_channels=3)
    models = CheckpointLightlyTrainModels(model, wrapped, EmbeddingModel(wrapped))
    made = CheckpointLightlyTrain.from_now(models, NormalizeArgs(mean=MEAN, std=STD))
    checkpoint = out.with_suffix(".ckpt")
    torch.save(Checkpoint(model.state_dict(), made).to_dict(), checkpoint)
    lightly_train.embed(
        out=out,
        data=folder,
        checkpoint=checkpoint,
        image_size=(size, size),
        overwrite=True,
        accelerator="cpu",
    )


def pytorch_metric_learning(folder: Path, steps: int, size: int, weights: Path, _out: Path) -> None:
    """The loop of its README: sampler, pair miner, triplet loss."""
    from PIL import Image
    from pytorch_metric_learning import losses, miners, samplers
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    files = pictures(folder)
    names = sorted({f.parent.name for f in files})
    labels = [names.index(f.parent.name) for f in files]
    transform = transforms.Compose(
        [transforms.Resize((size, size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )

    class Pictures(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
            return transform(Image.open(files[i]).convert("RGB")), labels[i]

    batch = CLASSES * IMAGES_EACH
    sampler = samplers.MPerClassSampler(
        labels, m=IMAGES_EACH, batch_size=batch, length_before_new_iter=batch * steps
    )
    loader = DataLoader(Pictures(), batch_size=batch, sampler=sampler, num_workers=2)
    model = mobilenet(weights).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    miner, criterion = miners.MultiSimilarityMiner(epsilon=0.1), losses.TripletMarginLoss(margin=0.1)
    for images, targets in loader:
        optimizer.zero_grad()
        embeddings = model(images)
        loss = criterion(embeddings, targets, miner(embeddings, targets))
        loss.backward()
        optimizer.step()


def open_metric_learning(folder: Path, steps: int, size: int, weights: Path, _out: Path) -> None:
    """The loop of its README: labelled data set, balanced batches, all triplets."""
    import pandas as pd
    from oml.datasets import ImageLabeledDataset
    from oml.losses import TripletLossWithMiner
    from oml.miners import AllTripletsMiner
    from oml.samplers import BalanceSampler
    from oml.transforms.images.torchvision import get_normalisation_resize_torch
    from torch.utils.data import DataLoader

    files = pictures(folder)
    names = sorted({f.parent.name for f in files})
    table = pd.DataFrame(
        {
            "path": [str(f) for f in files],
            "label": [names.index(f.parent.name) for f in files],
            "split": "train",
        }
    )
    data = ImageLabeledDataset(table, transform=get_normalisation_resize_torch(size, MEAN, STD))
    sampler = BalanceSampler(data.get_labels(), n_labels=CLASSES, n_instances=IMAGES_EACH)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=2, persistent_workers=True)
    model = mobilenet(weights).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    criterion = TripletLossWithMiner(margin=0.1, miner=AllTripletsMiner())
    done = 0
    while done < steps:  # an epoch of its sampler has as many batches as there are groups of CLASSES
        for batch in loader:
            loss = criterion(model(batch["input_tensors"]), batch["labels"])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            if done == steps:
                break


def pictures(folder: Path) -> list[Path]:
    """All sketches and photos; their folder's name is their class."""
    return sorted(f for kind in ("photo", "sketch") for f in (folder / kind).glob("*/*"))


LOOPS: dict[str, Callable[[Path, int, int, Path, Path], None]] = {
    loop.__name__: loop for loop in (open_clip, lightly_train, pytorch_metric_learning, open_metric_learning)
}

if __name__ == "__main__":
    name, folder, count, size, weights, out = sys.argv[1:]
    LOOPS[name](Path(folder), int(count), int(size), Path(weights), Path(out))
