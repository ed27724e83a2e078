"""`zssbir mask-viz`: what the VxL sampler keeps of some photos, and what an encoder's tokens hold there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zssbir_cli.compute.precision import choose_device
from zssbir_cli.data.images import decode_photo
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.data.square import resize_photo
from zssbir_cli.embedding.own import data_of, remark
from zssbir_cli.embedding.weights import RunWeights
from zssbir_cli.engine.runs import RunChoice, find_run
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import check_writable
from zssbir_cli.inputs.datasets import load_image
from zssbir_cli.inputs.folder import picture_files
from zssbir_cli.methods.puxim.config import PuximConfig, VxlConfig
from zssbir_cli.methods.puxim.losses import keep_mask, to_grid
from zssbir_cli.models.clip_text import clean_class_name
from zssbir_cli.models.encoder import Encoder
from zssbir_cli.models.known import OFFLINE
from zssbir_cli.models.surgery_clip import SurgeryClip, load_surgery_clip, similarity
from zssbir_cli.names import named_classes
from zssbir_cli.preparation.clean import CleanOptions, clean
from zssbir_cli.types import Modality, Part
from zssbir_cli.viz.masks import MaskPicture, save_masks

DEMO_CLASSES = ("teapot", "sailboat", "guitar", "butterfly", "bicycle", "cactus", "house", "umbrella")


@dataclass(frozen=True)
class MaskRequest:
    """What to show; None and empty mean: choose. See `zssbir mask-viz --help`."""

    images: Sequence[Path] = ()
    classes: Sequence[str] = ()
    texts: Sequence[str] = ()
    run: str | Path | None = None
    data: Path | None = None
    model: str | None = None
    weights: str | None = None
    ratio: float | None = None
    count: int = 8
    out: Path | None = None
    device: str = "auto"
    runs: Path = Path("runs")


@dataclass(frozen=True)
class Shot:
    """One photo to show: uint8 [3, H, W], where it is from, its class, and its true mask if known."""

    image: Tensor
    source: str
    name: str
    truth: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class MaskOutcome:
    """The files that were written, and a record of each row for `--json`."""

    sheet: Path
    page: Path
    heading: str
    rows: list[dict[str, Any]]


@dataclass
class _View:
    """What looks at the photos: the sampler, and the encoder of the run if there is one."""

    clip: SurgeryClip
    vxl: VxlConfig
    ratio: float
    texts: Sequence[str]
    encoder: Encoder | None = None
    size: int = 0
    """Side of the encoder's input."""


def mask_viz(request: MaskRequest) -> MaskOutcome:
    """Score photos, draw them, and write `masks.png` and `masks.html`.

    Errors: UsageError, DataError, CheckpointError: nothing to show, an unreadable photo, or no such model.
    """
    device = choose_device(request.device)
    chosen, root, notes = _chosen_run(request), request.data, []
    run = None if chosen is None else chosen.path
    out = request.out or (run / "masks" if run is not None else Path("mask-viz"))
    check_writable(out, "; choose another folder with --out", folder=True)
    config, encoder, size = PuximConfig(), None, 0
    if chosen is not None:
        weights = RunWeights(chosen.path, chosen.which)
        recipe, found = weights.recipe, getattr(weights.load(device), "encoder", None)
        encoder, size = (found if isinstance(found, Encoder) else None), recipe.data.size
        config = recipe.method if isinstance(recipe.method, PuximConfig) else config
        if not request.images:
            data = data_of(weights, root)
            root, notes = data.prepared.root, [remark(data)]
    prepared = None if request.images else _prepared(root)
    shots = list(_shots(request, prepared))
    vxl = _vxl(request, config.vxl, prepared)
    clip = load_surgery_clip(vxl.model, vxl.weights, size=vxl.size, blocks=vxl.blocks, device=device)
    ratio = config.mask_ratio if request.ratio is None else request.ratio
    view = _View(clip, vxl, ratio, request.texts, encoder, size)
    shown = [
        _picture(view, shot, text)
        for shot in shots
        for text in request.texts or (clean_class_name(shot.name, vxl.class_names),)
    ]
    if request.images and not request.texts:
        notes.append("text of each photo: its folder's name (another with --text)")
    heading = "; ".join(filter(None, (_heading(view, run, prepared, bool(request.images)), *notes)))
    sheet, page = save_masks([picture for picture, _ in shown], out, heading)
    return MaskOutcome(sheet, page, heading, [record for _, record in shown])


def _chosen_run(request: MaskRequest) -> RunChoice | None:
    """The run to take: as asked, else the newest one, unless the user named photos or a data set."""
    if request.run is not None:
        return find_run(request.run, request.runs)
    if request.images or request.data is not None:
        return None
    try:
        return find_run(runs=request.runs)
    except UsageError:
        return None


def _prepared(root: Path | None) -> PreparedSet | None:
    """The data set to take photos from: as asked or as the run says, else the newest one under data/; None
    when there is none at all (then demo photos are drawn)."""
    if root is not None:
        return PreparedSet.open(root)
    found = sorted(Path("data").glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)
    return PreparedSet.open(found[-1].parent) if found else None


def _vxl(request: MaskRequest, config: VxlConfig, prepared: PreparedSet | None) -> VxlConfig:
    """The sampler to ask: as asked, as the run says, else the offline CLIP for drawn pictures and OpenAI's for
    photos."""
    drawn = not request.images and (prepared is None or prepared.manifest.name == "demo")
    drawn &= config == VxlConfig() and request.weights is None
    model = request.model or (OFFLINE if drawn else config.model)
    changes = {"model": model, "weights": request.weights or config.weights}
    return config.model_copy(update=changes)


def _shots(request: MaskRequest, prepared: PreparedSet | None) -> Iterator[Shot]:
    if request.images:
        yield from _own(request)
    elif prepared is not None:
        yield from _stored(request, prepared)
    else:
        yield from _drawn(request)


def _own(request: MaskRequest) -> Iterator[Shot]:
    """The user's pictures: files, or folders of them (all levels)."""
    files = [file for place in request.images for file in picture_files(place)[0]]
    for file in files[: request.count]:
        yield Shot(_read(file), str(file), file.resolve().parent.name)


def _read(file: Path) -> Tensor:
    """A picture file as uint8 [3, H, W], upright, at most about 512 pixels on the shorter side."""
    try:
        cleaned = clean(file.read_bytes(), Modality.PHOTO, CleanOptions(size=512))
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror})") from None
    if cleaned.data is None:
        raise DataError(f"{file}: {cleaned.note}")
    return decode_photo(np.frombuffer(cleaned.data, np.uint8))


def _stored(request: MaskRequest, prepared: PreparedSet) -> Iterator[Shot]:
    """Photos of a prepared set: training photos of different classes, or the named classes from any part."""
    wanted = named_classes(request.classes, prepared.classes, str(prepared.root))
    sets = [prepared.images(part, Modality.PHOTO) for part in (Part.TRAIN, Part.VAL, Part.TEST, Part.HOLDOUT)]
    present = {int(label): (s, i) for s in reversed(sets) for i, label in reversed(list(enumerate(s.labels)))}
    if not wanted:
        seen = sorted(set(sets[0].labels.tolist()))
        step = max(1, len(seen) // request.count)
        wanted = seen[::step]
    each = max(1, request.count // len(wanted)) if request.classes else 1
    for label in wanted[: request.count]:
        if label not in present:
            raise DataError(f"{prepared.root} has no photos of {prepared.classes[label]}")
        images, first = present[label]
        same = [i for i in np.flatnonzero(images.labels == label).tolist() if i >= first][:each]
        for i in same:
            yield Shot(load_image(images, i), images.sources[i], prepared.classes[label], images.read_mask(i))


def _drawn(request: MaskRequest) -> Iterator[Shot]:
    """Freshly drawn demo photos, for a place where nothing has been prepared yet."""
    from zssbir_cli.demo import draw_photo

    for number, name in enumerate((request.classes or DEMO_CLASSES)[: request.count]):
        photo, mask = draw_photo(name, np.random.default_rng([5, number]), 192, 0.4)
        yield Shot(torch.from_numpy(photo).permute(2, 0, 1), f"drawn {name}", name, mask)


@torch.inference_mode()
def _picture(view: _View, shot: Shot, text: str) -> tuple[MaskPicture, dict[str, Any]]:
    """One row: scores of `text`, the mask, and the tokens of the encoder (or of CLIP) under it."""
    clip, vxl = view.clip, view.vxl
    device = clip.mean.device
    tokens = clip.tokens(shot.image[None].to(device))
    words = list(view.texts) if vxl.against == "classes" and len(view.texts) > 1 else [text]
    against = "empty" if vxl.against == "classes" and len(words) == 1 else vxl.against
    other = clip.texts(["a" if against == "article" else ""], vxl.prompt)[0]
    row = torch.tensor([words.index(text)], device=device)
    scores = similarity(tokens, clip.texts(words, vxl.prompt), row, other, against)[:, 1:]
    scores = scores.view(1, *clip.grid)
    grid, held = clip.grid, tokens[0, 1:]
    if view.encoder is not None:
        features = view.encoder(resize_photo(shot.image, view.size)[None].to(device))
        grid, held = features.grid, features.tokens[0].float()
    keep = keep_mask(to_grid(scores, grid), view.ratio)[0]
    note, facts = _against_truth(shot, keep, grid)
    kept, plain, normalised = (x.view(grid).cpu().numpy() for x in (keep, *components(held, keep)))
    image, values = shot.image.permute(1, 2, 0).numpy(), scores[0].cpu().numpy()
    picture = MaskPicture(image, text, note, values, kept, plain, normalised, shot.truth)
    energy = held.square().mean(1)
    record = {
        "source": shot.source,
        "class": shot.name,
        "text": text,
        "grid": list(clip.grid),
        "scores": [[round(float(v), 5) for v in line] for line in scores[0]],
        "kept": int(keep.sum()),
        "tokens": keep.numel(),
        "energy_kept": round(float(energy[keep].mean()), 5),
        "energy_masked": round(float(energy[~keep].mean()), 5) if not bool(keep.all()) else None,
        **facts,
    }
    return picture, record


def components(tokens: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
    """Tokens [N, D] along their first principal component, as they are and after normalising each over its channels,
    [N] each; kept tokens get the higher values."""
    normal = torch.nn.functional.layer_norm(tokens, tokens.shape[-1:])
    out = []
    for x in (tokens, normal):
        x = x - x.mean(0)
        direction = torch.linalg.svd(x, full_matrices=False).Vh[0]
        value = x @ direction
        out.append(-value if value[keep].mean() < value.mean() else value)
    return out[0], out[1]


def _against_truth(shot: Shot, keep: Tensor, grid: tuple[int, int]) -> tuple[str, dict[str, float]]:
    """How the mask compares with the true object (drawn pictures only)."""
    if shot.truth is None:
        return "", {}
    cover = to_grid(torch.from_numpy(shot.truth)[None].float(), grid)[0]
    true, kept = cover >= 0.5, keep.cpu()
    share = float(cover[kept].mean())
    iou = float((true & kept).sum() / (true | kept).sum().clamp(min=1))
    note = f"on the object: {share:.0%}\nat random: {float(cover.mean()):.0%}"
    return note, {"on_object": round(share, 4), "object": round(float(cover.mean()), 4), "iou": round(iou, 4)}


def _heading(view: _View, run: Path | None, prepared: PreparedSet | None, own: bool) -> str:
    photos = "own photos" if own else f"data set {prepared.root}" if prepared else "drawn demo photos"
    of_run = run is not None and view.encoder is not None
    tokens = f"tokens of {run.name}" if of_run and run else "tokens of the sampler's CLIP"
    outline = "" if own or (prepared and prepared.manifest.name != "demo") else "; white: true outline"
    return (
        f"VxL sampler {view.clip.name}, prompt '{view.vxl.prompt}', lowest {view.ratio:.0%} of the patches masked; "
        f"{photos}; {tokens}{outline}"
    )
