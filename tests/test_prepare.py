"""`prepare` on the user's own data, end to end: what is written, resumed, refused and reported."""

import json
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from prepare_helpers import CLASSES, files_of, make_folder, make_zip, photo, sketch

from zssbir_cli.data.images import decode_photo, decode_sketch
from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.clean import CleanOptions
from zssbir_cli.preparation.verify import verify
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.info import contact_sheet, describe
from zssbir_cli.workflows.prepare import Prepared, prepare_own


def run(source: Path, out: Path, **options: object) -> Prepared:
    """`prepare_own` with options by name; what it says lands in `told` when given."""
    clean, told = CleanOptions(size=options.pop("size", None)), options.pop("told", [])
    return prepare_own(
        [source], name="own", out=out, choices=Choices(clean=clean, **options), say=told.append
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of eight classes. Read only."""
    return make_folder(tmp_path_factory.mktemp("own") / "pets")


@pytest.fixture(scope="module")
def prepared(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, prepared with two unseen and one validation class. Read only."""
    return run(folder, tmp_path_factory.mktemp("out") / "set", unseen="ant,dog", val_classes=1).root


def test_every_image_is_stored_once_under_its_class(folder: Path, prepared: Path) -> None:
    data, seen = PreparedSet.open(prepared), []
    for part in Part:
        for modality in Modality:
            images = data.images(part, modality)
            for i in range(len(images)):
                source = images.sources[i]
                assert images.read(i).tobytes() == (folder / source).read_bytes()
                assert source.split("/")[1] == data.classes[images.labels[i]]
                seen.append(source)
    assert sorted(seen) == sorted(files_of(folder))


def test_roles_never_mix(prepared: Path) -> None:
    data = PreparedSet.open(prepared)
    names = {role: {c.name for c in data.manifest.classes_of(role)} for role in Role}
    assert names[Role.UNSEEN] == {"ant", "dog"}
    assert len(names[Role.VAL]) == 1
    assert len(names[Role.SEEN]) == 5
    for part, role in ((Part.TRAIN, Role.SEEN), (Part.VAL, Role.VAL), (Part.TEST, Role.UNSEEN)):
        for modality in Modality:
            labels = data.images(part, modality).labels
            assert {data.classes[i] for i in labels} == names[role]


def test_the_output_is_exactly_these_files(prepared: Path) -> None:
    parts = [f"{p}-{m}-00000.h5" for p in ("train", "val", "test") for m in ("sketch", "photo")]
    assert sorted(files_of(prepared)) == sorted([*parts, ".lock", "manifest.json", "report.txt"])


@pytest.mark.parametrize("workers", [1, 3])
def test_bytes_do_not_depend_on_workers_or_packing(
    folder: Path, prepared: Path, tmp_path: Path, workers: int
) -> None:
    tar = tmp_path / "pets.tar"
    with tarfile.open(tar, "w") as archive:
        archive.add(folder, "pets")
    packed = make_zip(tmp_path / "pets.zip", {f"pets/{k}": v for k, v in files_of(folder).items()})
    for source in (folder, tar, packed):
        out = tmp_path / f"out-{source.name}"
        run(source, out, unseen="ant,dog", val_classes=1, workers=workers)
        ours, theirs = files_of(out), files_of(prepared)
        assert {k: v for k, v in ours.items() if k.endswith(".h5")} == {
            k: v for k, v in theirs.items() if k.endswith(".h5")
        }
        assert PreparedSet.open(out).identity == PreparedSet.open(prepared).identity


def test_compressed_tar_holds_the_same_images(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "pets.tar.gz", "w:gz") as archive:
        archive.add(folder, ".")
    out = run(tmp_path / "pets.tar.gz", tmp_path / "out", unseen="3", holdout=1).root
    data = PreparedSet.open(out)
    found = {}
    for part in Part:
        for modality in Modality:
            images = data.images(part, modality)
            found |= {s: images.read(i).tobytes() for i, s in enumerate(images.sources)}
    assert found == files_of(folder)
    assert data.manifest.counts[Part.HOLDOUT, Modality.SKETCH] == len(data.manifest.classes_of(Role.SEEN))


def test_repeating_does_nothing_and_other_options_are_refused(folder: Path, tmp_path: Path) -> None:
    first = run(folder, tmp_path / "out", unseen="2")
    before = files_of(first.root)
    times = {p: p.stat().st_mtime_ns for p in first.root.iterdir() if p.name != ".lock"}
    again = run(folder, tmp_path / "out", unseen="2")
    assert (first.fresh, again.fresh) == (True, False)
    assert files_of(again.root) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times
    with pytest.raises(DataError, match="other files or options"):
        run(folder, tmp_path / "out", unseen="3")


def test_a_lost_shard_is_prepared_again(folder: Path, tmp_path: Path) -> None:
    out = run(folder, tmp_path / "out", unseen="2").root
    before = files_of(out)
    (out / "train-photo-00000.h5").unlink()
    with pytest.raises(DataError, match="is missing"):
        PreparedSet.open(out)
    assert run(folder, tmp_path / "out", unseen="2").fresh
    assert files_of(out) == before


def test_size_makes_the_shorter_side_smaller_and_never_larger(folder: Path, tmp_path: Path) -> None:
    data = PreparedSet.open(run(folder, tmp_path / "small", unseen="2", size=16).root)
    assert decode_photo(data.images(Part.TEST, Modality.PHOTO).read(0)).shape == (3, 16, 16)
    assert decode_sketch(data.images(Part.TEST, Modality.SKETCH).read(0)).shape == (1, 16, 16)
    large = PreparedSet.open(run(folder, tmp_path / "large", unseen="2", size=99).root)
    assert decode_photo(large.images(Part.TEST, Modality.PHOTO).read(0)).shape == (3, 24, 24)


def test_one_sided_classes_and_stray_files_are_told(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    (root / "photo" / "only").mkdir()
    (root / "photo" / "only" / "a.jpg").write_bytes(photo(1))
    (root / "photo" / "ant" / "s.sh").write_text("echo")
    (root / "photo" / "ant" / ".DS_Store").write_text("x")
    (root / "photo" / "ant" / "Thumbs.db").write_text("x")
    (root / "sketch" / "loose.png").write_bytes(sketch(1))
    told: list[str] = []
    data = PreparedSet.open(run(root, tmp_path / "out", unseen="2", told=told).root)
    assert data.classes == list(CLASSES)
    text = "\n".join(told)
    assert "'only' has no sketches" in text
    assert "1 .sh file in class folders (first: photo/ant/s.sh): not images" in text
    assert "1 image directly in sketch/ or photo/" in text


def test_classes_match_across_spellings(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    (root / "photo" / "ant").rename(root / "photo" / "Hot Dog")
    (root / "sketch" / "ant").rename(root / "sketch" / "hot-dog")
    (root / "sketch").rename(root / "Sketches")
    (root / "photo").rename(root / "images")
    classes = PreparedSet.open(run(root, tmp_path / "out", unseen="hot dog, bell").root).manifest.classes_of(
        Role.UNSEEN
    )
    assert len(classes) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unseen": "antt"}, "did you mean 'ant'"),
        ({"unseen": "8"}, "give 1 to 6"),
        ({"unseen": "0"}, "give 1 to 6"),
        ({"unseen": ","}, "empty"),
        ({"unseen": "0.99"}, "give 1 to 6"),
        ({"val_classes": 7}, "at least 2 are needed"),
        ({"val_classes": -1}, "--val-classes -1"),
        ({"size": 3}, "--size 3"),
        ({"subset": 0}, "--per-class 0"),
        ({"holdout": 4}, "--holdout 4 leaves no sketch of 'ant', .* to train on; give less"),
    ],
)
def test_bad_options_name_themselves(
    folder: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        run(folder, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"unseen": "ant,bell", "val_classes": 0, "seed": 3},
            "--seed 3 has no effect: nothing is drawn here",
        ),
        ({"unseen": "all", "seed": 3}, "--seed 3 has no effect"),
        ({"unseen": "all", "val_classes": 1}, "--val-classes 1 has no effect where all classes are unseen"),
        ({"unseen": "all", "holdout": 1}, "--holdout 1 has no effect where all classes are unseen"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    folder: Path, tmp_path: Path, options: dict[str, object], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        prepare_own([folder], out=tmp_path / "out", choices=Choices(**options))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [{"subset": 1}, {"holdout": 1}, {"val_classes": 2}])
def test_a_seed_that_draws_is_taken(folder: Path, tmp_path: Path, options: dict[str, int]) -> None:
    choices = Choices(**{"unseen": "ant,bell", "val_classes": 0, "seed": 3, **options})  # type: ignore[arg-type]
    assert prepare_own([folder], out=tmp_path / "out", choices=choices).manifest.options["seed"] == 3


def test_unseen_by_fraction_file_and_seed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\nant\n\nBELL\n")
    by_file = run(folder, tmp_path / "a", unseen=str(tmp_path / "names.txt")).manifest
    assert {c.name for c in by_file.classes_of(Role.UNSEEN)} == {"ant", "bell"}
    half = [run(folder, tmp_path / f"s{s}", unseen="0.5", seed=s).manifest for s in (0, 1)]
    assert [len(m.classes_of(Role.UNSEEN)) for m in half] == [4, 4]
    assert half[0].classes_of(Role.UNSEEN) != half[1].classes_of(Role.UNSEEN)


def test_subset_takes_at_most_n_of_each(folder: Path, tmp_path: Path) -> None:
    counts = describe(run(folder, tmp_path / "out", unseen="2", subset=2).root)["classes"]
    assert {(c["sketches"], c["photos"]) for c in counts} == {(2, 2)}


def test_a_leak_is_refused_dropped_or_recorded(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "own")
    shutil.copy(root / "photo" / "ant" / "ant_0.jpg", root / "photo" / "bell" / "copy.jpg")
    with pytest.raises(DataError, match=r"photo/bell/copy.jpg is in train, and test as photo/ant/ant_0.jpg"):
        run(root, tmp_path / "out", unseen="ant,cup")
    assert not (tmp_path / "out" / "manifest.json").exists()
    kept = run(root, tmp_path / "out", unseen="ant,cup", allow_leak=True)
    assert [leak.what for leak in kept.manifest.leaks] == ["photo/bell/copy.jpg"]
    with pytest.raises(DataError, match="1 training images are test images"):
        run(root, tmp_path / "out", unseen="ant,cup")
    dropped = run(root, tmp_path / "dedup", unseen="ant,cup", dedup=True)
    assert not dropped.manifest.leaks
    assert dropped.manifest.counts[Part.TEST, Modality.PHOTO] == 10
    assert "photo/bell/copy.jpg\trepeats" in (tmp_path / "dedup" / "report.txt").read_text()


def test_verify_finds_damage(folder: Path, tmp_path: Path) -> None:
    out = run(folder, tmp_path / "out", unseen="2").root
    assert verify(out).problems == ()
    shard = out / "train-photo-00000.h5"
    data = bytearray(shard.read_bytes())
    at = data.index(b"\xff\xd8\xff") + 300
    data[at] ^= 1
    shard.write_bytes(data)
    assert any("checksum" in p for p in verify(out).problems)


def test_info_and_contact_sheet(prepared: Path, tmp_path: Path) -> None:
    found = describe(prepared)
    assert json.loads(json.dumps(found)) == found
    assert [p["photos"] for p in found["parts"]] == [25, 5, 10]
    assert contact_sheet(prepared, tmp_path / "sheet.png").read_bytes()[:4] == b"\x89PNG"


def test_cli_prints_one_line_errors_and_json(folder: Path, tmp_path: Path) -> None:
    def cli(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "zssbir_cli", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )

    done = cli("prepare", str(folder), "--unseen", "2", "--seed", "1")
    assert done.returncode == 0, done.stderr
    assert "prepared in data/pets" in done.stdout
    assert re.search(r"unseen, for the test: '\w+', '\w+'", done.stdout)
    assert "; next: zssbir train --recipe mobilenet --data data/pets\n" in done.stdout
    wrong = cli("eval", "--data", "data/pet")
    assert (wrong.returncode, "did you mean 'data/pets'?" in wrong.stderr) == (3, True)
    assert "identity" in done.stdout
    info = cli("info", "data/pets", "--json")
    assert json.loads(info.stdout)["name"] == "pets"
    wrong = cli("prepare", "nothing-here")
    assert wrong.returncode == 3
    assert [line for line in wrong.stderr.splitlines() if "error" in line] == wrong.stderr.splitlines()[-1:]
    assert wrong.stderr.splitlines()[-1].startswith("zssbir: error: nothing-here")
    assert cli("prepare", str(folder), "--split", "sketchy-25").returncode == 2
    assert cli("prepare", "--verify", "data/pets").returncode == 0


def test_same_content_as_published_layout_one_level_down(
    folder: Path, prepared: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "outer" / "pets")
    out = run(tmp_path / "outer", tmp_path / "out", unseen="ant,dog", val_classes=1).root
    assert PreparedSet.open(out).identity == PreparedSet.open(prepared).identity


def test_a_full_disk_and_a_busy_folder_are_told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zssbir_cli.files import Lock
    from zssbir_cli.preparation import build as module

    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(DataError, match="MB are free"):
        run(folder, tmp_path / "full", unseen="2")
    monkeypatch.undo()
    busy = tmp_path / "busy"
    busy.mkdir()
    (busy / ".work").mkdir()
    with (
        Lock(busy / ".lock", "zssbir prepare"),
        pytest.raises(DataError, match=r"in use by .* \(zssbir prepare, pid"),
    ):
        run(folder, busy, unseen="2")


def test_foreign_files_in_the_output_folder_are_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("dear")
    with pytest.raises(DataError, match="not empty"):
        run(folder, tmp_path / "out", unseen="2")
    assert files_of(tmp_path / "out") == {"thesis.txt": b"dear"}


def test_masks_travel_with_photos(tmp_path: Path) -> None:
    from zssbir_cli.data.prepared import ImageSet
    from zssbir_cli.data.shards import ShardWriter, read_index
    from zssbir_cli.preparation.masks import encode_mask

    mask = np.eye(12, dtype=bool)
    with ShardWriter(tmp_path, dataset="d", split="s", part=Part.TEST, modality=Modality.PHOTO) as writer:
        writer.add(photo(1), 0, "a.jpg", mask=encode_mask(mask))
    images = ImageSet(Part.TEST, Modality.PHOTO, [read_index(tmp_path / writer.shards[0].file)])
    np.testing.assert_array_equal(images.read_mask(0), mask)
