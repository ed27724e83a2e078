"""A folder as a source: links, loops, what is no regular file, hidden folders, and the set that is made in it."""

import os
import random
import tracemalloc
from pathlib import Path

import pytest
from prepare_helpers import CLASSES, make_folder, photo

from zssbir_cli.data.manifest import read_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.sources import FolderSource
from zssbir_cli.workflows.prepare import Prepared, prepare_own


def prepare(folder: Path, out: Path, **options: object) -> Prepared:
    return prepare_own([folder], name="own", out=out, choices=Choices(unseen="2", **options))


@pytest.mark.parametrize("name", ["aaa", "zzz"])
def test_a_link_to_a_class_is_no_second_one_and_takes_none_away(tmp_path: Path, name: str) -> None:
    folder = make_folder(tmp_path / "own")
    for kind in ("sketch", "photo"):
        (folder / kind / name).symlink_to(folder / kind / "ant")
    done = prepare(folder, tmp_path / "out")
    assert PreparedSet.open(done.root).classes == list(CLASSES)
    assert f"the link photo/{name}: it leads to photo/ant; left out" in done.manifest.warnings
    with pytest.raises(DataError, match=f"the link photo/{name}: it leads to photo/ant"):
        prepare(folder, tmp_path / "strict", strict=True)


def test_loops_of_links_end(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    (folder / "photo" / "loop").symlink_to(folder)
    (folder / "photo" / "ant" / "self").symlink_to("self")
    done = prepare(folder, tmp_path / "out")
    assert "the link photo/loop: it leads to the folder itself; left out" in done.manifest.warnings
    assert "photo/ant/self" in (done.root / "report.txt").read_text()
    assert done.manifest.skipped == 1


def test_pictures_behind_links_are_taken(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "elsewhere")
    (tmp_path / "own").mkdir()
    for kind in ("sketch", "photo"):
        (tmp_path / "own" / kind).symlink_to(folder / kind)
    done = prepare(tmp_path / "own", tmp_path / "out")
    assert done.manifest.warnings == ()
    assert done.manifest.identity == prepare(folder, tmp_path / "direct").manifest.identity


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="POSIX only")
def test_what_is_no_regular_file_is_told_and_not_waited_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    os.mkfifo(folder / "photo" / "ant" / "pipe.jpg")
    assert prepare(folder, tmp_path / "out").manifest.warnings == (
        "photo/ant/pipe.jpg: no regular file; left out",
    )


def test_hidden_class_folders_are_told_and_those_of_programs_are_not(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    for name in (".NET", ".ipynb_checkpoints"):
        (folder / "photo" / name).mkdir()
        (folder / "photo" / name / "1.jpg").write_bytes(photo(1))
    (folder / ".git").mkdir()
    assert prepare(folder, tmp_path / "out").manifest.warnings == (
        "1 hidden folder in sketch/ or photo/ (first: photo/.NET); left out",
    )


def test_a_set_that_lies_among_its_pictures_is_none_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cd pictures; zssbir prepare .` puts the set into data/ there."""
    monkeypatch.chdir(make_folder(tmp_path / "own"))
    first = prepare_own([Path()], choices=Choices(unseen="2"))
    again = prepare_own([Path()], choices=Choices(unseen="2"))
    assert first.root.resolve().parent == tmp_path / "own" / "data"
    assert first.fresh
    assert not again.fresh
    assert read_manifest(first.root).sources[0].files == 8 * 9


def test_a_set_is_not_made_on_top_of_its_own_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures in data/NAME, where the set would go by default: they are there, and are not called missing."""
    monkeypatch.chdir(tmp_path)
    folder = make_folder(Path("data") / "own")
    with pytest.raises(
        DataError, match="data/own is not empty and not a prepared set; choose another folder"
    ):
        prepare_own([folder], choices=Choices(unseen="2"))


@pytest.mark.parametrize("now", [0, 10, 3_000_000], ids=["empty", "shorter", "longer"])
def test_a_file_that_has_changed_since_it_was_listed_is_read_whole(tmp_path: Path, now: int) -> None:
    """And takes no more memory than it is long: under `ulimit -v` the largest file that is read may be too much."""
    file, data = tmp_path / "a.png", random.randbytes(now)
    file.write_bytes(bytes(1000))
    source = FolderSource(tmp_path)
    source.scan()
    file.write_bytes(data)
    tracemalloc.start()
    try:
        assert source.read(0) == data
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
