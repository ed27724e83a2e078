"""A folder before a set is built into it: free, held by this process alone, and without this very set already."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from zssbir_cli.data.manifest import MANIFEST_NAME, NEAR, Manifest, read_manifest, write_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError
from zssbir_cli.files import Lock, Locked, file_sha256, reason
from zssbir_cli.names import readable
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.journal import LOCK, WORK, Journal, is_ours
from zssbir_cli.preparation.leaks import refuse
from zssbir_cli.preparation.plan import PreparePlan
from zssbir_cli.preparation.reading import available_cores, content_of
from zssbir_cli.progress import Progress, Say


@contextlib.contextmanager
def alone(out: Path) -> Iterator[None]:
    """Hold `out` for this process; a finished set in a folder that cannot be written needs no lock.

    Errors: DataError: another process is at work there, or the folder cannot be made or written.
    """
    lock = Lock(out / LOCK, "zssbir prepare")
    try:
        lock.__enter__()
    except Locked:
        raise
    except OSError as error:
        if not (out / MANIFEST_NAME).is_file():
            raise DataError(f"{readable(str(out))} cannot be written: {reason(error)}") from None
        yield
        return
    with contextlib.ExitStack() as stack:
        stack.push(lock)
        yield


def check_free(out: Path) -> None:
    """Raises DataError when `out` holds anything but a prepared set or an unfinished one."""
    try:
        foreign = (
            out.exists()
            and not (out / MANIFEST_NAME).exists()
            and not all(is_ours(path) for path in out.iterdir())
        )
    except OSError as error:
        raise DataError(f"{readable(str(out))} cannot be read: {reason(error)}") from None
    if foreign:
        raise DataError(
            f"{readable(str(out))} is not empty and not a prepared set; choose another folder with --out"
        )


def check_options(out: Path, options: Mapping[str, object], images: int | None = None) -> None:
    """Refuse a folder that is not free, or holds a set of other options or of another number of `images`, before the
    pictures of a new one are made, downloaded or unpacked. Errors: DataError."""
    check_free(out)
    if (out / MANIFEST_NAME).exists():
        manifest = _manifest(out)
        count = sum(manifest.counts.values()) + manifest.skipped
        if images not in (None, count) or any(
            manifest.options.get(key) != value for key, value in options.items()
        ):
            raise _other(out, manifest)


def _manifest(out: Path) -> Manifest:
    try:
        return read_manifest(out)
    except DataError as error:
        raise DataError(f"{error}; delete the folder to prepare it again") from None


def _other(out: Path, manifest: Manifest) -> DataError:
    return DataError(
        f"{readable(str(out))} holds {manifest.name} ({manifest.split}), prepared from other files or options, or by "
        "another version; choose another folder with --out, or delete it"
    )


def finished_set(
    plan: PreparePlan, out: Path, choices: Choices, say: Say, progress: Progress
) -> Manifest | None:
    """The manifest when `out` already holds this very set, whole and made of the same files. Clears a damaged one.

    Errors: DataError: `out` holds another set.
    """
    if not (out / MANIFEST_NAME).exists():
        return None
    manifest = _manifest(out)
    if manifest.options.get("plan") != plan.key:
        raise _other(out, manifest)
    manifest = _same_files(plan, out, manifest, choices=choices, say=say, progress=progress)
    refused = [leak for leak in manifest.leaks if leak.kind != NEAR]
    if refused and not choices.allow_leak:
        refuse(refused)
    damage = _damage(out)
    if damage:
        say(f"{damage}; preparing it again")
        (out / MANIFEST_NAME).unlink()
        Journal(out).clear()
        return None
    shutil.rmtree(out / WORK, ignore_errors=True)
    return manifest


def _same_files(
    plan: PreparePlan, out: Path, manifest: Manifest, choices: Choices, say: Say, progress: Progress
) -> Manifest:
    """The manifest, once it is sure that the source files are those that the set was made of.

    Errors: DataError: they have changed.
    """
    where = readable(str(out))
    if manifest.files_content is None:
        say(
            f"{where} was prepared by an older version, which kept no record of its files: it is used as it is; "
            f"delete it to prepare it again"
        )
    elif manifest.files_state != plan.state:
        if content_of(plan, choices.workers, progress) != manifest.files_content:
            raise DataError(
                f"{where} was prepared from files that have changed since; choose another folder with --out, or "
                f"delete it"
            )
        manifest = manifest.model_copy(update={"files_state": plan.state})
        with contextlib.suppress(OSError):  # else they are compared again next time
            write_manifest(out, manifest)
    return manifest


def _damage(out: Path) -> str:
    """What is wrong with the shards ("" = nothing): missing, cut short, or with other bytes."""
    try:
        prepared = PreparedSet.open(out)
        shards = [s for s in prepared.manifest.shards if s.file_sha256 is not None]
        with ThreadPoolExecutor(available_cores()) as pool:
            sums = list(pool.map(lambda s: file_sha256(out / s.file), shards))
    except DataError as error:
        return str(error)
    bad = [s.file for s, found in zip(shards, sums, strict=True) if found != s.file_sha256]
    return f"{readable(str(out / bad[0]))} is damaged" if bad else ""
