"""Reading a prepared data set: images by number, read straight from the shards' files."""

import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zssbir_cli.arrays import Ints, UInt8
from zssbir_cli.data.manifest import Manifest, read_manifest
from zssbir_cli.data.open_files import OpenFiles
from zssbir_cli.data.shards import ShardIndex, read_index, read_sources
from zssbir_cli.errors import DataError
from zssbir_cli.files import reason
from zssbir_cli.types import Modality, Part


class ImageSet:
    """The images of one part and modality, across shards, in the manifest's order.

    Can be read from several threads, pickled, and carried across fork (`OpenFiles`). Not memory maps: a file
    that is cut short while it is in use would kill the process. `labels`: int32 [N]. `squared`: the images are network inputs already
    (`prepare --square`). `on_white`: sketches were made dark on white when they were prepared.
    """

    def __init__(
        self,
        part: Part,
        modality: Modality,
        shards: list[ShardIndex],
        squared: bool = False,
        on_white: bool = True,
    ) -> None:
        self.part, self.modality, self.squared, self.on_white = part, modality, squared, on_white
        self.labels: npt.NDArray[np.int32] = (
            np.concatenate([s.labels for s in shards]) if shards else np.empty(0, np.int32)
        )
        self._shards = shards
        self._starts = np.cumsum([0] + [len(s.labels) for s in shards])
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def sources(self) -> list[str]:
        """Original relative path of each image."""
        return [name for shard in self._shards for name in read_sources(shard.path)]

    def read(self, i: int) -> UInt8:
        """Encoded bytes of image `i`, uint8 [n], read-only. Raises DataError (unreadable, cut short, damaged)."""
        shard, row = self._locate(i)
        index = self._shards[shard]
        return self._bytes(shard, index.blob_at, index.offsets, index.crc32, row)

    def read_mask(self, i: int) -> npt.NDArray[np.bool_] | None:
        """Object mask of image `i`, bool [H, W]; None when it has none."""
        shard, row = self._locate(i)
        index = self._shards[shard]
        if index.mask_offsets is None or index.mask_offsets[row] == index.mask_offsets[row + 1]:
            return None
        from zssbir_cli.data.images import decode_mask

        return decode_mask(self._bytes(shard, index.mask_at, index.mask_offsets, index.mask_crc32, row))

    def _locate(self, i: int) -> tuple[int, int]:
        if not 0 <= i < len(self.labels):
            raise IndexError(f"image {i} of {len(self.labels)}")
        shard = int(np.searchsorted(self._starts, i, side="right")) - 1
        return shard, i - int(self._starts[shard])

    def _bytes(
        self, shard: int, at: int, offsets: Ints, crc32: npt.NDArray[np.uint32] | None, row: int
    ) -> UInt8:
        path, size = self._shards[shard].path, int(offsets[row + 1] - offsets[row])
        try:
            data = self._files.read(path, at + int(offsets[row]), size)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {reason(error)}") from None
        if len(data) != size:
            raise DataError(f"{path} was cut short; run the same `zssbir prepare` command again")
        if crc32 is not None and zlib.crc32(data) != crc32[row]:
            raise DataError(
                f"{path} is damaged at its image {row}; run the same `zssbir prepare` command again"
            )
        return np.frombuffer(data, np.uint8)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "sources"}


@dataclass(frozen=True)
class ImageRows:
    """Some images of a part: their numbers in it, ascending."""

    part: Part
    modality: Modality
    index: Ints


class PreparedSet:
    """A prepared data set (the folder that `zssbir prepare` writes), opened for reading."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root, self.manifest = root, manifest

    @classmethod
    def open(cls, path: str | Path) -> "PreparedSet":
        """Open and check a prepared data set (manifest, and each shard's presence and size).

        Errors: DataError: not a prepared set, damaged, incomplete, or mixing seen and unseen classes.
        """
        root = Path(path)
        manifest = read_manifest(root)
        for shard in manifest.shards:
            file = root / shard.file
            size = file.stat().st_size if file.is_file() else -1
            if size != shard.bytes:
                found = "is missing" if size < 0 else f"has {size} bytes instead of {shard.bytes}"
                raise DataError(f"{file} {found}; run the same `zssbir prepare` command again")
        return cls(root, manifest)

    @property
    def identity(self) -> str:
        """16 hex digits that name what the set contains."""
        return self.manifest.identity

    @property
    def classes(self) -> list[str]:
        """Class names; the index is the label, over all roles."""
        return [c.name for c in self.manifest.classes]

    def images(self, part: Part, modality: Modality) -> ImageSet:
        """The images of a part and modality; an empty set when there are none.

        Errors: DataError: a shard is damaged, or holds a label that its part must not hold.
        """
        wanted = [s for s in self.manifest.shards if (s.part, s.modality) == (part, modality)]
        allowed = np.asarray(self.manifest.ids_for(part), np.int32)
        indexes = []
        for info in wanted:
            index = read_index(self.root / info.file)
            if index.sha256 != info.sha256 or len(index.labels) != info.count or index.part != part:
                raise DataError(f"{index.path} is not the shard its manifest lists; prepare the set again")
            if bool((index.modality != int(modality)).any()):
                raise DataError(f"{index.path} mixes sketches and photos; prepare the set again")
            foreign = np.setdiff1d(index.labels, allowed)
            if len(foreign):
                raise DataError(
                    f"{index.path} ({part}) holds {self._name(int(foreign[0]))}; prepare the set again"
                )
            indexes.append(index)
        options = self.manifest.options
        return ImageSet(part, modality, indexes, bool(options.get("square")), "ground" in options)

    def _name(self, label: int) -> str:
        known = 0 <= label < len(self.manifest.classes)
        if not known:
            return f"the unknown label {label}"
        info = self.manifest.classes[label]
        return f"images of the {info.role} class {info.name!r}"
