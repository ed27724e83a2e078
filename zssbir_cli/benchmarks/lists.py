"""Published file lists: `cname_cid*.txt` ("class id") and `*_filelist_{train,zero}.txt` ("relative/path id").

Names and paths may contain spaces: the id is what follows the last white space. Lists decide which images
belong to a split; their ids are only checked, because programs that trusted them trained on wrong labels.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zssbir_cli.benchmarks.layouts import Kind, match
from zssbir_cli.benchmarks.splits import SPLITS, Split, repair
from zssbir_cli.data.manifest import Leak
from zssbir_cli.errors import DataError
from zssbir_cli.files import decoded
from zssbir_cli.names import readable

MAX_LIST_BYTES = 512 << 20
TRAIN, TEST = "train", "zero"
Key = tuple[Kind, str, str]  # kind, class, file name without its suffix, folded


@dataclass
class Lists:
    """What the lists of some folders say.

    `tables`: class tables (name -> id) per side and folder; `files`: listed images per side, `None` for a
    modality that is not listed; `leaks`: contradictions found on reading.
    """

    tables: dict[str, list[tuple[Path, dict[str, int]]]] = field(
        default_factory=lambda: {TRAIN: [], TEST: []}
    )
    files: dict[str, dict[Key, str]] = field(default_factory=lambda: {TRAIN: {}, TEST: {}})
    listed: dict[str, set[str]] = field(default_factory=lambda: {TRAIN: set(), TEST: set()})
    ids: dict[str, dict[str, Counter[int]]] = field(default_factory=dict)

    def lists(self, side: str, kind: Kind) -> bool:
        """Whether images of this modality are listed for a side."""
        return kind.modality.name in self.listed[side]


def file_key(kind: Kind, name: str, file: str) -> Key:
    """Identity of a listed image: lists and disks differ in suffix (.jpg, .JPEG, .png) and case."""
    return kind, name, file.rsplit(".", 1)[0].casefold()


def read_rows(path: Path) -> list[tuple[str, int]]:
    """The rows "text id" of a list.

    Errors: DataError: not text, a row without an integer id, or absurdly large; names file and line.
    """
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise DataError(f"{path} is larger than {MAX_LIST_BYTES >> 20} MiB: not a file list")
        text = decoded(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is neither UTF-8 nor UTF-16 text: not a file list") from None
    rows = []
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip():
            continue
        parts = line.strip().rsplit(None, 1)
        if len(parts) != 2 or not re.fullmatch(r"[0-9]{1,9}", parts[1]):
            raise DataError(f"{path}:{number}: expected 'name id', found {readable(line[:80])!r}")
        rows.append((parts[0], int(parts[1])))
    if not rows:
        raise DataError(f"{path} is empty")
    return rows


def read_lists(folders: Sequence[Path], split: Split) -> Lists:
    """Read every class table and file list in `folders` (and below them).

    Errors: DataError: no list there, or a damaged one.
    """
    lists = Lists()
    found = sorted({p for f in folders for p in _list_files(Path(f))})
    if not found:
        raise DataError(
            f"{folders[0]} holds no cname_cid*.txt and no *_filelist_train.txt or *_filelist_zero.txt"
        )
    for path in found:
        side = _side(path)
        rows = read_rows(path)
        if path.name.startswith("cname_cid"):
            lists.tables[side].append((path, dict(rows)))
        elif not _superseded(path, found):
            _take(lists, side, path, rows, split)
    return lists


def _list_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"--lists {folder}: no such folder")
    names = r"(cname_cid(_zero|_test)?|.*filelist_(train|zero|test))\.txt"
    return [p for p in folder.rglob("*.txt") if re.fullmatch(names, p.name)]


def _superseded(path: Path, found: Sequence[Path]) -> bool:
    """A list of Sketchy's original photos alone beside one of all photos."""
    side = path.name.rsplit("_", 1)[1]
    everything = path.with_name(f"all_photo_filelist_{side}")
    return path.name.startswith("photo_tx_") and everything in found


def _take(lists: Lists, side: str, path: Path, rows: list[tuple[str, int]], split: Split) -> None:
    ids: dict[str, Counter[int]] = {}
    for number, (text, label) in enumerate(rows, 1):
        found = match(split.dataset, "/".join(("", "", *text.replace("\\", "/").split("/"))))
        name = None if isinstance(found, str) else repair(split.dataset, found.folder)
        if isinstance(found, str) or name is None:
            raise DataError(f"{path}:{number}: {readable(text[:120])!r} is not an image of {split.dataset}")
        lists.files[side][file_key(found.kind, name, found.file)] = text
        lists.listed[side].add(found.kind.modality.name)
        ids.setdefault(name, Counter())[label] += 1
    lists.ids[str(path)] = ids


def find_faults(lists: Lists, split: Split) -> list[Leak]:
    """Training classes or images that are test ones too, and ids that contradict the class tables."""
    return _class_leaks(lists, split) + _listed_twice(lists) + _id_faults(lists, split)


def train_classes(lists: Lists, split: Split) -> set[str]:
    """Classes that the lists train on (tables and listed images); empty when they do not say."""
    names = {name for path, table in lists.tables[TRAIN] for name in _known(table, split, path)}
    return names | {name for _, name, _ in lists.files[TRAIN]}


def _known(table: dict[str, int], split: Split, path: Path) -> list[str]:
    names = []
    for name in table:
        repaired = repair(split.dataset, name)
        if repaired is None:
            raise DataError(f"{path}: {readable(name)!r} is not a class of {split.dataset}")
        names.append(repaired)
    return names


def check_same_split(lists: Lists, split: Split) -> None:
    """The lists' test classes must be the split's.

    Errors: DataError: they belong to another split; names it when it is known.
    """
    for path, table in lists.tables[TEST]:
        names = set(_known(table, split, path))
        if names != set(split.unseen):
            twin = next((s.name for s in SPLITS.values() if set(s.unseen) == names), None)
            hint = f"they are those of --split {twin}" if twin else f"{len(names ^ set(split.unseen))} differ"
            raise DataError(f"{path}: the test classes are not those of {split.name}; {hint}")


def _class_leaks(lists: Lists, split: Split) -> list[Leak]:
    both = sorted(train_classes(lists, split) & set(split.unseen))
    where = "the training classes of the lists and the test classes"
    return [Leak(kind="class", what=name, where=where) for name in both]


def _listed_twice(lists: Lists) -> list[Leak]:
    train, test = lists.files[TRAIN], lists.files[TEST]
    where = "the train and the zero list"
    return [
        Leak(kind="image", what=readable(train[k]), where=where) for k in sorted(train.keys() & test.keys())
    ]


def _id_faults(lists: Lists, split: Split) -> list[Leak]:
    """Classes whose id in a list differs from a class table, or in a table from the published lists."""
    faults: dict[str, str] = {}
    for side, order in ((TRAIN, split.list_order), (TEST, split.unseen)):
        for path, table in lists.tables[side]:
            proper = {repair(split.dataset, name) or name: label for name, label in table.items()}
            for name, label in proper.items():
                if order and order[label : label + 1] != (name,):
                    meant = order[label] if label < len(order) else "no class"
                    faults[name] = f"{path.name} as {label}, which is {meant} in the published lists"
            for source, ids in lists.ids.items():
                if _side(Path(source)) == side:
                    faults |= _against_table(proper, path, ids, Path(source))
    return [Leak(kind="id", what=name, where=where) for name, where in sorted(faults.items())]


def _against_table(
    table: dict[str, int], path: Path, ids: dict[str, Counter[int]], source: Path
) -> dict[str, str]:
    faults = {}
    for name, labels in ids.items():
        wrong = [label for label in labels if label != table.get(name, label)]
        if wrong:
            faults[name] = f"{source.name} as {wrong[0]} and {path.name} as {table[name]}"
    return faults


def _side(path: Path) -> str:
    return TEST if re.search(r"_(zero|test)\.txt$", path.name) else TRAIN
