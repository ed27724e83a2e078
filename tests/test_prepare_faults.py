"""Full disks, damage, changed sources, two at once, read-only folders: nothing is lost, and what is wrong is said."""

import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from prepare_helpers import CLASSES, files_of, make_folder

from zssbir_cli.data.prepared import ImageSet, PreparedSet
from zssbir_cli.data.shards import ShardWriter, read_index
from zssbir_cli.errors import DataError
from zssbir_cli.preparation.choices import Choices
from zssbir_cli.preparation.journal import Journal
from zssbir_cli.preparation.verify import verify
from zssbir_cli.types import Modality, Part
from zssbir_cli.workflows.prepare import Prepared, prepare_own


def prepare(folder: Path, out: Path, **options: object) -> Prepared:
    """The command under test."""
    told = options.pop("told", [])
    return prepare_own(
        [folder], name="own", out=out, choices=Choices(unseen="ant,cup", **options), say=told.append
    )


def cli(*args: object, **options: object) -> subprocess.CompletedProcess[str]:
    """`zssbir` in a process of its own."""
    command = [sys.executable, "-m", "zssbir_cli", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def stored(root: Path) -> dict[str, bytes]:
    """The files of a set but the lock."""
    return {name: data for name, data in files_of(root).items() if name != ".lock"}


def test_a_full_disk_ends_in_a_line_and_keeps_what_is_finished(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=2, sketches=2)
    big = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    Image.fromarray(big).save(folder / "photo" / "hat" / "big.png")
    args = ("prepare", folder, "--unseen", "ant,cup", "--name", "own", "--out", tmp_path / "out")
    limit = (100_000, 100_000)
    full = cli(*args, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    assert full.returncode == 3, full.stderr
    last = full.stderr.splitlines()[-1]
    assert "train-photo-00000.h5 cannot be written: File too large" in last
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("test-*.h5")}
    assert len(kept) == 2
    assert not list((tmp_path / "out").glob("*.partial"))
    again = cli(*args)
    assert again.returncode == 0, again.stderr
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("test-*.h5")} == kept
    assert stored(tmp_path / "out") == stored(prepare(folder, tmp_path / "whole").root)


def test_a_damaged_image_is_noticed_when_it_is_read_and_prepared_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    out = prepare(folder, tmp_path / "out").root
    before = stored(out)
    shard = out / "train-photo-00000.h5"
    index = read_index(shard)
    data = bytearray(shard.read_bytes())
    data[index.blob_at + int(index.offsets[3]) + 200] ^= 4
    shard.write_bytes(data)
    images = PreparedSet.open(out).images(Part.TRAIN, Modality.PHOTO)
    assert len(images.read(2))
    with pytest.raises(DataError, match=r"train-photo-00000\.h5 is damaged at its image 3; run the same"):
        images.read(3)
    told: list[str] = []
    assert prepare(folder, out, told=told).fresh
    assert any("train-photo-00000.h5 is damaged; preparing it again" in t for t in told)
    assert stored(out) == before


def test_sets_of_format_1_are_read(tmp_path: Path) -> None:
    out = prepare(make_folder(tmp_path / "own"), tmp_path / "out").root
    new = PreparedSet.open(out)
    expected = new.images(Part.TEST, Modality.PHOTO).read(1).tobytes()
    manifest = json.loads((out / "manifest.json").read_text())
    for shard in manifest["shards"]:
        with h5py.File(out / shard["file"], "r+") as file:
            del file["crc32"]
            file.attrs["format_version"] = 1
        shard["bytes"] = (out / shard["file"]).stat().st_size
        shard["file_sha256"] = None
    old = {k: v for k, v in manifest.items() if not k.startswith("files_")} | {"format_version": 1}
    old["classes"] = [{k: v for k, v in c.items() if k != "leaked"} for c in old["classes"]]
    (out / "manifest.json").write_text(json.dumps(old))
    read = PreparedSet.open(out)
    assert read.identity == new.identity
    assert read.images(Part.TEST, Modality.PHOTO).read(1).tobytes() == expected
    assert verify(out).problems == ()
    told: list[str] = []
    assert not prepare(tmp_path / "own", out, told=told).fresh
    assert any("prepared by an older version" in t for t in told)


def test_masks_have_checksums_too(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, dataset="d", split="s", part=Part.TEST, modality=Modality.PHOTO) as writer:
        writer.add(b"image", 0, "a.jpg", mask=b"mask")
    path = tmp_path / writer.shards[0].file
    index = read_index(path)
    data = bytearray(path.read_bytes())
    data[index.mask_at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="is damaged"):
        read_index(path)
    images = ImageSet(Part.TEST, Modality.PHOTO, [index])  # opened before the damage
    assert images.read(0).tobytes() == b"image"
    with pytest.raises(DataError, match="is damaged"):
        images.read_mask(0)


def bitmap(path: Path, seed: int) -> None:
    """A BMP: every one of a side has one size."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def test_a_source_file_replaced_by_one_of_the_same_size_and_time(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    photo = folder / "photo" / "hat" / "x.bmp"
    bitmap(photo, 1)
    out = prepare(folder, tmp_path / "out").root
    times = photo.stat().st_atime_ns, photo.stat().st_mtime_ns
    bitmap(photo, 2)
    os.utime(photo, ns=times)
    with pytest.raises(DataError, match="prepared from files that have changed since"):
        prepare(folder, out)
    bitmap(photo, 1)
    state = PreparedSet.open(out).manifest.files_state
    assert not prepare(folder, out).fresh
    assert PreparedSet.open(out).manifest.files_state != state


def test_an_interrupted_run_never_mixes_old_and_new_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own")
    photo = folder / "photo" / "ant" / "x.bmp"
    bitmap(photo, 1)
    out = tmp_path / "out"
    script = (
        "import sys, os, signal; from pathlib import Path; sys.path.insert(0, sys.argv[3])\n"
        "from zssbir_cli.preparation import build\n"
        "build.write_manifest = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from test_prepare_faults import prepare; prepare(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", script, str(folder), str(out), str(Path(__file__).parent)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == -9
    assert (out / "test-photo-00000.h5").exists()
    bitmap(photo, 2)
    prepare(folder, out)
    assert stored(out) == stored(prepare(folder, tmp_path / "whole").root)


def test_two_at_once_end_in_one_whole_set(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=8, sketches=8)
    args = ["prepare", str(folder), "--unseen", "ant,cup", "--name", "own", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "zssbir_cli", *args]
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    ends = [(p.communicate()[1], p.returncode) for p in running]
    assert 0 in {rc for _, rc in ends}
    assert all(
        rc == 0 or (rc == 3 and "is in use by another process (zssbir prepare, pid" in err)
        for err, rc in ends
    )
    assert stored(tmp_path / "out") == stored(prepare(folder, tmp_path / "whole").root)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs to give up rights")
def test_read_only_sources_and_sets_work(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", photos=2, sketches=2)
    out = prepare(folder, tmp_path / "out").root
    assert not prepare(folder, out).fresh  # what that needs is imported before the rights are gone
    for path in (out, *out.iterdir(), folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (tmp_path, *tmp_path.parents):
        if path.name.startswith(("pytest", "popen", "test_")):
            path.chmod(0o755)
    assert as_nobody(folder, out) == "nothing to do"
    assert "new cannot be written: Permission denied" in as_nobody(folder, tmp_path / "new")


def as_nobody(folder: Path, out: Path) -> str:
    """What `prepare` says to a user without rights: the error, or that there is nothing to do."""
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def child() -> None:
        os.setuid(65534)
        try:
            answers.put("done" if prepare(folder, out).fresh else "nothing to do")
        except Exception as error:
            answers.put(str(error))

    process = context.Process(target=child)
    process.start()
    answer = answers.get(timeout=60)
    process.join()
    return str(answer)


def test_a_file_where_the_set_should_go(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("x")
    with pytest.raises(DataError, match="out cannot be read: Not a directory"):
        prepare(make_folder(tmp_path / "own"), tmp_path / "out")


def test_a_part_of_which_nothing_is_left(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "own", CLASSES[:6], photos=1, sketches=1)
    for name in ("ant", "cup"):
        (folder / "photo" / name / f"{name}_0.jpg").write_bytes(b"no picture")
    with pytest.raises(
        DataError, match=r"none of the test 2 photos of own could be used; first: photo/ant/ant_0\.jpg"
    ):
        prepare(folder, tmp_path / "out")
    shutil.copy(folder / "photo" / "dog" / "dog_0.jpg", folder / "photo" / "ant" / "ant_0.jpg")
    shutil.rmtree(folder / "photo" / "dog")
    shutil.rmtree(folder / "sketch" / "dog")
    told: list[str] = []
    prepare(folder, tmp_path / "out", told=told)
    assert any("no photos are left of 1 class: 'cup'" in t for t in told)


def test_what_an_unfinished_set_of_other_options_is_said_to_be(tmp_path: Path) -> None:
    pictures, out, told = make_folder(tmp_path / "pictures"), tmp_path / "out", list[str]()
    prepare(pictures, tmp_path / "other")
    out.mkdir()
    Journal(out).start("another plan", "another state")
    prepare(pictures, out, told=told)
    assert [t for t in told if "starting anew" in t and "other options, other files" in t]
    assert not [t for t in told if "continuing" in t]
    assert files_of(out) == files_of(tmp_path / "other")
