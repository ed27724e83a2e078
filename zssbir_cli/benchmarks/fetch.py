"""Where a benchmark's files are: in the usual places, or on the web (tried in turn), or a clear message."""

from dataclasses import dataclass
from pathlib import Path

from zssbir_cli.benchmarks.download import DownloadFailed, download
from zssbir_cli.benchmarks.splits import read_table
from zssbir_cli.errors import DataError
from zssbir_cli.progress import Say

RAW = Path("data/raw")


@dataclass(frozen=True)
class File:
    """One file to fetch: its name here and where it is. `drive`: the id of a file on Google Drive."""

    name: str
    holds: str
    url: str = ""
    drive: str = ""
    sha256: str = ""

    @property
    def address(self) -> str:
        """An address a person can open."""
        return self.url or f"https://drive.google.com/file/d/{self.drive}/view"


WAYS: dict[str, tuple[tuple[File, ...], ...]] = {
    dataset: tuple(tuple(File(**file) for file in way) for way in ways)
    for dataset, ways in read_table("downloads.yaml").items()
}
"""Ways to a complete data set, best first."""
FOLDERS = {
    "sketchy": ("Sketchy", "sketchy"),
    "tuberlin": ("TUBerlin", "TU-Berlin", "tuberlin"),
    "quickdraw": ("QuickDraw", "Quickdraw", "quickdraw"),
}


def usual_places(dataset: str) -> list[Path]:
    """Folders named like the data set, or complete files that an earlier download left, below the working
    folder (`.`, `data/raw`, `datasets`). Raises DataError when such a file is damaged."""
    for base in (Path(), RAW, Path("datasets"), Path("dataset")):
        for name in FOLDERS[dataset]:
            if (base / name).is_dir():
                return [base / name]
    for way in WAYS[dataset]:
        if all((RAW / file.name).is_file() for file in way):
            try:
                return [
                    _download(file, lambda text: None) for file in way
                ]  # compares them with their checksums
            except DownloadFailed as error:
                raise DataError(str(error)) from None
    return []


def fetch(dataset: str, say: Say) -> list[Path]:
    """Download a complete set of files into `data/raw`, trying each way in turn.

    Errors: DataError: every way failed; before, `say` is told what to fetch by hand, from where, and how to continue.
    """
    for way in WAYS[dataset]:
        paths = []
        try:
            for file in way:
                paths.append(_download(file, say))
            return paths
        except DownloadFailed as error:
            say(str(error))
    for line in by_hand(dataset):
        say(line)
    needed = " and ".join(f"{file.address} as {RAW / file.name}" for file in WAYS[dataset][0])
    raise DataError(
        f"{dataset} could not be downloaded; put {needed} by hand, and run `zssbir prepare {dataset}` again"
    )


def _download(file: File, say: Say) -> Path:
    """The file, over https; where the server has none, over http."""
    target = RAW / file.name
    try:
        return download(file.address, file.drive, target, file.sha256, say)
    except DownloadFailed as error:
        if file.drive or not file.url.startswith("https://") or not error.no_connection:
            raise
        say(f"{error}; trying without encryption")
        return download(file.url.replace("https://", "http://", 1), "", target, file.sha256, say)


def by_hand(dataset: str) -> list[str]:
    """What to do when no download works, in lines: which files, from where, and how to continue."""
    lines = [
        f"To have {dataset} without a download from here, fetch one of these sets of files with a browser:"
    ]
    for number, way in enumerate(WAYS[dataset], 1):
        lines.append(f"  {number}. {way[0].name}: {way[0].holds}")
        lines.append(f"     {way[0].address}")
        for file in way[1:]:
            lines += [f"     and {file.name}: {file.holds}", f"     {file.address}"]
    return [
        *lines,
        f"Put them into {RAW}/ under these names and run `zssbir prepare {dataset}` again,",
        f"or name them where they are, packed or unpacked: zssbir prepare {dataset} --from PLACE [--from PLACE]",
    ]
