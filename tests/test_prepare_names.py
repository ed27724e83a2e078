"""Class names in `prepare`: what is one class, what `--unseen` means, what is said when nothing fits."""

import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from prepare_helpers import CLASSES, make_folder, photo, sketch

from zssbir_cli.data.manifest import Manifest, read_manifest
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.roles import Unseen, read_unseen
from zssbir_cli.types import Role
from zssbir_cli.workflows.prepare import prepare_own

HINDI = ("काल", "कील", "कल", "कुल")
SIGNS = ("C", "C++", "C#", "A+", "A-", "🐱", "🐶")


def names(source: Path, out: Path, **options: object) -> list[str]:
    """Class names of the set that `prepare` makes of a folder."""
    options = {"unseen": "n=1", "val_classes": 0} | options
    return PreparedSet.open(prepare_own([source], out=out, choices=Choices(**options)).root).classes


def test_marks_and_symbols_keep_classes_apart(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", (*HINDI, *SIGNS), photos=1, sketches=1)
    assert sorted(names(folder, tmp_path / "out")) == sorted((*HINDI, *SIGNS))


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("hot-dog", "hot dog"), ("café", unicodedata.normalize("NFD", "café"))]
)
def test_folders_side_by_side_that_are_one_class_are_refused(tmp_path: Path, one: str, other: str) -> None:
    folder = make_folder(tmp_path / "own", (one, other, "ant", "bell"), photos=1, sketches=1)
    with pytest.raises(
        DataError, match=r"class folders that differ only in .*: (sketches|photos) of .* and "
    ) as error:
        names(folder, tmp_path / "out")
    shown = [ascii(n) if "caf" in n else repr(n) for n in (one, other)]
    assert all(n in str(error.value) for n in shown)
    assert not (tmp_path / "out").exists()


def test_two_unicode_forms_across_sketch_and_photo_are_one_class(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", (*CLASSES[:4], "café"), photos=2, sketches=1)
    (folder / "photo" / "café").rename(folder / "photo" / unicodedata.normalize("NFD", "café"))
    for value in ("café", unicodedata.normalize("NFD", "café"), "CAFÉ,"):
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        found = names(folder, out, unseen=value)
        assert found == sorted([*CLASSES[:4], "café"])
        assert [c.name for c in read_manifest(out).classes_of(Role.UNSEEN)] == ["café"]


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", (*CLASSES[:4], "cafe"), photos=2, sketches=1)
    for kind in ("sketch", "photo"):
        (folder / kind / "cafe").rename(folder / kind / "caf\udce9")
    folder.rename(tmp_path / "g\udce4l")
    for text in (b"caf\xe9", rb"caf\xe9"):
        out = tmp_path / f"out{len(text)}"
        command = [
            sys.executable,
            "-m",
            "zssbir_cli",
            "prepare",
            b"g\xe4l",
            "--unseen",
            text,
            "--out",
            str(out),
        ]
        done = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
        assert done.returncode == 0, done.stderr
        assert b"caf\\xe9" in b"".join(p.read_bytes() for p in out.glob("manifest.json")).replace(
            b"\\\\", b"\\"
        )
        assert [c.name for c in read_manifest(out).classes_of(Role.UNSEEN)] == ["caf\\xe9"]


DIGITS = [str(i) for i in range(10)]


@pytest.mark.parametrize(
    ("value", "classes", "meaning"),
    [
        ("3", CLASSES, Unseen(draw=3)),
        ("n=3", DIGITS, Unseen(draw=3)),
        ("3,", DIGITS, Unseen(frozenset({"3"}))),
        ("3,4", DIGITS, Unseen(frozenset({"3", "4"}))),
        ("0.5", CLASSES, Unseen(draw=4)),
        (".25", CLASSES, Unseen(draw=2)),
        ("all", CLASSES, Unseen(draw=8)),
        (None, CLASSES, Unseen(draw=2)),
        ("a,b", ("a", "b", "a b", "c"), Unseen(frozenset({"a", "b"}))),
        ("a,b", ("a,b", "c", "d"), Unseen(frozenset({"a,b"}))),
        ("1_1", ("1_1", "11", "x"), Unseen(frozenset({"1_1"}))),
    ],
)
def test_what_unseen_means(value: str, classes: tuple[str, ...], meaning: Unseen) -> None:
    assert read_unseen(value, classes) == meaning


@pytest.mark.parametrize(
    ("value", "classes", "words"),
    [
        ("3", DIGITS, r"has 2 meanings here: write '3,' for the class '3'; or n=3 for 3 of the 10 classes"),
        ("all", ("all", "a", "b", "c"), r"'all,' for the class 'all'; or n=all for all classes"),
        ("a,b", ("a,b", "a", "b", "c"), r"has 2 meanings here: write its name in an @FILE"),
        ("0.0", CLASSES, r"--unseen 0\.0: give 1 to 6 of the 8 classes, a fraction between 0 and 1, or all"),
        ("1.5", CLASSES, r"--unseen 1\.5: give 1 to 6"),
        ("-1", CLASSES, r"--unseen -1: give 1 to 6"),
        ("1e400", CLASSES, r"give 1 to 6"),
        ("n=x", CLASSES, r"n= takes a number"),
        ("@nowhere.txt", CLASSES, r"@nowhere\.txt: the file cannot be read: No such file"),
        ("zebra", CLASSES, r"'zebra' is not a class of the data; its classes are 'ant', 'bell'"),
        (
            "ant,belll,zebra",
            CLASSES,
            r"'belll', 'zebra' are not classes of the data; did you mean 'bell'",
        ),
    ],
)
def test_what_unseen_does_not_say_is_one_clear_line(value: str, classes: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_unseen(value, classes)


def test_a_file_that_is_called_like_a_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ant").write_text("bell\n")
    with pytest.raises(UsageError, match="'ant,' for the class 'ant'; or @ant for the names in that file"):
        read_unseen("ant", CLASSES)
    assert read_unseen("ant,", CLASSES) == Unseen(frozenset({"ant"}))
    assert read_unseen("@ant", CLASSES) == Unseen(frozenset({"bell"}))
    (tmp_path / "list.txt").write_text("\ufeffcup\r\nDOG\r\n")
    assert read_unseen("list.txt", CLASSES) == Unseen(frozenset({"cup", "dog"}))


def test_lists_of_names_as_editors_write_them(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_text("# a comment\r\n\r\n#1 dad \r\nfi\u015f\r\n", encoding)
        assert read_unseen(f"@{tmp_path}/list.txt", ("#1 dad", "a comment", "cup", "fi\u015f")) == Unseen(
            frozenset({"#1 dad", "fi\u015f"})
        )


@pytest.mark.parametrize("name", ["a/b", "..", "/x", "a\\b", "", ".hidden", "a\nb", "x" * 201])
def test_names_of_sets_stay_inside_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        prepare_own([tmp_path], name=name, choices=Choices())
    with pytest.raises(ValueError, match="name"):
        Manifest(
            name=name,
            split="s",
            classes=({"id": 0, "name": "a", "role": "seen"},),
            shards=(),
            tool_version="0",
        )


def test_a_leaked_class_keeps_its_plain_name_and_the_identity_of_older_sets() -> None:
    classes = [
        {"id": 0, "name": "cup", "role": "unseen"},
        {"id": 1, "name": "cup [leaked]", "role": "seen"},
        {"id": 2, "name": "pen [leaked]", "role": "seen"},
    ]
    leak = {"kind": "class", "what": "cup", "where": "both"}
    facts = {"name": "d", "split": "s", "shards": (), "tool_version": "0"}
    old = Manifest(format_version=1, classes=classes, leaks=[leak], **facts)
    assert [(c.name, c.leaked) for c in old.classes] == [
        ("cup", False),
        ("cup", True),
        ("pen [leaked]", False),
    ]
    new = Manifest(classes=old.classes, leaks=[leak], **facts)
    assert new.identity == old.identity
    with pytest.raises(ValueError, match="appears as unseen and as seen"):
        Manifest(classes=[classes[0], {"id": 1, "name": "cup", "role": "seen"}], **facts)


def found(tmp_path: Path, files: dict[str, bytes]) -> str:
    """The error of `prepare` on a folder of these files."""
    for name, data in files.items():
        path = tmp_path / "own" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (tmp_path / "own").mkdir(exist_ok=True)
    with pytest.raises(DataError) as error:
        names(tmp_path / "own", tmp_path / "out")
    return str(error.value)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["no files"]),
        ({"photo/ant/1.jpg": photo(1)}, ["no sketches", "photos of 1 class ('ant')"]),
        (
            {"sketch/ant/1.png": sketch(1), "photo/cup/1.jpg": photo(1)},
            ["sketches of 1 class ('ant') and photos of"],
        ),
        (
            {"256x256/sketch/tx_0/ant/1.png": sketch(1)},
            ["1 image deeper than <class>/<file> (first: 256x256/"],
        ),
        ({"sketch/cat.ndjson": b"{}"}, ["1 .ndjson file directly in sketch/", "draw each as a PNG"]),
        ({"sketch.zip": b"PK"}, ["1 .zip file outside of sketch/ and photo/", "source of its own"]),
        (
            {"sketch/ant/1.txt": b"", "sketch/ant/2.txt": b""},
            ["2 .txt files in class folders (first: sketch/ant/1.txt"],
        ),
        ({"pictures/ant/1.jpg": photo(1)}, ["1 image outside of sketch/ and photo/"]),
    ],
)
def test_a_failure_says_what_was_found_instead(
    tmp_path: Path, files: dict[str, bytes], words: list[str]
) -> None:
    text = found(tmp_path, files)
    assert all(w in text for w in words), text


def test_a_benchmark_given_as_own_pictures_and_a_misspelt_one_are_recognised(tmp_path: Path) -> None:
    text = found(tmp_path, {"256x256/sketch/tx_000000000000/ant/1.png": sketch(1)})
    assert "These look like files of sketchy: zssbir prepare sketchy --from '" in text
    with pytest.raises(DataError, match=r"sketchi does not exist; did you mean 'sketchy'"):
        prepare_own([Path("sketchi")], choices=Choices())


def test_images_may_be_the_top_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "own" / "data" / "images", photos=1, sketches=1)
    out = prepare_own([tmp_path / "own"], out=tmp_path / "out", choices=Choices(unseen="2")).root
    assert PreparedSet.open(out).classes == list(CLASSES)


def test_train_and_test_folders_are_taken_together_and_told(tmp_path: Path) -> None:
    make_folder(tmp_path / "own" / "train", CLASSES[:5], photos=1, sketches=1)
    make_folder(tmp_path / "own" / "test", CLASSES, photos=1, sketches=1)
    for name in CLASSES[:5]:
        for kind in ("sketch", "photo"):
            shutil.rmtree(tmp_path / "own" / "test" / kind / name)
    told: list[str] = []
    out = tmp_path / "out"
    prepare_own([tmp_path / "own"], out=out, choices=Choices(unseen="2"), say=told.append)
    assert any("test/, train/ are taken together; --unseen alone" in t for t in told)
    assert any("--unseen alone" in w for w in read_manifest(out).warnings)


def test_strict_covers_files_and_classes_that_are_left_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=1, sketches=1)
    (folder / "photo" / "ant" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"left out: 1 \.txt file in class folders"):
        names(folder, tmp_path / "out", strict=True)
    (folder / "photo" / "ant" / "notes.txt").unlink()
    (folder / "photo" / "lone").mkdir()
    (folder / "photo" / "lone" / "1.jpg").write_bytes(photo(1))
    with pytest.raises(DataError, match="class 'lone' has no sketches"):
        names(folder, tmp_path / "out", strict=True)


def test_a_source_given_twice_is_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=1, sketches=1)
    for other, words in ((folder / ".." / "own", "given twice"), (folder / "photo", "is inside")):
        with pytest.raises(UsageError, match=words):
            prepare_own([folder, other], out=tmp_path / "out", choices=Choices())


def test_a_set_of_unseen_classes_only(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", CLASSES[:3], photos=2, sketches=1)
    out = prepare_own([folder], out=tmp_path / "out", choices=Choices(unseen="all")).root
    manifest = read_manifest(out)
    assert [c.role for c in manifest.classes] == [Role.UNSEEN] * 3
    assert manifest.split == "3-unseen-seed0"
