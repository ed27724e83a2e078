"""Progress of an unfinished `prepare`: a small record per finished shard, so that a killed run continues."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from pydantic import BaseModel, ConfigDict, ValidationError

from zssbir_cli.data.manifest import MANIFEST_NAME, SHARD_PATTERN, ShardInfo
from zssbir_cli.errors import DataError
from zssbir_cli.files import file_sha256, write_json, write_text

WORK = ".work"
LOCK = ".lock"
REPORT_NAME = "report.txt"
Note = tuple[str, str, str]  # skipped | changed, source path, reason


class ShardRecord(BaseModel):
    """A finished shard: its manifest entry, the items of its group that it settles [first, next), and what
    was told about them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    info: ShardInfo
    first: int
    next: int
    notes: tuple[Note, ...]


@dataclass
class Journal:
    """The `.work` folder inside the output folder. One process at a time (`lock`)."""

    folder: Path

    @property
    def work(self) -> Path:
        """Where the records lie."""
        return self.folder / WORK

    def start(self, key: str) -> None:
        """Begin, or continue a run with the same plan; what another plan left is removed."""
        plan = self.work / "plan.json"
        try:
            same = json.loads(plan.read_text("utf-8")).get("key") == key
        except (OSError, ValueError, AttributeError):
            same = False
        if not same:
            self.clear()
            self.work.mkdir(parents=True, exist_ok=True)
            write_json(plan, {"key": key})

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

    def clear(self) -> None:
        """Remove the records and every shard of an unfinished run."""
        shutil.rmtree(self.work, ignore_errors=True)
        self._remove_shards(keep=set())

    def close(self, keep: set[str]) -> None:
        """The set is finished: remove the records, and shards that it does not list."""
        self._remove_shards(keep)
        shutil.rmtree(self.work, ignore_errors=True)

    def _remove_shards(self, keep: set[str]) -> None:
        for path in self.folder.iterdir():
            ours = re.match(SHARD_PATTERN, path.name.removesuffix(".partial"))
            if ours and path.name not in keep:
                path.unlink(missing_ok=True)


def is_ours(path: Path) -> bool:
    """Whether an unfinished `prepare` leaves such a file behind."""
    name = path.name.removesuffix(".partial")
    return name in (WORK, LOCK, REPORT_NAME, MANIFEST_NAME) or re.match(SHARD_PATTERN, name) is not None


class lock:
    """Context manager: only one `prepare` may write a folder at a time. No-op where flock does not exist."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK
        self._file: IO[bytes] | None = None

    def __enter__(self) -> "lock":
        try:
            import fcntl
        except ImportError:
            return self
        self._file = self.path.open("wb")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.close()
            raise DataError(f"{self.path.parent} is being written by another `zssbir prepare`") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
