"""Embeddings of a prepared set's parts: those on disk where they are proven to be right, else computed."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import Subset

from zssbir_cli.compute import distributed
from zssbir_cli.data.embeddings import Embeddings, Rows, read_embeddings, write_embeddings
from zssbir_cli.data.prepared import ImageRows, PreparedSet
from zssbir_cli.data.shards import content_digest
from zssbir_cli.data.stage import Stage, blocks_of
from zssbir_cli.embedding.embedder import Embedder
from zssbir_cli.embedding.weights import embeddings_file
from zssbir_cli.errors import DataError
from zssbir_cli.inputs.datasets import EvalImages
from zssbir_cli.names import file_part
from zssbir_cli.progress import Progress, silent
from zssbir_cli.types import Modality, Part


def embed_part(
    embedder: Embedder, prepared: PreparedSet, part: Part, *, force: bool = False, progress: Progress = silent
) -> Embeddings:
    """Embeddings of the sketches and photos of one part: the file where it is fresh, else embedded now.

    Errors: DataError: the part is empty, a shard is damaged, the disk is full.
    """
    whole = [ImageRows(part, m, np.arange(len(prepared.images(part, m)), dtype=np.int64)) for m in Modality]
    return _Job(embedder, prepared, whole, "", progress).result(force)


def embed_choice(
    embedder: Embedder, prepared: PreparedSet, choice: ImageRows, *, progress: Progress = silent
) -> Embeddings:
    """Embeddings of some images of a part, as `embed_part`; one row per number of `choice.index`, in that order."""
    drawn = hashlib.sha256(np.ascontiguousarray(choice.index, np.int64).tobytes()).hexdigest()[:16]
    name = f"{choice.modality.word}-{drawn}"
    return _Job(embedder, prepared, [choice], name, progress).result(False)


def embeddings_path(home: Path, which: str, prepared: PreparedSet, part: Part, selection: str = "") -> Path:
    """Where embeddings of a part of a data set, or of a selection of it, are kept below a run's folder or a tower's."""
    tail = f"{part}-{selection}" if selection else str(part)
    name = f"{which}-{file_part(prepared.manifest.name)}-{prepared.identity[:8]}-{tail}.h5"
    return embeddings_file(home, name)


@dataclass(frozen=True)
class _Job:
    """Some images of one part of a prepared set, to be embedded with the same weights."""

    embedder: Embedder
    prepared: PreparedSet
    choices: list[ImageRows]
    selection: str
    progress: Progress

    @property
    def path(self) -> Path:
        e, part = self.embedder, self.choices[0].part
        return embeddings_path(e.weights.home, e.weights.which, self.prepared, part, self.selection)

    def result(self, force: bool) -> Embeddings:
        """The file where it is fresh; every rank returns the same."""
        found = None if force else self.fresh()
        if distributed.from_main(found is not None):
            return found or read_embeddings(self.path)
        if not any(len(c.index) for c in self.choices):
            raise DataError(f"{self.prepared.root}: the part {self.choices[0].part} is empty")
        if distributed.is_main():
            self.check_shards()
        self.embed()
        distributed.barrier()
        if distributed.is_main():
            self.write()
        distributed.barrier()
        written = self.fresh()
        if written is None:
            raise DataError(f"{self.path}: replaced by another process meanwhile; run the same command again")
        return written

    def fresh(self) -> Embeddings | None:
        """What is on disk, if these images, weights and preprocessing made it and it is undamaged."""
        try:
            found = read_embeddings(self.path)
        except DataError:
            return None
        same = (found.info.data_identity, found.info.selection) == (self.prepared.identity, self.selection)
        return found if same and self.embedder.accepts(found.info) else None

    def check_shards(self) -> None:
        """Compare the images with the manifest, whose identity will stand for them. Raises DataError."""
        part, kinds = self.choices[0].part, {c.modality for c in self.choices}
        for shard in self.prepared.manifest.shards:
            if shard.part == part and shard.modality in kinds:
                file = self.prepared.root / shard.file
                if content_digest(file) != shard.sha256:
                    raise DataError(
                        f"{file} is damaged: its checksum is not the manifest's; prepare the set again"
                    )

    def stage(self, choice: ImageRows) -> Stage:
        """The finished batches of one choice."""
        e = self.embedder
        key = {
            "checkpoint": e.weights.sha256, "made": e.made, "precision": e.precision.name, "batch": e.batch,
            "data": self.prepared.identity, "modality": choice.modality.name,
        }  # fmt: skip
        return Stage(self.path, key)

    def batches(self, choice: ImageRows) -> list[range]:
        """Places in `choice.index` of each batch."""
        return blocks_of(len(choice.index), self.embedder.batch)

    def embed(self) -> None:
        """Put this rank's share of the batches that are missing on their stages."""
        size, crop = self.embedder.size, self.embedder.sketch_crop
        for choice in self.choices:
            stage = self.stage(choice)
            share = self.batches(choice)[distributed.rank() :: distributed.world_size()]
            todo = [b for b in share if stage.rows(b, "rows") is None]
            label = f"embedding {self.prepared.manifest.name} {choice.part} {choice.modality.word}"
            done, total = (
                len(choice.index) - distributed.world_size() * sum(map(len, todo)),
                len(choice.index),
            )
            self.progress(label, max(0, done), total)
            images = EvalImages(self.prepared.images(choice.part, choice.modality), size, crop)
            chosen = Subset(images, choice.index.tolist())
            for batch, rows in zip(todo, self.embedder.batches(chosen, choice.modality, todo), strict=True):
                stage.put_rows(batch, rows=rows.cpu().numpy())
                done += distributed.world_size() * len(batch)
                self.progress(label, min(max(0, done), total), total)

    def write(self) -> None:
        """Join the batches into the file."""
        labels, kinds, sources = [], [], []
        for choice in self.choices:
            images = self.prepared.images(choice.part, choice.modality)
            labels.append(images.labels[choice.index])
            kinds.append(np.full(len(choice.index), int(choice.modality), np.uint8))
            sources += [images.sources[i] for i in choice.index]
        manifest = self.prepared.manifest
        info = self.embedder.info(
            data_name=manifest.name, data_identity=self.prepared.identity, split=manifest.split,
            data_root=str(self.prepared.root.resolve()), part=str(self.choices[0].part),
            selection=self.selection, classes=tuple(self.prepared.classes),
        )  # fmt: skip
        try:
            write_embeddings(
                self.path, self.blocks(), np.concatenate(labels), np.concatenate(kinds), sources, info
            )
        except DataError:
            if self.fresh() is None:  # unless another process has just written the same
                raise
        for choice in self.choices:
            self.stage(choice).remove()

    def blocks(self) -> Iterator[Rows]:
        """All rows, batch by batch."""
        for choice in self.choices:
            for block in self.stage(choice).all_rows(self.batches(choice), "rows"):
                yield block["rows"]
