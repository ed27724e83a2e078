"""Published file lists: they decide, their faults are found, and damaged ones give clear errors."""

from pathlib import Path

import pytest
from benchmark_helpers import layout, run
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.benchmarks.compare import published_counts
from zssbir_cli.benchmarks.lists import find_faults, read_lists, read_rows
from zssbir_cli.benchmarks.splits import CLASSES, SPLITS
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.info import describe

AMBIGUITY_50 = sorted(name for name, c in published_counts("sketchy").items() if "ambiguity_photos" in c)


@pytest.fixture(scope="module")
def sketchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Sketchy. Read only."""
    return layout(tmp_path_factory.mktemp("raw") / "Sketchy", "sketchy")


def write_lists(folder: Path, root: Path, names: tuple[str, ...], zero: tuple[str, ...]) -> Path:
    """Published-style lists over the small Sketchy: class tables, two sketches of each class, all photos."""
    folder.mkdir(parents=True)
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*.*"))
    for side, kind, classes in (("", "train", names), ("_zero", "zero", zero)):
        ids = {name: i for i, name in enumerate(classes)}
        (folder / f"cname_cid{side}.txt").write_text("".join(f"{n} {i}\r\n" for n, i in ids.items()))
        mine = [(f, ids[f.split("/")[-2]]) for f in files if f.split("/")[-2] in ids]
        sketches = [
            row for row in mine if "/sketch/" in row[0] and row[0].rsplit("/", 1)[1][:2] in ("n0", "n1")
        ]
        photos = [row for row in mine if "/sketch/" not in row[0]]
        for base, listed in (("sketch_tx_000000000000_ready", sketches), ("all_photo", photos)):
            (folder / f"{base}_filelist_{kind}.txt").write_text("".join(f"{f} {i}\n" for f, i in listed))
    return folder


def test_lists_decide_and_the_rest_is_held_out(sketchy: Path, tmp_path: Path) -> None:
    split = SPLITS["sketchy-25"]
    lists = write_lists(tmp_path / "lists", sketchy, split.seen, split.unseen)
    counts = run("sketchy", tmp_path / "out", sketchy, lists=(lists,)).manifest.counts
    assert counts == {
        (Part.TRAIN, Modality.SKETCH): 200,
        (Part.TRAIN, Modality.PHOTO): 500,
        (Part.HOLDOUT, Modality.SKETCH): 200,
        (Part.TEST, Modality.SKETCH): 50,
        (Part.TEST, Modality.PHOTO): 125,
    }


def test_listed_images_that_are_missing_are_told(sketchy: Path, tmp_path: Path) -> None:
    split = SPLITS["sketchy-25"]
    lists = write_lists(tmp_path / "lists", sketchy, split.seen, split.unseen)
    with (lists / "all_photo_filelist_zero.txt").open("a") as file:
        file.write("EXTEND_image_sketchy_ready/cup/ext_999.jpg 0\n")
    told: list[str] = []
    run("sketchy", tmp_path / "out", sketchy, lists=(lists,), told=told)
    assert any("1 images of the zero lists are not in your files, first: EXTEND" in t for t in told)


@pytest.fixture
def ambiguity(tmp_path: Path) -> Path:
    """Lists with the two faults of the published high-ambiguity lists: test classes, and other ids."""
    folder = tmp_path / "ambiguity"
    folder.mkdir()
    (folder / "cname_cid.txt").write_text("".join(f"{n} {i}\r\n" for i, n in enumerate(AMBIGUITY_50)))
    zero = SPLITS["sketchy-25"].unseen
    (folder / "cname_cid_zero.txt").write_text("".join(f"{n} {i}\n" for i, n in enumerate(zero)))
    rows = "".join(f"ambiguity\\{n}\\ext_1.jpg {i}\r\n" for i, n in enumerate(AMBIGUITY_50))
    (folder / "all_photo_filelist_train.txt").write_text(rows)
    return folder


def test_the_published_ambiguity_lists_are_refused_for_both_faults(
    sketchy: Path, ambiguity: Path, tmp_path: Path
) -> None:
    faults = find_faults(read_lists([ambiguity], SPLITS["sketchy-25"]), SPLITS["sketchy-25"])
    leaked = {f.what for f in faults if f.kind == "class"}
    assert leaked == {"cup", "harp", "pineapple", "ray", "rifle", "snail", "squirrel", "swan", "volcano"}
    assert sum(f.kind == "id" for f in faults) == 50
    with pytest.raises(
        DataError,
        match=r"9 training classes are test classes: 'cup', 'harp'.*50 classes have contradictory ids",
    ):
        run("sketchy", tmp_path / "out", sketchy, lists=(ambiguity,))
    assert not (tmp_path / "out").exists()


def test_allowed_leaks_are_recorded(sketchy: Path, ambiguity: Path, tmp_path: Path) -> None:
    result = run("sketchy", tmp_path / "out", sketchy, lists=(ambiguity,), allow_leak=True)
    assert {leak.kind for leak in result.manifest.leaks} == {"class", "id", "image"}
    seen = result.manifest.classes_of(Role.SEEN)
    assert len(seen) == 50
    assert "cup" in {c.name for c in seen if c.leaked}
    assert (
        len({c.name for c in seen if c.leaked} & {c.name for c in result.manifest.classes_of(Role.UNSEEN)})
        == 9
    )
    assert not any("[" in c.name for c in result.manifest.classes)
    assert describe(result.root)["leaks"]


def test_the_clean_ambiguity_set(sketchy: Path, ambiguity: Path, tmp_path: Path) -> None:
    told: list[str] = []
    data = run(
        "sketchy", tmp_path / "out", sketchy, split="sketchy-ambiguity", lists=(ambiguity,), told=told
    ).manifest
    assert data.counts[Part.TRAIN, Modality.PHOTO] == 41
    assert len(data.classes_of(Role.SEEN)) == 41
    assert data.leaks == ()
    assert any("9 test classes are in the training list; left out: cup" in t for t in told)
    with pytest.raises(UsageError, match="--lists"):
        run("sketchy", tmp_path / "no", sketchy, split="sketchy-ambiguity")


def test_lists_of_another_split_are_named(sketchy: Path, tmp_path: Path) -> None:
    split = SPLITS["sketchy-21"]
    lists = write_lists(tmp_path / "lists", sketchy, split.seen, split.unseen)
    with pytest.raises(DataError, match="those of --split sketchy-21"):
        run("sketchy", tmp_path / "out", sketchy, lists=(lists,))
    run("sketchy", tmp_path / "out", sketchy, split="sketchy-21", lists=(lists,))


def test_counts_are_compared_with_the_published_ones(sketchy: Path, tmp_path: Path) -> None:
    found = describe(run("sketchy", tmp_path / "out", sketchy).root)
    assert {"what": "test photos", "ours": 125, "published": 17_101, "exact": True} in found["published"]
    assert "cup: 4 sketches instead of 697, 5 photos instead of 700" in found["differing_classes"]


@pytest.mark.parametrize("text", ["", "cup\n", "cup x\n", "cup 1.5\n", "cup -1\n", "\n\n"])
def test_rows_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cname_cid.txt").write_text(text)
    with pytest.raises(DataError, match=r"cname_cid\.txt"):
        read_rows(tmp_path / "cname_cid.txt")


def test_rows_keep_spaces_in_names(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfhot air  balloon\t7\r\n\r\npng_ready/alarm clock/1.png 12\r")
    assert read_rows(path) == [("hot air  balloon", 7), ("png_ready/alarm clock/1.png", 12)]


def test_rows_as_a_shell_of_windows_writes_them(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("caf\u00e9 1\ncup 2\n", "utf-16")
    assert read_rows(tmp_path / "a.txt") == [("caf\u00e9", 1), ("cup", 2)]
    (tmp_path / "a.txt").write_bytes(b"\xff\xfecup")
    with pytest.raises(DataError, match="neither UTF-8 nor UTF-16"):
        read_rows(tmp_path / "a.txt")


ROW = st.one_of(
    st.text(max_size=40),
    st.builds(
        lambda n, f, i: f"EXTEND_image_sketchy_ready/{n}/{f}.jpg {i}",
        st.sampled_from(CLASSES["sketchy"]),
        st.text(max_size=9),
        st.integers(-9, 10**10),
    ),
    st.builds(lambda n, i: f"{n} {i}", st.sampled_from(CLASSES["sketchy"]), st.integers(0, 200)),
)


@cases(200)
@given(
    name=st.sampled_from(
        ["cname_cid.txt", "cname_cid_zero.txt", "all_photo_filelist_train.txt", "sketch_filelist_zero.txt"]
    ),
    rows=st.lists(ROW, max_size=6),
    noise=st.binary(max_size=8),
    ends=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
)
def test_damaged_lists_give_clear_errors_only(
    tmp_path_factory: pytest.TempPathFactory, name: str, rows: list[str], noise: bytes, ends: str
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz-lists" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(ends.join(rows).encode("utf-8", "surrogatepass") + noise)
    split = SPLITS["sketchy-25"]
    try:
        find_faults(read_lists([folder], split), split)
    except DataError as error:
        message = str(error)
    else:
        message = name
    assert name in message or "holds no cname_cid" in message
