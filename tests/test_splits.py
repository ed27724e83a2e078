"""The named splits, layouts, published lists, counts and leaks of the three benchmarks."""

from pathlib import Path

import pytest
from benchmark_helpers import layout, run
from prepare_helpers import make_zip, sketch

from zssbir_cli.benchmarks.compare import published_counts
from zssbir_cli.benchmarks.layouts import Kind, match
from zssbir_cli.benchmarks.splits import CLASSES, SPLITS, get_split, repair
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Modality, Part, Role


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


def test_the_two_sketchy_25_share_four_classes() -> None:
    both = set(SPLITS["sketchy-25"].unseen) & set(SPLITS["sketchy-25-sempcyc"].unseen)
    assert both == {"bell", "squirrel", "tank", "wheelchair"}


def test_class_counts_add_up_to_the_published_table() -> None:
    sketchy, tuberlin = published_counts("sketchy"), published_counts("tuberlin")
    for name in ("sketchy-25", "sketchy-21"):
        split = SPLITS[name]
        sketches = [
            sum(sketchy[c]["sketches"] - held for c in side)
            for side, held in ((split.seen, 50), (split.unseen, 0))
        ]
        photos = [sum(sketchy[c]["photos"] for c in side) for side in (split.seen, split.unseen)]
        p = split.published
        assert [*sketches, *photos] == [p.train_sketches, p.test_sketches, p.train_photos, p.test_photos]
    gallery = [sketchy[c]["photos"] for c in SPLITS["sketchy-25"].unseen]
    assert (min(gallery), max(gallery)) == (378, 800)
    assert sum(c["sketches"] for c in sketchy.values()) == 75_481
    assert sum(c["photos"] - 100 for c in sketchy.values()) == 73_002
    assert sum(c["photos"] for c in tuberlin.values()) == 27_989
    ambiguity = {name: c["ambiguity_photos"] for name, c in sketchy.items() if "ambiguity_photos" in c}
    assert (len(ambiguity), sum(ambiguity.values())) == (50, 934)
    assert sum(ambiguity[c] for c in SPLITS["sketchy-ambiguity"].seen) == 802


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
