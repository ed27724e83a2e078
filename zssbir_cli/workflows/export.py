"""`zssbir export`: the encoder as ONNX with its preprocessing, checked before it is kept, or a run as one file."""

import logging
import tempfile
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from zssbir_cli import __version__
from zssbir_cli.data.square import MARGIN
from zssbir_cli.embedding.own import data_of
from zssbir_cli.embedding.weights import Embeds, RunWeights, Weights, choose_weights
from zssbir_cli.engine.bundle import pack_run
from zssbir_cli.engine.runs import find_checkpoint, find_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.files import check_writable, reason, write_bytes, write_json, writing
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.names import file_part
from zssbir_cli.types import EXPORT_FORMS, AnyPath, Modality, Part

OPSET = 17
TRIED = 8
"""Pictures of each modality on which the exported network is compared with the original."""
LEAST_COSINE = 0.9999
OTHER_FILE = "; choose another file with --out"


@dataclass(frozen=True)
class Exported:
    """The files that were written; for ONNX also how far it is from the original on real pictures."""

    files: tuple[Path, ...]
    pictures: str = ""
    least_cosine: float = 1.0


def export(
    run: AnyPath | None = None,
    *,
    format: str = "onnx",
    out: AnyPath | None = None,
    model: str | None = None,
    checkpoint: str = "best",
    runs: AnyPath = "runs",
) -> Exported:
    """Write a run (or, as ONNX, a frozen model) for use elsewhere.

    format: `onnx`: the network from uint8 pictures [B, 3, S, S] to unit embeddings [B, D], and FILE.json, which says how
    pictures become its input; a method that embeds sketches and photos differently gives a file for each. `run`: a zip
    with weights, recipe, classes and reports, which every --run takes.
    out: the file; default: the run's name with .onnx or .zip, here.

    Errors: UsageError (the extra `onnx` is missing), DataError (disk), CheckpointError (the network cannot be exported,
    or the exported one gives other embeddings: then nothing is kept).
    """
    if format not in EXPORT_FORMS:
        raise UsageError(f"--format {format}: one of {', '.join(EXPORT_FORMS)}")
    if format == "run":
        if model is not None:
            raise UsageError("--format run is for a run: leave out --model")
        chosen = find_run(run, Path(runs), checkpoint)
        target = Path(out or f"{chosen.path.resolve().name}.zip")
        check_writable(target, OTHER_FILE)
        return Exported((pack_run(chosen.path, find_checkpoint(chosen.path, chosen.which).path, target),))
    if find_spec("onnx") is None or find_spec("onnxruntime") is None:
        raise UsageError("--format onnx needs the onnx extra: python -m pip install '.[onnx]'")
    weights = choose_weights(run, model, Path(runs), checkpoint)
    name = weights.home.resolve().name if isinstance(weights, RunWeights) else file_part(model or "model")
    target = Path(out or f"{name}.onnx")
    check_writable(target, OTHER_FILE)
    return export_onnx(weights, target)


class _Embedding(nn.Module):
    """A method's embedding of one modality as a network of its own."""

    def __init__(self, method: Embeds, modality: Modality) -> None:
        super().__init__()
        self.method, self.modality = method, modality

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, S, S] -> float32 [B, D]."""
        return self.method.embed(images, self.modality)


def export_onnx(weights: Weights, out: Path) -> Exported:
    """Write `out` (or two files, `<stem>.sketch.onnx` and `<stem>.photo.onnx`) and `<stem>.json`."""
    method = weights.load(torch.device("cpu"))
    source, pictures = _pictures(weights)
    with torch.inference_mode():
        wanted = {m: method.embed(pictures[m], m) for m in Modality}
        alike = torch.equal(method.embed(pictures[Modality.SKETCH], Modality.PHOTO), wanted[Modality.SKETCH])
    stem = out.with_suffix("") if out.suffix == ".onnx" else out
    kinds = {Modality.PHOTO: out} if alike else {m: Path(f"{stem}.{m.word}.onnx") for m in Modality}
    least, dim = 1.0, wanted[Modality.PHOTO].shape[1]
    with tempfile.TemporaryDirectory() as place:
        made: dict[Path, bytes] = {}
        for modality, target in kinds.items():
            file = Path(place) / target.name
            _write_onnx(_Embedding(method, modality), pictures[modality], file)
            for m in Modality if alike else (modality,):
                least = min(least, _least_cosine(file, pictures[m], wanted[m]))
            made[target] = file.read_bytes()
        if least < LEAST_COSINE:
            raise CheckpointError(
                f"{weights.label}: the exported network differs from the original (least cosine {least:.6f} on {source}); "
                "nothing was written"
            )
        files = {m.word: kinds[Modality.PHOTO if alike else m].name for m in Modality}
        about = _about(weights, files, dim) | {"checked_on": source, "least_cosine": least}
        with writing(out):
            for target, content in made.items():
                write_bytes(target, content)
            write_json(Path(f"{stem}.json"), about)
    return Exported((*made, Path(f"{stem}.json")), source, least)


def _write_onnx(network: nn.Module, example: Tensor, file: Path) -> None:
    log = logging.getLogger("torch.onnx")
    level = log.level
    try:
        log.setLevel(logging.ERROR)  # without the exporter's remarks on tracing
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            torch.onnx.export(
                network.eval(), (example[:2],), str(file), input_names=["images"], output_names=["embedding"],
                dynamic_axes={"images": {0: "batch"}, "embedding": {0: "batch"}}, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # whatever the exporter cannot do
        raise CheckpointError(f"this network cannot be exported as ONNX: {reason(error)}") from error
    finally:
        log.setLevel(level)


def _least_cosine(file: Path, pictures: Tensor, wanted: Tensor) -> float:
    """The least cosine of an exported network's rows, for several pictures and for one, with the original's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    several = session.run(None, {"images": pictures.numpy()})[0]
    one = session.run(None, {"images": pictures[:1].numpy()})[0]
    found, true = np.concatenate([several, one]), torch.cat([wanted, wanted[:1]]).numpy()
    if found.shape != true.shape or not np.isfinite(found).all():
        return -1.0
    return float((found * true).sum(1).min())


def _pictures(weights: Weights) -> tuple[str, dict[Modality, Tensor]]:
    """Inputs uint8 [N, 3, S, S] of each modality: of the run's data set where it is found, else drawn ones."""
    size, crop = weights.data.size, weights.data.sketch_crop
    with suppress(DataError, UsageError):  # no data set (any more), or a frozen model
        prepared = data_of(weights).prepared
        for part in (Part.TEST, Part.VAL, Part.TRAIN):
            sets = {m: EvalImages(prepared.images(part, m), size, crop, TRIED) for m in Modality}
            if all(map(len, sets.values())):
                found = {
                    m: torch.stack([s[i].expand(3, -1, -1) for i in range(len(s))]) for m, s in sets.items()
                }
                return f"{len(found[Modality.PHOTO])} photos and sketches of {prepared.manifest.name}", found
    random = torch.Generator().manual_seed(0)
    coarse = torch.rand(2, TRIED, 3, 8, 8, generator=random)
    smooth = nn.functional.interpolate(coarse.flatten(0, 1), (size, size), mode="bicubic").clamp(0, 1)
    drawn = (smooth * 255).to(torch.uint8)
    return "generated pictures", dict(zip(Modality, (drawn[:TRIED], drawn[TRIED:]), strict=True))


def _about(weights: Weights, files: dict[str, str], dim: int) -> dict[str, Any]:
    """The JSON beside the network: what it is, and how pictures become its input."""
    size = weights.data.size
    known = asdict(weights.checkpoint.learnt) if isinstance(weights, RunWeights) else {}
    return {
        "zssbir": __version__,
        "weights": weights.label,
        "sha256": weights.sha256,
        **{key: value for key, value in weights.facts.items() if key != "run"},
        "files": files,
        "input": {"name": "images", "type": "uint8", "shape": ["batch", 3, size, size], "order": "RGB"},
        "output": {"name": "embedding", "type": "float32", "shape": ["batch", dim], "length": 1},
        "normalisation": "inside the network",
        "photo": f"decode as RGB, resize to {size} x {size} (not kept in proportion), bilinear with antialiasing",
        "sketch": {
            "ground": "dark ink on white, one channel, given three times",
            "crop": f"to the ink's box and {MARGIN:g} of its longer side around" if weights.data.sketch_crop else "none",
            "pad": "to a square, with white",
            "resize": f"to {size} x {size}, bilinear with antialiasing",
            "stretch": "the 90th percentile of the ink's darkness becomes black",
        },
        "trained_on": {key: known[key] for key in ("name", "identity", "seen", "val", "start") if known.get(key)},
    }  # fmt: skip
