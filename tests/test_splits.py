"""The named splits, layouts, published lists, counts and leaks of the three benchmarks."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prepare_helpers import make_zip, sketch, tiny_png

from zssbir_cli.data.benchmarks.assemble import LEAKED
from zssbir_cli.data.benchmarks.classes import AMBIGUITY_50_TRAIN
from zssbir_cli.data.benchmarks.counts import AMBIGUITY_COUNTS, SKETCHY_COUNTS, TUBERLIN_COUNTS
from zssbir_cli.data.benchmarks.layouts import Kind, match, published_path
from zssbir_cli.data.benchmarks.lists import find_faults, read_lists, read_rows
from zssbir_cli.data.benchmarks.splits import CLASSES, SPLITS, get_split, repair, squash
from zssbir_cli.data.build import BuildOptions
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.benchmarks import prepare_benchmark
from zssbir_cli.workflows.info import describe
from zssbir_cli.workflows.prepare import Choices, Prepared

CASES = int(os.environ.get("ZSSBIR_FUZZ", "200"))


def run(
    dataset: str,
    out: Path,
    *paths: Path,
    split: str | None = None,
    lists: tuple[Path, ...] = (),
    **options: object,
) -> Prepared:
    """`prepare_benchmark` with options by name; warnings land in `told` when given."""
    told = options.pop("told", [])
    build = BuildOptions(**{k: options.pop(k) for k in ("dedup", "allow_leak", "strict") if k in options})
    return prepare_benchmark(
        dataset, split, paths, lists, None, out, Choices(build=build, **options), told.append
    )


def layout(
    root: Path, dataset: str, ready: str = "_ready", sketches: int = 4, photos: int = 2, extend: int = 3
) -> Path:
    """A small benchmark under published names: EXTEND repeats the first original."""
    number = 0
    for name in CLASSES[dataset]:
        kinds = {Kind.SKETCH: sketches, Kind.PHOTO: photos} | (
            {Kind.EXTEND: extend} if dataset == "sketchy" else {}
        )
        for kind, n in kinds.items():
            for i in range(n):
                number += 1
                repeat = kind is Kind.EXTEND and i == 0
                file = f"n{0 if repeat else i}_{name[:2]}.{'png' if kind is Kind.SKETCH else 'jpg'}"
                if kind is Kind.EXTEND and not repeat:
                    file = f"ext_{i}.jpg"
                path = root / published_path(dataset, kind, name, file).replace("_ready", ready)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tiny_png(number))
    return root


@pytest.fixture(scope="module")
def sketchy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Sketchy. Read only."""
    return layout(tmp_path_factory.mktemp("raw") / "Sketchy", "sketchy")


@pytest.mark.parametrize(
    ("name", "seen", "unseen", "first"),
    [
        ("sketchy-25", 100, 25, "cup"),
        ("sketchy-21", 104, 21, "bat"),
        ("sketchy-25-sempcyc", 100, 25, "bear"),
        ("sketchy-ambiguity", 41, 25, "cup"),
        ("tuberlin-30", 220, 30, "banana"),
        ("tuberlin-30-sempcyc", 220, 30, "backpack"),
        ("quickdraw-30", 80, 30, "bat"),
    ],
)
def test_splits_are_disjoint_and_complete(name: str, seen: int, unseen: int, first: str) -> None:
    split = SPLITS[name]
    assert (len(split.seen), len(split.unseen), split.unseen[0]) == (seen, unseen, first)
    assert not set(split.seen) & set(split.unseen)
    assert set(split.seen) | set(split.unseen) <= set(CLASSES[split.dataset])
    assert len({squash(n) for n in CLASSES[split.dataset]}) == len(CLASSES[split.dataset])


def test_the_two_sketchy_25_share_four_classes() -> None:
    both = set(SPLITS["sketchy-25"].unseen) & set(SPLITS["sketchy-25-sempcyc"].unseen)
    assert both == {"bell", "squirrel", "tank", "wheelchair"}


def test_class_counts_add_up_to_the_published_table() -> None:
    for name in ("sketchy-25", "sketchy-21"):
        split = SPLITS[name]
        sums = [
            sum(SKETCHY_COUNTS[c][k] - d for c in side)
            for side, d in ((split.seen, 50), (split.unseen, 0))
            for k in (0,)
        ]
        photos = [sum(SKETCHY_COUNTS[c][1] for c in side) for side in (split.seen, split.unseen)]
        p = split.published
        assert [*sums, *photos] == [p.train_sketches, p.test_sketches, p.train_photos, p.test_photos]
    gallery = [SKETCHY_COUNTS[c][1] for c in SPLITS["sketchy-25"].unseen]
    assert (min(gallery), max(gallery)) == (378, 800)
    assert sum(s for s, _ in SKETCHY_COUNTS.values()) == 75_481
    assert sum(p - 100 for _, p in SKETCHY_COUNTS.values()) == 73_002
    assert sum(p for _, p in TUBERLIN_COUNTS.values()) == 27_989
    assert sum(AMBIGUITY_COUNTS.values()) == 934
    assert sum(AMBIGUITY_COUNTS[c] for c in SPLITS["sketchy-ambiguity"].seen) == 802


@pytest.mark.parametrize(
    ("dataset", "path", "kind", "folder"),
    [
        ("sketchy", "x/Sketchy/256x256/sketch/tx_000000000000_ready/cup/n1-1.png", Kind.SKETCH, "cup"),
        ("sketchy", "256x256/photo/tx_000000000000/cup/n1.jpg", Kind.PHOTO, "cup"),
        ("sketchy", "EXTEND_image_sketchy_ready/cup/ext_1.jpg", Kind.EXTEND, "cup"),
        ("sketchy", "EXTEND_image_sketchy\\car_(sedan)\\ext_1.jpg", Kind.EXTEND, "car_(sedan)"),
        ("sketchy", "photo/cup/n1.jpg", Kind.PHOTO, "cup"),
        ("tuberlin", "TUBerlin/png_ready/hot air balloon/836.png", Kind.SKETCH, "hot air balloon"),
        ("tuberlin", "png/ant/1.png", Kind.SKETCH, "ant"),
        ("tuberlin", "ImageResized_ready/ant/n1.JPEG", Kind.PHOTO, "ant"),
        ("tuberlin", "photos/spidar/n1.JPEG", Kind.PHOTO, "spidar"),
        ("quickdraw", "QuickDraw/sketches/ant/51.png", Kind.SKETCH, "ant"),
        ("quickdraw", "QuickDraw_images_final/ant/image_1.jpg", Kind.PHOTO, "ant"),
    ],
)
def test_layouts(dataset: str, path: str, kind: Kind, folder: str) -> None:
    found = match(dataset, path)
    assert not isinstance(found, str)
    assert (found.kind, found.folder) == (kind, folder)


def test_what_is_no_image_of_the_benchmark() -> None:
    assert match("sketchy", "info/stats.csv") == ""
    assert match("sketchy", "a/b/c/README.txt") == ""
    assert "augmented" in str(match("sketchy", "sketch/tx_000100000000/cup/n1-1.png"))


@pytest.mark.parametrize(
    ("dataset", "folder", "name"),
    [
        ("tuberlin", "spidar", "spider"),
        ("tuberlin", "griaffe", "giraffe"),
        ("tuberlin", "tromobone", "trombone"),
        ("tuberlin", "spacesshuttle", "space shuttle"),
        ("tuberlin", "bearanimal", "bear (animal)"),
        ("tuberlin", "door_handle", "door handle"),
        ("quickdraw", "effiel_tower", "eiffel tower"),
        ("quickdraw", "The Eiffel Tower", "eiffel tower"),
        ("sketchy", "hot-air_balloon", "hot-air_balloon"),
        ("sketchy", "jack_o_lantern", "jack-o-lantern"),
        ("sketchy", "unicorn", None),
    ],
)
def test_class_names_are_repaired(dataset: str, folder: str, name: str | None) -> None:
    assert repair(dataset, folder) == name


def test_every_class_repairs_to_itself() -> None:
    for dataset, names in CLASSES.items():
        assert [repair(dataset, n) for n in names] == list(names)


@pytest.mark.parametrize("split", ["sketchy-25", "sketchy-21", "sketchy-25-sempcyc"])
def test_prepared_parts_hold_the_right_classes(sketchy: Path, tmp_path: Path, split: str) -> None:
    data = PreparedSet.open(run("sketchy", tmp_path / "out", sketchy, split=split, val_classes=3).root)
    assert data.manifest.split == split
    assert {c.name for c in data.manifest.classes_of(Role.UNSEEN)} == set(SPLITS[split].unseen)
    for part in (Part.TRAIN, Part.TEST):
        for modality, each in ((Modality.SKETCH, 3 if part is Part.TRAIN else 4), (Modality.PHOTO, 5)):
            images = data.images(part, modality)
            assert len(images) == each * len(set(images.labels.tolist()))
            assert all(
                data.classes[n] == s.split("/")[-2]
                for n, s in zip(images.labels, images.sources, strict=True)
            )
    assert len(data.manifest.classes_of(Role.VAL)) == 3
    assert len(data.images(Part.HOLDOUT, Modality.SKETCH)) == len(data.manifest.classes_of(Role.SEEN))


def test_pieces_from_several_places_equal_the_whole(sketchy: Path, tmp_path: Path) -> None:
    whole = run("sketchy", tmp_path / "whole", sketchy).manifest
    files = {
        p.relative_to(sketchy / "256x256").as_posix(): p.read_bytes()
        for p in (sketchy / "256x256").rglob("*.*")
    }
    packed = make_zip(tmp_path / "256x256.zip", files)
    parts = run("sketchy", tmp_path / "parts", sketchy / "EXTEND_image_sketchy_ready", packed).manifest
    assert parts.identity == whole.identity
    old = layout(tmp_path / "old" / "Sketchy", "sketchy", ready="")
    assert run("sketchy", tmp_path / "plain", old).manifest.identity == whole.identity


def test_dedup_drops_what_extend_repeats(sketchy: Path, tmp_path: Path) -> None:
    kept = run("sketchy", tmp_path / "kept", sketchy).manifest
    dropped = run("sketchy", tmp_path / "dropped", sketchy, dedup=True)
    assert kept.counts[Part.TEST, Modality.PHOTO] == 25 * 5
    assert dropped.manifest.counts[Part.TEST, Modality.PHOTO] == 25 * 4
    sources = PreparedSet.open(dropped.root).images(Part.TEST, Modality.PHOTO).sources
    assert not any(s.startswith("EXTEND") and "/n0_" in s for s in sources)


def test_misspelt_folders_stray_files_and_strangers(tmp_path: Path) -> None:
    root = layout(tmp_path / "TUBerlin", "tuberlin", photos=1)
    for name, wrong in (("spider", "spidar"), ("giraffe", "griaffe"), ("mouse (animal)", "mouse")):
        (root / "ImageResized_ready" / name).rename(root / "ImageResized_ready" / wrong)
    (root / "png_ready" / "ant" / "s.sh").write_text("echo")
    (root / "png_ready" / "unicorn").mkdir()
    (root / "png_ready" / "unicorn" / "1.png").write_bytes(sketch(1))
    told: list[str] = []
    data = run("tuberlin", tmp_path / "out", root, told=told).manifest
    assert data.counts[Part.TRAIN, Modality.PHOTO] == 220
    text = "\n".join(told)
    assert "photo griaffe is taken as giraffe" in text
    assert "(s.sh)" in text
    assert "unknown class 'unicorn'" in text


def test_quickdraw(tmp_path: Path) -> None:
    root = layout(tmp_path / "QuickDraw", "quickdraw")
    counts = run("quickdraw", tmp_path / "out", root, subset=1).manifest.counts
    assert counts == {
        (Part.TRAIN, Modality.SKETCH): 80,
        (Part.TRAIN, Modality.PHOTO): 80,
        (Part.TEST, Modality.SKETCH): 30,
        (Part.TEST, Modality.PHOTO): 30,
    }


def test_missing_pieces_say_what_is_expected(sketchy: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no test photo of sketchy-25; expected .*EXTEND_image_sketchy_ready"
    ):
        run("sketchy", tmp_path / "out", sketchy / "256x256" / "sketch")
    with pytest.raises(UsageError, match="sketchy has the splits sketchy-25, sketchy-21"):
        get_split("sketchy", "tuberlin-30")
    with pytest.raises(UsageError, match="--unseen does not apply"):
        run("sketchy", tmp_path / "out", sketchy, unseen="3")


def write_lists(folder: Path, sketchy: Path, names: tuple[str, ...], zero: tuple[str, ...]) -> Path:
    """Published-style lists over the small Sketchy: class tables, sketches and photos, two sketches listed."""
    folder.mkdir(parents=True)
    for side, classes in (("", names), ("_zero", zero)):
        (folder / f"cname_cid{side}.txt").write_text("".join(f"{n} {i}\r\n" for i, n in enumerate(classes)))
        kind = "zero" if side else "train"
        rows = {"sketch_tx_000000000000_ready": [], "all_photo": []}
        for i, name in enumerate(classes):
            files = sorted(p for p in sketchy.rglob("*.*") if p.parent.name == name)
            sketches = [p for p in files if "sketch" in p.parts[-4:-1][0] or "/sketch/" in p.as_posix()]
            rows["sketch_tx_000000000000_ready"] += [(p, i) for p in sketches[:2]]
            rows["all_photo"] += [(p, i) for p in files if p not in sketches]
        for base, listed in rows.items():
            text = "".join(f"{p.relative_to(sketchy).as_posix()} {i}\n" for p, i in listed)
            (folder / f"{base}_filelist_{kind}.txt").write_text(text)
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
    (folder / "cname_cid.txt").write_text("".join(f"{n} {i}\r\n" for i, n in enumerate(AMBIGUITY_50_TRAIN)))
    zero = SPLITS["sketchy-25"].unseen
    (folder / "cname_cid_zero.txt").write_text("".join(f"{n} {i}\n" for i, n in enumerate(zero)))
    rows = "".join(f"ambiguity\\{n}\\ext_1.jpg {i}\r\n" for i, n in enumerate(AMBIGUITY_50_TRAIN))
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
        DataError, match=r"9 training classes are test classes: cup, harp.*50 classes have contradictory ids"
    ):
        run("sketchy", tmp_path / "out", sketchy, lists=(ambiguity,))
    assert not (tmp_path / "out").exists()


def test_allowed_leaks_are_recorded(sketchy: Path, ambiguity: Path, tmp_path: Path) -> None:
    result = run("sketchy", tmp_path / "out", sketchy, lists=(ambiguity,), allow_leak=True)
    assert {leak.kind for leak in result.manifest.leaks} == {"class", "id", "image"}
    names = {c.name for c in result.manifest.classes_of(Role.SEEN)}
    assert "cup" + LEAKED in names
    assert len(names) == 50
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


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
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
