"""A run as one file for a colleague: a zip with weights, recipe, classes and reports, without the optimizer's state."""

import hashlib
import re
import secrets
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

from zssbir_cli.engine.meta import EXPORTED, meta_text, read_meta
from zssbir_cli.errors import CheckpointError, UsageError
from zssbir_cli.files import PARTIAL, STALE_SECONDS, cache_folder, file_sha256, reason, replacing
from zssbir_cli.names import file_part

SUFFIX = ".zip"
MODEL, META = "model.safetensors", "meta.json"
BEST = "checkpoints/best"
PLAIN = ("recipe.yaml", "run.json", "metrics.jsonl")
REPORTS = (".json", ".npz", ".html", ".md", ".svg", ".png")
MOST_FILES = 2000
GROWTH, ALLOWANCE = 20, 16 << 20
"""A bundle may unpack to so many times its size, and so many bytes more."""
ALLOWED = re.compile(
    rf"({'|'.join(map(re.escape, PLAIN))}|{BEST}/({re.escape(MODEL)}|{re.escape(META)})"
    rf"|eval/([^/\\:]+/)*[^/\\:]+({'|'.join(map(re.escape, REPORTS))}))"
)


def pack_run(run: Path, checkpoint: Path, out: Path) -> Path:
    """Write a run with one checkpoint (in the place of its best) into the file `out`.

    Errors: UsageError; CheckpointError: it is damaged, is replaced meanwhile, or `out` cannot be written.
    """
    if out.suffix.lower() != SUFFIX:
        raise UsageError(f"--out {out}: a run is exported as a {SUFFIX} file")
    try:
        meta = read_meta(checkpoint / META)
        meta["sha256"] = {MODEL: meta["sha256"][MODEL]}  # without the state that resuming needs
        if checkpoint.name != PurePosixPath(BEST).name:
            meta.setdefault(EXPORTED, checkpoint.name)
        with replacing(out) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as bundle:
            bundle.writestr(f"{BEST}/{META}", meta_text(meta))
            bundle.write(checkpoint / MODEL, f"{BEST}/{MODEL}", zipfile.ZIP_STORED)  # weights do not shrink
            for name, file in _extras(run):
                bundle.write(file, name)
            bundle.close()
            with zipfile.ZipFile(partial) as packed, packed.open(f"{BEST}/{MODEL}") as weights:
                if hashlib.file_digest(weights, "sha256").hexdigest() != meta["sha256"][MODEL]:  # type: ignore[arg-type]
                    raise ValueError(
                        f"{MODEL} is damaged, or training has just replaced it: run the same command again"
                    )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{run}: cannot be exported to {out} ({reason(error)})") from error
    return out


def _extras(run: Path) -> Iterator[tuple[str, Path]]:
    for name in PLAIN:
        if (run / name).is_file():
            yield name, run / name
    for file in sorted((run / "eval").rglob("*")):
        if file.is_file() and file.suffix in REPORTS:
            yield file.relative_to(run).as_posix(), file


def unpack_run(bundle: Path) -> Path:
    """The folder of a bundle's run in the user's cache, unpacked there on first use.

    Errors: CheckpointError: not a bundle, damaged, or with files that a bundle does not have (then nothing is kept).
    """
    target = cache_folder() / "runs" / f"{file_part(bundle.stem)}-{file_sha256(bundle)[:16]}"
    if target.is_dir():
        return target
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}{PARTIAL}")
    _remove_old(target.parent)
    try:
        with zipfile.ZipFile(bundle) as packed:
            _check(bundle, packed.infolist())
            for entry in packed.infolist():
                place = partial / entry.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, place.open("xb") as sink:
                    shutil.copyfileobj(source, sink)  # no more than the entry's size, and its CRC is checked
        meta = read_meta(partial / BEST / META)
        if file_sha256(partial / BEST / MODEL) != meta["sha256"][MODEL]:
            raise ValueError(f"{MODEL} is damaged: its sha256 is not the one in {META}")
        (partial / BEST / META).touch()  # later than the weights: see `checkpoint.inspect`
        if not target.is_dir():  # another process may have been quicker
            partial.rename(target)
    except Exception as error:  # zipfile and its decoders raise almost any type on damaged files
        if not target.is_dir():
            raise CheckpointError(f"{bundle}: cannot be used as a run ({reason(error)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _remove_old(folder: Path) -> None:
    """Remove what killed processes unpacked in part, more than a day ago."""
    for left in folder.glob(f".*{PARTIAL}"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _check(bundle: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Refuse names that a bundle does not have, and more than it could hold. Raises ValueError."""
    if len(entries) > MOST_FILES:
        raise ValueError(f"it holds {len(entries)} files")
    for entry in entries:
        if not ALLOWED.fullmatch(entry.filename) or ".." in PurePosixPath(entry.filename).parts:
            raise ValueError(f"it holds {entry.filename[:80]!r}, which is not part of a run")
    total = sum(entry.file_size for entry in entries)
    if total > GROWTH * bundle.stat().st_size + ALLOWANCE:
        raise ValueError(f"its files would take {total >> 20} MiB")
