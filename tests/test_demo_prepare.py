"""The demo's picture folder and the set made of it: drawn as asked, whole, continued, classes kept apart."""

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from demo_helpers import demo_set
from PIL import Image
from prepare_helpers import files_of

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.demo import CLASSES, draw_photo, draw_sketch
from zssbir_cli.demo.pictures import RECORD, Look, _jobs, draw_pictures, draw_roles
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import Lock
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.roles import Unseen
from zssbir_cli.types import Modality, Part, Role
from zssbir_cli.workflows.prepare import prepare_own

ROLES = draw_roles(3, Unseen(draw=13), 5)
LOOK = Look(seed=3, size=32, photos=2, sketches=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo_set(tmp_path_factory.mktemp("demo") / "set", seed=3)


@pytest.fixture
def pictures(tiny: Path) -> Path:
    """The pictures of `tiny`; read only."""
    return tiny.with_name("set-pictures")


def test_everything_is_stored_and_reads_back(tiny: Path) -> None:
    prepared = PreparedSet.open(tiny)
    assert prepared.classes == list(CLASSES)
    assert prepared.manifest.name == "demo"
    assert not prepared.manifest.warnings
    roles = {role: len(prepared.manifest.classes_of(role)) for role in Role}
    assert roles == {Role.SEEN: len(CLASSES) - 18, Role.VAL: 5, Role.UNSEEN: 13}
    assert {c.name: c.role for c in prepared.manifest.classes} == ROLES
    counts = {
        part: roles[role]
        for part, role in ((Part.TRAIN, Role.SEEN), (Part.VAL, Role.VAL), (Part.TEST, Role.UNSEEN))
    }
    for part, classes in counts.items():
        assert len(prepared.images(part, Modality.PHOTO)) == 2 * classes
        assert len(prepared.images(part, Modality.SKETCH)) == classes


def test_images_are_what_the_generator_draws(tiny: Path, pictures: Path) -> None:
    prepared = PreparedSet.open(tiny)
    photos, sketches = (prepared.images(Part.TEST, m) for m in (Modality.PHOTO, Modality.SKETCH))
    for i in (0, 1, 7):
        name, label = prepared.classes[photos.labels[i]], int(photos.labels[i])
        photo, mask = draw_photo(name, np.random.default_rng([3, label, int(Modality.PHOTO), i % 2]), 32)
        stored = Image.open(io.BytesIO(photos.read(i).tobytes()))
        assert stored.format == "JPEG"
        assert np.abs(np.asarray(stored).astype(int) - photo).mean() < 12
        found = photos.read_mask(i)
        assert found is not None
        assert (found == mask).all()
        assert photos.sources[i] == f"photo/{name}/{i % 2:04d}.jpg"
        assert (pictures / photos.sources[i]).read_bytes() == photos.read(i).tobytes()
    label = int(sketches.labels[4])
    drawn = draw_sketch(CLASSES[label], np.random.default_rng([3, label, int(Modality.SKETCH), 0]), 32)
    stored = Image.open(io.BytesIO(sketches.read(4).tobytes()))
    assert stored.format == "PNG"
    assert (np.asarray(stored) == drawn).all()


def test_the_same_arguments_give_the_same_files(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    again = demo_set(tmp_path / "again", seed=3, workers=2)
    found, wanted = files_of(tmp_path / "again-pictures"), files_of(pictures)
    assert {**found, ".lock": b""} == {**wanted, ".lock": b""}
    assert PreparedSet.open(again).identity == PreparedSet.open(tiny).identity
    before = (tiny / "manifest.json").stat().st_mtime_ns
    assert demo_set(tiny, seed=3) == tiny
    assert (tiny / "manifest.json").stat().st_mtime_ns == before


def test_the_pictures_are_anyones_folder(tiny: Path, pictures: Path, tmp_path: Path) -> None:
    choices = Choices(unseen="cup,fish", strict=True, workers=1)
    prepared = PreparedSet.open(prepare_own([pictures], out=tmp_path / "own", choices=choices).root)
    assert [c.name for c in prepared.manifest.classes_of(Role.UNSEEN)] == ["cup", "fish"]
    assert prepared.images(Part.TEST, Modality.PHOTO).read_mask(0) is not None


def test_ambiguity_changes_photos_not_sketches(pictures: Path, tmp_path: Path) -> None:
    plain = Look(seed=3, size=32, photos=1, sketches=1, ambiguity=0.0)
    draw_pictures(tmp_path / "plain", ROLES, plain)
    for kind, same in (("sketch/*/0000.png", True), ("photo/*/0000.jpg", False)):
        found = sorted((tmp_path / "plain").glob(kind))
        assert len(found) == len(CLASSES)
        for path in found:
            other = pictures / path.relative_to(tmp_path / "plain")
            assert (path.read_bytes() == other.read_bytes()) == same


def test_unseen_classes_by_name(tmp_path: Path) -> None:
    prepared = PreparedSet.open(demo_set(tmp_path / "named", photos=1, unseen=("cup", "fish"), val=0))
    assert [c.name for c in prepared.manifest.classes_of(Role.UNSEEN)] == ["cup", "fish"]
    assert not prepared.manifest.classes_of(Role.VAL)


def test_a_killed_run_is_continued_with_what_is_whole(pictures: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    code = (
        "import sys; from pathlib import Path; from zssbir_cli.demo.pictures import *\n"
        "from zssbir_cli.preparation.roles import Unseen\n"
        "draw_pictures(Path(sys.argv[1]), draw_roles(3, Unseen(draw=13), 5), "
        "Look(seed=3, size=32, photos=2, sketches=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    deadline = time.monotonic() + 60
    while len(list(folder.glob("photo/*/*.jpg"))) < 9 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    drawn = sorted(folder.glob("photo/*/*.jpg"))
    assert 9 <= len(drawn) < 104
    kept, cut, empty = drawn[0], drawn[1], drawn[2]
    kept.with_name("0001.jpg.7.partial").write_bytes(b"half")
    cut.write_bytes(cut.read_bytes()[:-40])
    empty.write_bytes(b"")
    before = kept.stat().st_mtime_ns
    draw_pictures(folder, ROLES, LOOK)
    assert kept.stat().st_mtime_ns == before
    found, wanted = files_of(folder), files_of(pictures)
    assert {**found, ".lock": b""} == {**wanted, ".lock": b""}


def test_the_second_of_two_says_who_is_at_work(tmp_path: Path) -> None:
    folder = tmp_path / "set-pictures"
    with (
        Lock(folder / ".lock", "drawing the demo's pictures"),
        pytest.raises(DataError, match="in use by another process"),
    ):
        demo_set(tmp_path / "set")
    assert [path.name for path in folder.iterdir()] == [".lock"]


def test_other_contents_of_the_folders_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="files or options"):
        demo_set(tiny, seed=5)
    with pytest.raises(DataError, match="files or options"):
        demo_set(tiny, seed=3, photos=3)
    for name in ("set", "set-pictures"):
        place = tmp_path / name
        place.mkdir()
        (place / "mine.txt").write_text("kept")
        with pytest.raises(DataError, match="--out"):
            demo_set(tmp_path / "set")
        assert [path.name for path in place.iterdir()] == ["mine.txt"]
        (place / "mine.txt").unlink()
    assert not (tmp_path / "set-pictures" / RECORD).exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": 16}, "size 16"),
        ({"ambiguity": -0.1}, "ambiguity"),
        ({"photos": 0}, "0 photos"),
        ({"seed": -1}, "seed"),
        ({"unseen": ("cow",)}, "cow"),
        ({"unseen": 60}, "unseen"),
        ({"val": 60}, "validation"),
        ({"val": -1}, "val-classes"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, change: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        demo_set(tmp_path / "x", **change)
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_image(tiny: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    demo_set(tiny, seed=3, progress=lambda *at: seen.append(at))
    drawn = [(done, total) for what, done, total in seen if what == "drawing"]
    assert drawn[0] == (0, 3 * len(CLASSES))
    assert drawn[-1] == (3 * len(CLASSES), 3 * len(CLASSES))
    assert drawn == sorted(drawn)


def test_training_photos_show_no_unseen_class_even_in_the_background(tmp_path: Path) -> None:
    jobs = list(_jobs(tmp_path, ROLES, LOOK))
    shown = {role: {ROLES[o] for j in jobs if ROLES[j.name] is role for o in j.others} for role in Role}
    assert shown[Role.SEEN] == {Role.SEEN}
    assert shown[Role.VAL] == {Role.SEEN, Role.VAL}
    assert shown[Role.UNSEEN] == {Role.SEEN, Role.VAL, Role.UNSEEN}
