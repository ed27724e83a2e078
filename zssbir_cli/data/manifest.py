"""`manifest.json`: what a prepared data set contains. Checked on every read; written last, by renaming."""

import hashlib
import json
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
from zssbir_cli.files import reason, write_text
from zssbir_cli.types import ROLE_OF_PART, Modality, Part, Role

FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no checksum per image, marks leaked classes in their names, and keeps no digest of the sources."""
MANIFEST_NAME = "manifest.json"
MAX_MANIFEST_BYTES = 256 << 20
MAX_NAME_BYTES = 200
SHARD_PATTERN = r"^(train|holdout|val|test)-(sketch|photo)-\d{5}\.h5$"


NEAR = "near copy"
"""The kind of leaks that are seen by their looks: recorded and told, never refused."""
OLD_MARK = " [leaked]"
"""Part of the identity of sets that hold leaked classes."""


def _modality(value: Any) -> Any:
    if isinstance(value, str) and value in ("sketch", "photo"):
        return Modality[value.upper()]
    if isinstance(value, Modality):
        return value
    raise ValueError("modality must be 'sketch' or 'photo'")


ModalityName = Annotated[Modality, BeforeValidator(_modality), PlainSerializer(lambda m: m.word)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def name_fault(name: str) -> str:
    """What keeps a data set's name from being part of a path ("" = nothing)."""
    if not name.strip() or name != name.strip():
        return "is empty, or begins or ends with a space"
    if name.startswith(".") or set(name) & set("/\\"):
        return "begins with a dot, or holds a slash"
    if not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        return f"holds characters that do not print, or is longer than {MAX_NAME_BYTES} bytes"
    return ""


class ClassInfo(_Frozen):
    """A class: its id (the label in shards, unique over all roles), name and role.

    `leaked`: the training images of a class that is an unseen class too; recorded when the user allowed it.
    """

    id: int = Field(ge=0, lt=1 << 31)
    name: str = Field(min_length=1)
    role: Role
    leaked: bool = False


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
    """A training class or image that is also a test class or image; recorded when the user allowed it, a `NEAR` one
    always."""

    kind: str = Field(
        description="`class`; `image`, `val image`, `holdout image` (a training image that is byte for byte a test, "
        "validation or hold-out image); `near copy` (a photo that looks the same as one of those: saved again); or `id` "
        "(list ids that contradict the names)."
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
    options: dict[str, bool | int | float | str | None] = Field(default_factory=dict)
    skipped: int = Field(0, ge=0, description="Images left out; named in report.txt.")
    warnings: tuple[str, ...] = ()
    leaks: tuple[Leak, ...] = ()
    files_state: Sha256 | None = Field(
        None, description="Digest of the source files' names, sizes and times."
    )
    files_content: Sha256 | None = Field(None, description="What names the source files' bytes.")
    tool_version: str

    @model_validator(mode="before")
    @classmethod
    def _without_marks(cls, data: Any) -> Any:
        """Version 1 called a leaked training class `cup [leaked]`."""
        if not isinstance(data, dict) or data.get("format_version") != 1 or not data.get("leaks"):
            return data
        try:
            marked = {
                leak["what"] + OLD_MARK: leak["what"] for leak in data["leaks"] if leak["kind"] == "class"
            }
            classes = [
                {**c, "name": marked[c["name"]], "leaked": True} if c["name"] in marked else c
                for c in data["classes"]
            ]
        except (KeyError, TypeError):
            return data  # not a manifest; said by the checks that follow
        return {**data, "classes": classes}

    @model_validator(mode="after")
    def _check(self) -> "Manifest":
        if self.format_version not in READABLE_VERSIONS:
            raise ValueError(
                f"format version {self.format_version} is not {FORMAT_VERSION}; prepare the set again"
            )
        if fault := name_fault(self.name):
            raise ValueError(f"the name {self.name!r} {fault}")
        if [c.id for c in self.classes] != list(range(len(self.classes))):
            raise ValueError("class ids are not 0, 1, 2, ... in order")
        names: dict[tuple[str, bool], Role] = {}
        for c in self.classes:
            known = names.setdefault((c.name, c.leaked), c.role)
            if known is not c.role or len(names) <= c.id:
                raise ValueError(f"class {c.name!r} appears as {known} and as {c.role}")
        if len({s.file for s in self.shards}) != len(self.shards):
            raise ValueError("a shard is listed twice")
        for s in self.shards:
            if not s.file.startswith(f"{s.part}-{s.modality.word}-"):
                raise ValueError(f"shard {s.file} is listed as {s.part} {s.modality.word}")
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
            "classes": [[c.id, c.name + OLD_MARK * c.leaked, c.role] for c in self.classes],
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
    write_text(path, manifest.model_dump_json(indent=1) + "\n")
    return path


def read_manifest(folder: Path) -> Manifest:
    """Read and check a manifest.

    Errors: DataError: no manifest there, not JSON, another format version, or an inconsistent content.
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
        raise DataError(f"{path} cannot be read: {reason(error)}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(p) for p in first["loc"])
        fault = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{path} is damaged or not a manifest: {where + ': ' if where else ''}{fault}"
        ) from None
