"""What `search` looks through: an embeddings file, a folder of photos or a prepared set, with the weights for it."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zssbir_cli.compute.precision import Precision
from zssbir_cli.data.embeddings import EmbeddingInfo, Embeddings, Rows, read_embeddings
from zssbir_cli.data.hdf5 import begins_as_hdf5
from zssbir_cli.data.table import GalleryTable, open_table
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.folder import FolderResult, follow_folder
from zssbir_cli.embedding.own import data_of, remark
from zssbir_cli.embedding.parts import embed_part
from zssbir_cli.embedding.weights import RunWeights, TowerWeights, Weights, choose_weights
from zssbir_cli.engine.runs import find_run
from zssbir_cli.errors import CheckpointError, DataError, UsageError
from zssbir_cli.files import parsed, printable
from zssbir_cli.models.towers import find_tower
from zssbir_cli.names import table_address
from zssbir_cli.progress import Progress, silent
from zssbir_cli.retrieval.search import search
from zssbir_cli.types import Modality, Part

NO_QUERIES = np.empty((0, 0), np.float32)
PRODUCTS = Precision.choose("auto", torch.device("cpu")).dtype
"""What the scan of a search computes in; its results do not depend on it."""


@dataclass(frozen=True)
class Hit:
    """A photo that was found: place from 1, cosine, row of the gallery's file, its name and class ("" if not known)."""

    rank: int
    score: float
    row: int
    source: str
    name: str


@dataclass(frozen=True)
class Gallery:
    """Photos to search, and the weights that made their embeddings. `note`: what the user should know."""

    embedder: Embedder
    stored: Embeddings
    """Of a `table`, only what `narrowed` has picked."""
    folder: FolderResult | None = None
    """What following the folder did, when it is one."""
    note: str = ""
    table: GalleryTable | None = None

    @property
    def of_files(self) -> bool:
        """Whether its photos are files, or members of tars, as found, and not the images of a prepared set."""
        return not self.stored.info.part

    @cached_property
    def rows(self) -> range:
        """Rows of the photos in the file. Errors: DataError when there is none; UsageError for a table as a whole."""
        if self.table and not len(self.stored):
            raise UsageError(
                f"{self.table.address}: a table is for `zssbir search`; give an embeddings file or a folder"
            )
        rows = self.stored.rows_of(Modality.PHOTO)
        if not len(rows):
            raise DataError(f"{self.stored.path}: holds no photos")
        if int(rows[-1]) - int(rows[0]) + 1 != len(rows):
            raise DataError(
                f"{self.stored.path}: sketches and photos are mixed; write it with `zssbir embed`"
            )
        return range(int(rows[0]), int(rows[-1]) + 1)

    @property
    def photos(self) -> Rows:
        """The photos' embeddings [N, D]: a slice, no copy of a memory map."""
        return self.stored.embedding[self.rows.start : self.rows.stop]

    def narrowed(self, queries: Tensor, k: int, *, approximate: bool = False) -> "Gallery":
        """The gallery itself; of a table, the photos among which are the `k` nearest of each query [Q, D]."""
        if self.table is None:
            return self
        unit = functional.normalize(queries.float(), dim=1).numpy()
        return replace(self, stored=self.table.pick(unit, k, approximate=approximate))

    def nearest(self, queries: Tensor, k: int, progress: Progress = silent) -> list[list[Hit]]:
        """The `k` photos nearest to each query [Q, D], best first; exact. Errors: see `retrieval.search`."""
        found = search(queries, self.photos, k, products=PRODUCTS, progress=progress)
        names, classes = self.stored.sources, self.stored.info.classes
        answers = []
        for rows, scores in zip((found.rows + self.rows.start).tolist(), found.scores.tolist(), strict=True):
            labels = self.stored.label[rows].tolist()
            answers.append([
                Hit(rank, score, row, printable(names[row]), classes[c] if 0 <= c < len(classes) else "")
                for rank, (row, score, c) in enumerate(zip(rows, scores, labels, strict=True), 1)
            ])  # fmt: skip
        return answers


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
        gallery: an embeddings file, a table (`.lance`), a prepared set (its test photos), or a folder of photos.
        run, model, runs, which: whose weights, as `choose_weights` takes them; default: those that made the file.
        embedder: the weights, where they are open already.
        text: whether texts will be searched for: weights without a text side are refused before anything is embedded.

    Errors: UsageError (no such gallery), DataError (damaged, of other weights), CheckpointError.
    """
    address = table_address(gallery)
    if not address and gallery.is_file() and not begins_as_hdf5(gallery):
        raise UsageError(
            f"--photos {gallery}: neither an embeddings file nor a folder; give the folder of the photos (unpack archives first)"
        )
    table = open_table(address) if address else None
    stored = table.pick(NO_QUERIES, 0) if table else read_embeddings(gallery) if gallery.is_file() else None
    if stored is None and not gallery.is_dir():
        raise UsageError(f"--photos {gallery}: no such file or folder")
    if stored is not None and (embedder is None or embedder.weights.sha256 != stored.info.checkpoint):
        if embedder is not None and isinstance(embedder.weights, RunWeights):
            run = embedder.weights.home
        elif embedder is not None:
            raise _other_weights(stored.info, gallery, embedder.weights.label)
        # LanceDB has threads of its own, which the processes that load pictures would inherit half
        workers = 0 if table else workers
        embedder = Embedder(_weights_of(stored.info, gallery, run, model, runs), device, workers=workers)
    if embedder is None:
        embedder = Embedder(choose_weights(run, model, runs, which), device, workers=workers)
    if text:
        embedder.weights.check_text()
    notes, followed = [embedder.weights.note], None
    if stored is not None:
        notes.insert(0, _differing(stored, embedder, gallery))
    elif (gallery / "manifest.json").is_file():
        data = data_of(embedder.weights, gallery)
        stored = embed_part(embedder, data.prepared, Part.TEST, progress=progress)
        # the same set may have lain elsewhere when it was embedded
        stored = replace(stored, info=replace(stored.info, data_root=str(data.prepared.root.resolve())))
        notes.append(remark(data))
    else:
        followed = follow_folder(embedder, gallery, progress=progress)
        stored = read_embeddings(followed.path)
        if not embedder.accepts(stored.info):
            raise DataError(
                f"{followed.path}: replaced by another process meanwhile; run the same command again"
            )
    return Gallery(embedder, stored, followed, "; ".join(filter(None, notes)), table)


def _differing(stored: Embeddings, embedder: Embedder, path: Path) -> str:
    """A note when other library versions made the file. DataError when the preprocessing was another."""
    if stored.info.made in ("", embedder.made):
        return ""
    theirs, ours = _facts(stored.info.made), _facts(embedder.made)
    other = [key for key in ours if key != "versions" and ours[key] != theirs.get(key)]
    if other:
        raise DataError(
            f"{path}: made with a different {', '.join(other)} than these weights use now; embed the photos again with "
            "`zssbir embed --photos`"
        )
    now, then = ours["versions"], theirs.get("versions")
    names = sorted(n for n in now if not isinstance(then, dict) or now[n] != then.get(n))
    return f"{path} was made with another version of {', '.join(names)}; scores may differ slightly"


def _facts(made: str) -> dict[str, Any]:
    """What an embeddings file says of how it was made; nothing where that is no JSON object."""
    try:
        found = parsed(made)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _weights_of(
    info: EmbeddingInfo, path: Path, run: str | Path | None, model: str | None, runs: Path
) -> Weights:
    """The very weights that made an embeddings file, among those of the run or model that the user named, else of the
    one that the file names.

    Errors: DataError when they are not there: a sketch embedded by another model would be compared with nonsense.
    """
    if not info.checkpoint:
        raise DataError(f"{path}: does not say which weights made it; embed the photos with `zssbir embed`")
    if model is not None or (info.model and run is None):
        tower = TowerWeights(find_tower(model or info.model))
        if tower.sha256 == info.checkpoint:
            return tower
        raise _other_weights(info, path, tower.label)
    home = Path(info.run)
    candidate = home if run is None and home.is_dir() else find_run(run, runs).path
    for meta in sorted((candidate / "checkpoints").glob("*/meta.json")):
        try:
            found = parsed(meta.read_bytes())["sha256"]["model.safetensors"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{meta}: damaged ({error})") from error
        if found == info.checkpoint:
            return RunWeights(candidate, meta.parent.name)
    raise _other_weights(info, path, str(candidate))


def _other_weights(info: EmbeddingInfo, path: Path, tried: str) -> DataError:
    if info.model:
        made, how = f"model {info.model}", "name them with --model"
    else:
        made, how = f"run {info.run or '?'} (recipe {info.recipe or '?'})", "name their run with --run"
    return DataError(
        f"{path}: made with the weights {info.checkpoint[:12]} of {made}, which {tried} does not have; {how}, or embed "
        "the photos again with `zssbir embed --photos`"
    )
