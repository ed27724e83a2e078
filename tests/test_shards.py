"""Shards and manifests: exact round trips, and nothing but clear errors on damage."""

import json
import multiprocessing
import os
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from prepare_helpers import tiny_png

from zssbir_cli.data import open_files
from zssbir_cli.data.images import decode_sketch
from zssbir_cli.data.manifest import ClassInfo, Manifest, read_manifest, write_manifest
from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.shards import (
    ShardWriter,
    content_digest,
    read_digests,
    read_index,
    read_sources,
)
from zssbir_cli.errors import DataError
from zssbir_cli.names import readable
from zssbir_cli.types import Modality, Part, Role


def make_set(root: Path, per_part: int = 5, max_images: int = 3) -> Path:
    """A tiny prepared set of two seen classes and one unseen one, several shards per part."""
    root.mkdir(parents=True, exist_ok=True)
    shards, number = [], 0
    for part, labels in ((Part.TRAIN, (0, 1)), (Part.TEST, (2,))):
        for modality in Modality:
            kind = {"dataset": "d", "split": "s", "part": part, "modality": modality}
            with ShardWriter(root, max_images=max_images, **kind) as writer:
                for i in range(per_part):
                    number += 1
                    writer.add(tiny_png(number), labels[i % len(labels)], f"{modality.name}/{number}.png")
            shards += writer.shards
    roles = ((0, "a", Role.SEEN), (1, "b", Role.SEEN), (2, "c", Role.UNSEEN))
    classes = tuple(ClassInfo(id=i, name=n, role=r) for i, n, r in roles)
    write_manifest(
        root, Manifest(name="d", split="s", classes=classes, shards=tuple(shards), tool_version="0")
    )
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny set. Read only."""
    return make_set(tmp_path_factory.mktemp("shards") / "set")


def test_images_labels_and_sources_come_back_across_shards(root: Path) -> None:
    images = PreparedSet.open(root).images(Part.TRAIN, Modality.PHOTO)
    assert len(images) == 5
    assert images.labels.tolist() == [0, 1, 0, 1, 0]
    assert images.labels.dtype == np.int32
    assert [images.read(i).tobytes() for i in range(5)] == [tiny_png(n) for n in range(6, 11)]
    assert images.sources == [f"PHOTO/{n}.png" for n in range(6, 11)]
    for wrong in (-1, 5):
        with pytest.raises(IndexError):
            images.read(wrong)
    assert len(PreparedSet.open(root).images(Part.VAL, Modality.PHOTO)) == 0
    with pytest.raises(ValueError, match="read-only"):
        images.read(0)[0] = 1


def test_writing_twice_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    again = make_set(tmp_path / "again")
    for path in root.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes()
    assert PreparedSet.open(again).identity == PreparedSet.open(root).identity


def test_identity_depends_on_images_and_roles_only(root: Path, tmp_path: Path) -> None:
    base = read_manifest(root)
    assert base.model_copy(update={"name": "other", "tool_version": "9"}).identity == base.identity
    assert base.model_copy(update={"split": "other"}).identity != base.identity
    other = make_set(tmp_path / "other", per_part=4)
    assert read_manifest(other).identity != base.identity


def _read_all(images: ImageSet, queue: "multiprocessing.Queue[list[bytes]]") -> None:
    queue.put([images.read(i).tobytes() for i in range(len(images))])


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_of_every_kind_read_the_same_bytes(root: Path, method: str) -> None:
    images = PreparedSet.open(root).images(Part.TEST, Modality.SKETCH)
    expected = [images.read(i).tobytes() for i in range(len(images))]
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=_read_all, args=(images, queue))
    process.start()
    assert queue.get(timeout=60) == expected
    process.join()


def test_pickles_are_small_and_hold_no_map(root: Path) -> None:
    images = PreparedSet.open(root).images(Part.TRAIN, Modality.SKETCH)
    images.read(0)
    data = pickle.dumps(images)
    assert len(data) < 4000
    assert pickle.loads(data).read(4).tobytes() == images.read(4).tobytes()


def test_a_leaving_exception_writes_nothing(tmp_path: Path) -> None:
    kind = {"dataset": "d", "split": "s", "part": Part.TRAIN, "modality": Modality.PHOTO}

    def interrupted() -> None:
        with ShardWriter(tmp_path, **kind) as writer:
            writer.add(b"x", 0, "a")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "clean"), [("é/ü.png", "é/ü.png"), ("a\udcff.png", "a\\xff.png"), ("a\nb\x00", "a\\x0ab\\x00")]
)
def test_hostile_names_become_plain_text(name: str, clean: str) -> None:
    assert readable(name) == clean


def change(root: Path, tmp_path: Path, **facts: object) -> Path:
    """A copy of the set whose manifest has other facts."""
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest.update(facts)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


CLASSES = [
    {"id": i, "name": n, "role": r} for i, n, r in ((0, "a", "seen"), (1, "b", "seen"), (2, "c", "unseen"))
]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"format_version": 3}, "format version 3"),
        (
            {"classes": [*CLASSES, {"id": 3, "name": "a", "role": "unseen"}]},
            "'a' appears as seen and as unseen",
        ),
        ({"classes": CLASSES[1:]}, "class ids"),
        ({"classes": []}, "classes"),
        ({"extra": 1}, "extra"),
        ({"shards": [{"file": "../../x.h5"}]}, "shards"),
        ({"name": None}, "name"),
    ],
)
def test_manifests_that_contradict_themselves(
    root: Path, tmp_path: Path, facts: dict[str, object], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        PreparedSet.open(change(root, tmp_path, **facts))


def test_a_class_moved_to_another_role_is_noticed_on_reading(root: Path, tmp_path: Path) -> None:
    moved = [dict(c) for c in CLASSES]
    moved[1]["role"] = "unseen"
    copy = PreparedSet.open(change(root, tmp_path, classes=moved))
    with pytest.raises(DataError, match="holds images of the unseen class 'b'"):
        copy.images(Part.TRAIN, Modality.PHOTO)
    assert len(copy.images(Part.TEST, Modality.PHOTO)) == 5


def test_swapped_and_shortened_shards_are_noticed(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    a, b = copy / "train-photo-00000.h5", copy / "train-photo-00001.h5"
    shutil.copy(a, b)
    with pytest.raises(DataError, match=r"bytes instead of|is not the shard"):
        PreparedSet.open(copy).images(Part.TRAIN, Modality.PHOTO)
    a.write_bytes(a.read_bytes()[:-1])
    with pytest.raises(DataError, match="bytes instead of"):
        PreparedSet.open(copy)


def test_no_prepared_set_at_all(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="zssbir prepare"):
            PreparedSet.open(path)


def test_shards_that_cannot_be_mapped_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("blob", data=np.arange(100, dtype=np.uint8), chunks=(10,))
        file.attrs["format_version"] = 2
    with pytest.raises(DataError, match="not contiguous"):
        read_index(tmp_path / "x.h5")


def _error_of(action: Callable[[], object]) -> str:
    """The text of a clear error, "" when there is none; anything else propagates and fails the test."""
    try:
        action()
    except DataError as error:
        return str(error)
    return ""


def _decode_all(path: Path) -> None:
    images = ImageSet(Part.TRAIN, Modality.PHOTO, [read_index(path)])
    for i in range(len(images)):
        decode_sketch(images.read(i))


@cases(200)
@given(
    edits=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 9000),
)
def test_damaged_shards_give_clear_errors_only(
    root: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]], cut: int
) -> None:
    raw = bytearray((root / "train-photo-00000.h5").read_bytes())
    raw = raw[: len(raw) - cut % len(raw)]
    for at, value in edits:
        raw[at % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / "fuzz.h5"
    path.write_bytes(raw)
    for read in (_decode_all, read_sources, read_digests, content_digest):
        error = _error_of(lambda read=read: read(path))
        assert error == "" or "fuzz.h5" in error


@cases(200)
@given(
    edits=st.lists(st.tuples(st.integers(0, 1 << 16), st.binary(max_size=6)), min_size=1, max_size=5),
    noise=st.one_of(st.none(), st.binary(max_size=60), st.text(max_size=60).map(str.encode)),
)
def test_damaged_manifests_give_clear_errors_only(
    root: Path, tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, bytes]], noise: bytes | None
) -> None:
    raw = (root / "manifest.json").read_bytes() if noise is None else noise
    for at, value in edits:
        place = at % (len(raw) + 1)
        raw = raw[:place] + value + raw[place + len(value) :]
    folder = tmp_path_factory.getbasetemp() / "fuzz-manifest"
    folder.mkdir(exist_ok=True)
    (folder / "manifest.json").write_bytes(raw)
    error = _error_of(lambda: read_manifest(folder).identity)
    assert error == "" or "manifest.json" in error


def test_a_shard_cut_short_while_in_use_is_named(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "set"))
    images = PreparedSet.open(copy).images(Part.TRAIN, Modality.PHOTO)
    first = bytes(images.read(0))
    os.truncate(copy / "train-photo-00000.h5", 1000)
    with pytest.raises(
        DataError, match=r"train-photo-00000\.h5 was cut short; run the same `zssbir prepare`"
    ):
        images.read(0)
    assert first
    assert len(images.read(3))  # the next shard is whole


def test_more_shards_than_may_be_open(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = PreparedSet.open(root).images(Part.TRAIN, Modality.PHOTO)
    every = [bytes(images.read(i)) for i in range(len(images))]
    monkeypatch.setattr(open_files, "OPEN_FILES", 1)
    images = PreparedSet.open(root).images(Part.TRAIN, Modality.PHOTO)
    order = [*range(len(images)), *reversed(range(len(images)))]
    assert [bytes(images.read(i)) for i in order] == [every[i] for i in order]


def test_one_set_is_read_from_eight_threads_with_evictions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_set(tmp_path / "many", per_part=60, max_images=2)
    monkeypatch.setattr(open_files, "OPEN_FILES", 2)
    images = PreparedSet.open(made).images(Part.TRAIN, Modality.PHOTO)
    expected = [tiny_png(n) for n in range(61, 121)]

    def wrong(seed: int) -> int:
        picks = np.random.default_rng(seed).integers(0, len(images), 3000).tolist()
        return sum(images.read(i).tobytes() != expected[i] for i in picks)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


def test_sources_that_are_no_texts_are_an_error(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "train-photo-00000.h5"
    path.write_bytes((root / path.name).read_bytes())
    with h5py.File(path, "r+") as file:
        n = len(file["label"])
        del file["source"], file["digest"]
        file.create_dataset("source", (n,), dtype=h5py.vlen_dtype(np.int64))
        file.create_dataset("digest", (n, 32), dtype=np.float64)
    for read in (read_sources, content_digest, read_digests):
        with pytest.raises(DataError, match=r"holds no (texts|integers)"):
            read(path)
