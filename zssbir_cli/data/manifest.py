"""`manifest.json`: what a prepared data set contains. Checked on every read; written last, by renaming."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from zssbir_cli.errors import DataError
from zssbir_cli.types import ROLE_OF_PART, Modality, Part, Role

FORMAT_VERSION = 1
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 256 << 20
SHARD_PATTERN = r"^(train|holdout|val|test)-(sketch|photo)-\d{5}\.h5$"


def _modality(value: Any) -> Any:
    if isinstance(value, str) and value in ("sketch", "photo"):
        return Modality[value.upper()]
    if isinstance(value, Modality):
        return value
    raise ValueError("modality must be 'sketch' or 'photo'")


ModalityName = Annotated[Modality, BeforeValidator(_modality), PlainSerializer(lambda m: m.name.lower())]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ClassInfo(_Frozen):
    """A class: its id (the label in shards, unique over all roles), name and role."""

    id: int = Field(ge=0, lt=1 << 31)
    name: str = Field(min_length=1)
    role: Role


class ShardInfo(_Frozen):
    """A shard file. `sha256` is of what it holds (`shards.content_digest`), `file_sha256` of its bytes."""

    file: str = Field(pattern=SHARD_PATTERN)
    part: Part
    modality: ModalityName
    count: int = Field(ge=1)
    bytes: int = Field(ge=1)
    sha256: Sha256
    file_sha256: Sha256 | None = None


class SourceInfo(_Frozen):
    """Where images came from. `sha256` is of an archive's bytes, or of a folder's list of names and sizes."""

    name: str
    kind: str
    files: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: Sha256


class Leak(_Frozen):
    """A training class or image that is also a test class or image; recorded when the user allowed it."""

    kind: str = Field(
        description="`class`, `image` (same content) or `id` (list ids that contradict the names)."
    )
    what: str
    where: str


class Manifest(_Frozen):
    """All of a prepared data set but its images. Construction fails when roles overlap or a shard's part does
    not fit its name; labels are checked against roles when shards are read."""

    format_version: int = FORMAT_VERSION
    name: str = Field(min_length=1)
    split: str = Field(min_length=1)
    classes: tuple[ClassInfo, ...] = Field(min_length=1)
    shards: tuple[ShardInfo, ...]
    sources: tuple[SourceInfo, ...] = ()
    options: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    skipped: int = Field(0, ge=0, description="Images left out; named in skipped.txt.")
    warnings: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    tool_version: str

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        if self.format_version != FORMAT_VERSION:
            raise ValueError(
                f"format version {self.format_version} is not {FORMAT_VERSION}; prepare the set again"
            )
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids are not 0, 1, 2, ... in order")
        names: dict[str, Role] = {}
        for c in self.classes:
            if c.name in names:
                raise ValueError(f"class {c.name!r} appears as {names[c.name]} and as {c.role}")
            names[c.name] = c.role
        if len({s.file for s in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")
        for s in self.shards:
            if not s.file.startswith(f"{s.part}-{s.modality.name.lower()}-"):
                raise ValueError(f"shard {s.file} is listed as {s.part} {s.modality.name.lower()}")
        return self

    @property
    def counts(self) -> dict[tuple[Part, Modality], int]:
        """Images per part and modality (only those that hold any)."""
        result: dict[tuple[Part, Modality], int] = {}
        for s in self.shards:
            result[s.part, s.modality] = result.get((s.part, s.modality), 0) + s.count
        return result

    @property
    def identity(self) -> str:
        """16 hex digits that depend on the split, the classes and the stored images, and on nothing else."""
        facts = {
            "split": self.split,
            "classes": [[c.id, c.name, c.role] for c in self.classes],
            "shards": [[s.part, int(s.modality), s.count, s.sha256] for s in self.shards],
        }
        return hashlib.sha256(json.dumps(facts, ensure_ascii=True).encode()).hexdigest()[:16]

    def classes_of(self, role: Role) -> list[ClassInfo]:
        """The classes of one role, by id."""
        return [c for c in self.classes if c.role == role]

    def ids_for(self, part: Part) -> list[int]:
        """The labels that may occur in a part."""
        return [c.id for c in self.classes if c.role == ROLE_OF_PART[part]]


def write_manifest(folder: Path, manifest: Manifest) -> Path:
    """Write `manifest.json` completely or not at all; returns its path."""
    path = folder / MANIFEST_NAME
    write_atomically(path, (manifest.model_dump_json(indent=1) + "\n").encode("utf-8"))
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Raises:
        DataError: no manifest there, not JSON, another format version, or an inconsistent content.
    """
    path = folder / MANIFEST_NAME
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DataError(f"{path} is larger than {MAX_MANIFEST_BYTES >> 20} MiB: not a manifest of zssbir")
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{folder} is not a prepared data set (no {MANIFEST_NAME}); make one with `zssbir prepare`"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{path} is damaged or not a manifest: {where + ': ' if where else ''}{reason}"
        ) from None


def write_atomically(path: Path, data: bytes) -> None:
    """Write a small file so that it is there whole or not at all, also after a power cut."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
