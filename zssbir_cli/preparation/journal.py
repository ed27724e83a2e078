"""Progress of an unfinished `prepare`: a small record per finished shard, so that a killed run continues."""

import re
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zssbir_cli import __version__
from zssbir_cli.data.manifest import MANIFEST_NAME, SHARD_PATTERN, ShardInfo
from zssbir_cli.errors import DataError
from zssbir_cli.files import file_sha256, finished_name, parsed, write_json, write_text
from zssbir_cli.preparation.leaks import Note

WORK = ".work"
LOCK = ".lock"
REPORT_NAME = "report.txt"


class ShardRecord(BaseModel):
    """A finished shard: its manifest entry, the items of its group that it settles [first, next), and what
    was told about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    info: ShardInfo
    first: int
    next: int
    notes: tuple[Note, ...]
    content: str = Field(pattern=r"^[0-9a-f]{64}$", description="`reading.Content` of the items, as hex.")
    looks: str = Field(
        pattern=r"^[0-9a-f]*$", description="Of photos: their looks (`looks`), one after another, as hex."
    )


@dataclass
class Journal:
    """The `.work` folder inside the output folder; one process at a time (`finished.alone`)."""

    folder: Path

    @property
    def work(self) -> Path:
        """Where the records lie."""
        return self.folder / WORK

    def start(self, key: str, state: str) -> None:
        """Begin, or continue a run with the same plan on the same files, by the same version; what another run
        left is removed."""
        if not self.is_of(key, state):
            self.clear()
            self.work.mkdir(parents=True, exist_ok=True)
            write_json(self.work / "plan.json", _facts(key, state))

    def is_of(self, key: str, state: str) -> bool:
        """Whether what lies here was left by a run with the same plan on the same files, by the same version."""
        try:
            found: object = parsed((self.work / "plan.json").read_bytes())
        except (OSError, ValueError):
            return False
        return found == _facts(key, state)

    def record(self, record: ShardRecord) -> None:
        """Note a finished shard; it counts from here on."""
        write_text(self.work / (record.info.file + ".json"), record.model_dump_json())

    def finished(self, prefix: str) -> list[ShardRecord]:
        """The unbroken run of finished shards of one group, in order; later ones are removed."""
        records: list[ShardRecord] = []
        while True:
            shard = self.folder / f"{prefix}-{len(records):05d}.h5"
            record = self._read(shard)
            if record is None or record.first != (records[-1].next if records else 0):
                return records
            records.append(record)

    def _read(self, shard: Path) -> ShardRecord | None:
        try:
            data = (self.work / (shard.name + ".json")).read_bytes()
            record = ShardRecord.model_validate_json(data)
            whole = record.info.file == shard.name and shard.stat().st_size == record.info.bytes
            return record if whole and file_sha256(shard) == record.info.file_sha256 else None
        except (OSError, ValidationError, DataError):
            return None

    def clear(self, keep: Collection[str] = ()) -> None:
        """Remove the shards that a finished set does not list (of an unfinished one all of them), then the records."""
        for path in self.folder.iterdir():
            unfinished = finished_name(path.name) != path.name and is_ours(path)
            shard = re.match(SHARD_PATTERN, path.name) is not None
            if unfinished or (shard and path.name not in keep):
                path.unlink(missing_ok=True)
        shutil.rmtree(self.work, ignore_errors=True)


def is_ours(path: Path) -> bool:
    """Whether an unfinished `prepare` leaves such a file behind."""
    name = finished_name(path.name)
    return name in (WORK, LOCK, REPORT_NAME, MANIFEST_NAME) or re.match(SHARD_PATTERN, name) is not None


def _facts(key: str, state: str) -> dict[str, str]:
    return {"key": key, "state": state, "version": __version__}
