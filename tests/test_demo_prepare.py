"""The demo set on disk: complete or not there, the same for the same arguments, classes kept apart."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zssbir_cli.data.prepared import PreparedSet
from zssbir_cli.demo import CLASSES, draw_photo, draw_sketch
from zssbir_cli.demo import prepare as module
from zssbir_cli.demo.prepare import prepare_demo
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.files import Lock
from zssbir_cli.types import Modality, Part, Role

TINY = {"size": 32, "photos_per_class": 2, "sketches_per_class": 1, "workers": 1}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_demo(tmp_path_factory.mktemp("demo") / "set", seed=3, **TINY)


def test_everything_is_stored_and_reads_back(tiny: Path) -> None:
    prepared = PreparedSet.open(tiny)
    assert prepared.classes == list(CLASSES)
    roles = {role: len(prepared.manifest.classes_of(role)) for role in Role}
    assert roles == {Role.SEEN: len(CLASSES) - 18, Role.VAL: 5, Role.UNSEEN: 13}
    counts = {
        part: roles[role]
        for part, role in ((Part.TRAIN, Role.SEEN), (Part.VAL, Role.VAL), (Part.TEST, Role.UNSEEN))
    }
    for part, classes in counts.items():
        assert len(prepared.images(part, Modality.PHOTO)) == 2 * classes
        assert len(prepared.images(part, Modality.SKETCH)) == classes
    assert not list(tiny.parent.glob("*.partial"))


def test_images_are_what_the_generator_draws(tiny: Path) -> None:
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
    label = int(sketches.labels[4])
    drawn = draw_sketch(CLASSES[label], np.random.default_rng([3, label, int(Modality.SKETCH), 0]), 32)
    stored = Image.open(io.BytesIO(sketches.read(4).tobytes()))
    assert stored.format == "PNG"
    assert (np.asarray(stored) == drawn).all()


def test_the_same_arguments_give_the_same_set(tiny: Path, tmp_path: Path) -> None:
    again = prepare_demo(tmp_path / "again", seed=3, **TINY | {"workers": 2})
    other = prepare_demo(tmp_path / "other", seed=4, **TINY)
    identity = PreparedSet.open(tiny).identity
    assert PreparedSet.open(again).identity == identity
    assert PreparedSet.open(other).identity != identity
    before = (tiny / "manifest.json").stat().st_mtime_ns
    assert prepare_demo(tiny, seed=3, **TINY) == tiny
    assert (tiny / "manifest.json").stat().st_mtime_ns == before


def test_ambiguity_changes_photos_not_sketches(tiny: Path, tmp_path: Path) -> None:
    plain = PreparedSet.open(prepare_demo(tmp_path / "plain", seed=3, ambiguity=0.0, **TINY))
    usual = PreparedSet.open(tiny)
    for modality, same in ((Modality.SKETCH, True), (Modality.PHOTO, False)):
        a, b = (s.images(Part.TEST, modality) for s in (plain, usual))
        assert all((a.read(i).tobytes() == b.read(i).tobytes()) == same for i in range(len(a)))


def test_unseen_classes_by_name(tmp_path: Path) -> None:
    out = prepare_demo(tmp_path / "named", unseen=("cup", "fish"), val=0, **TINY)
    prepared = PreparedSet.open(out)
    assert [c.name for c in prepared.manifest.classes_of(Role.UNSEEN)] == ["cup", "fish"]
    assert not prepared.manifest.classes_of(Role.VAL)


def test_a_stopped_run_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, calls = tmp_path / "set", 0
    draw = module._draw

    def failing(job: module._Job) -> list[tuple[bytes, bytes | None]]:
        nonlocal calls
        calls += 1
        if calls == 60:
            raise KeyboardInterrupt
        return draw(job)

    monkeypatch.setattr(module, "_draw", failing)
    with pytest.raises(KeyboardInterrupt):
        prepare_demo(out, **TINY)
    assert not out.exists()
    monkeypatch.setattr(module, "_draw", draw)
    prepare_demo(out, **TINY)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".set.lock", "set"]
    PreparedSet.open(out)


def test_the_second_of_two_says_who_is_at_work(tmp_path: Path) -> None:
    with Lock(tmp_path / ".set.lock", "drawing the demo set"):
        (tmp_path / "set.partial").mkdir()
        with pytest.raises(DataError, match="in use by another process"):
            prepare_demo(tmp_path / "set", **TINY)
    assert (tmp_path / "set.partial").is_dir()  # what the first one draws is not touched


def test_other_contents_of_the_folder_are_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="other options"):
        prepare_demo(tiny, seed=5, **TINY)
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(DataError, match="--out"):
        prepare_demo(tmp_path, **TINY)
    assert (tmp_path / "mine.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"size": 8}, "size 8"),
        ({"ambiguity": -0.1}, "ambiguity"),
        ({"photos_per_class": 0}, "0 photos"),
        ({"seed": -1}, "seed"),
        ({"unseen": ("cow",)}, "cow"),
        ({"unseen": 60}, "unseen"),
        ({"val": 60}, "validation"),
    ],
)
def test_wrong_options_are_named(tmp_path: Path, change: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        prepare_demo(tmp_path / "x", **{**TINY, **change})
    assert not list(tmp_path.iterdir())


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    prepare_demo(tmp_path / "p", progress=lambda _, done, total: seen.append((done, total)), **TINY)
    assert seen[-1] == (3 * len(CLASSES), 3 * len(CLASSES))
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


def test_training_photos_show_no_unseen_class_even_in_the_background() -> None:
    from zssbir_cli.demo.prepare import _jobs, _roles
    from zssbir_cli.types import Part, Role

    roles = _roles(0, 10, 6)
    jobs = list(_jobs(roles, 0, 64, 0.5, 2, 2))
    shown = {part: {roles[o] for j in jobs if j.part == part for o in j.others} for part in Part}
    assert shown[Part.TRAIN] == {Role.SEEN}
    assert shown[Part.VAL] == {Role.SEEN, Role.VAL}
    assert shown[Part.TEST] == {Role.SEEN, Role.VAL, Role.UNSEEN}
