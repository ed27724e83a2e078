"""What `search` looks through: an embeddings file, a folder of photos or a prepared set, with the weights for it."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from zssbir_cli.data.embeddings import EmbeddingInfo, Embeddings, Rows, read_embeddings
from zssbir_cli.embedding.choice import open_embedder
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.folder import FolderResult, follow_folder
from zssbir_cli.embedding.own import data_of, remark
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.embedding.weights import RunWeights, TowerWeights
from zssbir_cli.engine.runs import find_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Part


@dataclass(frozen=True)
class Gallery:
    """Photos to search, and the weights that made their embeddings. `note`: what the user should know."""

    embedder: Embedder
    stored: Embeddings
    folder: FolderResult | None = None
    """What following the folder did, when it is one."""
    note: str = ""

    def photos(self) -> tuple[Rows, int]:
        """The photos' rows (a slice: no copy of a memory map) and the first one's number.

        Errors: DataError when there is none.
        """
        rows = self.stored.rows_of(Modality.PHOTO)
        if not len(rows):
            raise DataError(f"{self.stored.path}: holds no photos")
        if int(rows[-1]) - int(rows[0]) + 1 != len(rows):
            raise DataError(
                f"{self.stored.path}: sketches and photos are mixed; write it with `zssbir embed`"
            )
        return self.stored.embedding[rows[0] : rows[-1] + 1], int(rows[0])


def open_gallery(
    gallery: Path,
    device: torch.device,
    *,
    run: str | Path | None = None,
    model: str | None = None,
    runs: Path = Path("runs"),
    which: str = "best",
    embedder: Embedder | None = None,
    workers: int | None = None,
    text: bool = False,
    progress: Progress = silent,
) -> Gallery:
    """Open a gallery; what is missing or has changed is embedded.

    Args:
        gallery: an embeddings file, a prepared set (its test photos), or a folder of photos.
        run, model, runs, which: whose weights, as `choose_weights` takes them; default: those that made the file.
        embedder: the weights, where they are open already.
        text: whether texts will be searched for: weights without a text side are refused before anything is embedded.

    Errors: UsageError (no such gallery), DataError (damaged, of other weights), CheckpointError.
    """
    if gallery.is_file():
        stored = read_embeddings(gallery)
        embedder = _owner(stored, gallery, device, run, model, runs, workers, embedder)
        if text:
            embedder.weights.check_text()
        notes = (_differing(stored, embedder, gallery), embedder.weights.note)
        return Gallery(embedder, stored, note="; ".join(filter(None, notes)))
    if not gallery.is_dir():
        raise UsageError(f"--photos {gallery}: no such file or folder")
    if embedder is None:
        embedder = open_embedder(device, run=run, model=model, runs=runs, which=which, workers=workers)
    if text:
        embedder.weights.check_text()
    note = embedder.weights.note
    if (gallery / "manifest.json").is_file():
        data = data_of(embedder.weights, gallery)
        stored = embed_part(embedder, data.prepared, Part.TEST, progress=progress)
        return Gallery(embedder, stored, note="; ".join(filter(None, (note, remark(data)))))
    followed = follow_folder(embedder, gallery, progress=progress)
    stored = read_embeddings(followed.path)
    if not embedder.accepts(stored.info):
        raise DataError(f"{followed.path}: replaced by another process meanwhile; run the same command again")
    return Gallery(embedder, stored, followed, note)


def _differing(stored: Embeddings, embedder: Embedder, path: Path) -> str:
    """A note when other library versions made the file. DataError when the preprocessing was another."""
    if stored.info.made in ("", embedder.made):
        return ""
    theirs, ours = json.loads(stored.info.made), json.loads(embedder.made)
    other = [key for key in ours if key != "versions" and ours[key] != theirs.get(key)]
    if other:
        raise DataError(
            f"{path}: made with another {', '.join(other)} than these weights have now; embed the photos again with "
            "`zssbir embed --photos`"
        )
    names = sorted(n for n in ours["versions"] if ours["versions"][n] != theirs["versions"].get(n))
    return f"{path} was made with another version of {', '.join(names)}; scores may differ slightly"


def _owner(
    stored: Embeddings,
    path: Path,
    device: torch.device,
    run: str | Path | None,
    model: str | None,
    runs: Path,
    workers: int | None,
    have: Embedder | None,
) -> Embedder:
    """An embedder of the very weights that made an embeddings file: the one that is open, or one of its own.

    Errors: DataError when neither what the user named nor what the file names has those weights: a sketch embedded by
    another model would be compared with nonsense.
    """
    info = stored.info
    if not info.checkpoint:
        raise DataError(f"{path}: does not say which weights made it; embed the photos with `zssbir embed`")
    if have is not None and have.weights.sha256 == info.checkpoint:
        return have
    if have is not None and isinstance(have.weights, RunWeights):
        run = have.weights.home
    elif have is not None:
        raise DataError(_other_weights(info, path, have.weights.label))
    if model is not None or (info.model and run is None):
        weights = TowerWeights.find(model or info.model)
        if weights.sha256 == info.checkpoint:
            return Embedder.of(weights, device, workers=workers)
        raise DataError(_other_weights(info, path, weights.label))
    home = Path(info.run)
    candidate = home if run is None and home.is_dir() else find_run(run, runs).path
    for meta in sorted((candidate / "checkpoints").glob("*/meta.json")):
        if _weights_of(meta) == info.checkpoint:
            return Embedder.open(candidate, device, which=meta.parent.name, workers=workers)
    raise DataError(_other_weights(info, path, str(candidate)))


def _other_weights(info: EmbeddingInfo, path: Path, tried: str) -> str:
    if info.model:
        made, how = f"model {info.model}", "name them with --model"
    else:
        made, how = f"run {info.run or '?'} (recipe {info.recipe or '?'})", "name their run with --run"
    return (
        f"{path}: made with the weights {info.checkpoint[:12]} of {made}, which {tried} does not have; {how}, or embed "
        "the photos again with `zssbir embed --photos`"
    )


def _weights_of(meta: Path) -> str:
    try:
        return str(json.loads(meta.read_text("utf-8"))["sha256"]["model.safetensors"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{meta}: damaged ({error})") from error
