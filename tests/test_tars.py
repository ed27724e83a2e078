"""Embedding tar shards in parts that can be killed, and joining them."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from retrieval_helpers import make_run
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.embedding.join import join_galleries
from zssbir_cli.embedding.shares import shard_files, share_of
from zssbir_cli.embedding.tars import ShardsResult
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation import pictures
from zssbir_cli.preparation.archives import open_source
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.search import search_sketches
from zssbir_cli.workflows.search_pages import changed_photos

JUNK = (1, 3)
"""Shard and number of the picture that is none."""


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def shards(tmp_path: Path) -> str:
    """Three shards of ten pictures, each with a text beside it, as webdataset has them."""
    rng = np.random.default_rng(0)
    for shard in range(3):
        with tarfile.open(tmp_path / f"s-{shard:02d}.tar", "w") as tar:
            for i in range(10):
                out = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (20 + i, 30, 3), dtype=np.uint8)).save(out, "PNG")
                picture = b"junk" if (shard, i) == JUNK else out.getvalue()
                for name, raw in ((f"{shard}{i}.png", picture), (f"{shard}{i}.txt", b"a caption")):
                    member = tarfile.TarInfo(name)
                    member.size = len(raw)
                    tar.addfile(member, io.BytesIO(raw))
    return str(tmp_path / "s-{00..02}.tar")


def do(run: Path, shards: str, out: Path, part: str = "1/1", **options: object) -> ShardsResult:
    result = embed(run, photos=shards, out=out, parts=[part], workers=0, batch=4, **options).shards  # type: ignore[arg-type]
    assert result is not None
    return result


def test_parts_together_embed_every_shard_once_and_are_joined(tmp_path: Path, run: Path, shards: str) -> None:
    out = tmp_path / "parts"
    first, second = do(run, shards, out, "1/2"), do(run, shards, out, "2/2")
    assert [f.name for f in first.files] == ["s-00.h5", "s-02.h5"]
    assert [f.name for f in second.files] == ["s-01.h5"]
    assert second.skipped == (("s-01.tar/13.png", "not an image"),)
    assert join_galleries(sorted(out.iterdir()), tmp_path / "all.h5") == 29
    joined = read_embeddings(tmp_path / "all.h5")
    assert joined.sources == tuple(
        f"s-0{s}.tar/{s}{i}.png" for s in range(3) for i in range(10) if (s, i) != JUNK
    )
    assert [s.name for s in joined.skipped] == ["s-01.tar/13.png"]
    shown = pictures.jpeg_of_gallery(joined, 12, 20)  # read from the tar
    assert shown is not None
    assert Image.open(io.BytesIO(shown)).size == (20, 15)
    with tarfile.open(tmp_path / "s-02.tar") as tar:  # the same vectors as of loose files
        tar.extractall(tmp_path / "loose", filter="data")
    loose = embed(run, photos=tmp_path / "loose", workers=0).folder
    assert loose is not None
    np.testing.assert_allclose(joined.embedding[-10:], read_embeddings(loose.path).embedding, atol=1e-5)


def test_a_picture_that_is_another_now_is_told_and_not_shown(tmp_path: Path, run: Path, shards: str) -> None:
    """Of a shard that was packed anew, with the same names, and one that is gone."""
    do(run, shards, tmp_path / "parts")
    join_galleries(sorted((tmp_path / "parts").iterdir()), tmp_path / "all.h5")
    first = tmp_path / "s-00.tar"
    with tarfile.open(first) as tar:
        tar.extractall(tmp_path / "loose", filter="data")
    like = tmp_path / "loose" / "05.png"
    result = search_sketches([], tmp_path / "all.h5", run=run, k=29, like=[like])
    assert changed_photos(result) == []
    assert result.found[0].hits[0].source == "s-00.tar/05.png"
    (tmp_path / "loose" / "03.png").write_bytes(like.read_bytes())
    with tarfile.open(first, "w") as tar:
        for file in sorted((tmp_path / "loose").iterdir()):
            tar.add(file, file.name)
    (tmp_path / "s-02.tar").unlink()
    gone = [f"s-02.tar/2{i}.png" for i in range(10)]
    assert sorted(changed_photos(result)) == ["s-00.tar/03.png", *gone]
    assert [picture is None for picture in pictures.of_gallery(result.gallery, [3, 5])] == [True, False]


def test_a_large_photo_finds_itself_in_a_shard(tmp_path: Path, run: Path) -> None:
    """A query is decoded as the photos of a shard were: large ones at a part of their size."""
    coarse = np.random.default_rng(3).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(coarse.repeat(20, 0).repeat(20, 1)).save(tmp_path / "large.jpg")
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(tmp_path / "large.jpg", "large.jpg")
    (part,) = do(run, str(tmp_path / "s.tar"), tmp_path / "parts").files
    embed(run, photos=tmp_path, out=tmp_path / "loose.h5", workers=0)
    scores = [
        search_sketches([], place, run=run, k=1, like=[shutil.copy(tmp_path / "large.jpg", tmp_path / "q.jpg")])
        .found[0].hits[0].score for place in (part, tmp_path / "loose.h5")
    ]  # fmt: skip
    assert scores[0] == scores[1] == pytest.approx(1, abs=1e-7)


def test_finished_shards_are_kept_while_their_bytes_are_the_same(
    tmp_path: Path, run: Path, shards: str
) -> None:
    out = tmp_path / "parts"
    assert do(run, shards, out).made == 3
    assert do(run, shards, out).made == 0
    raw = bytearray((tmp_path / "s-01.tar").read_bytes())
    at = raw.index(b"a caption")
    raw[at] ^= 1  # of the same size; the time is put back below
    before = (tmp_path / "s-01.tar").stat()
    (tmp_path / "s-01.tar").write_bytes(raw)
    os.utime(tmp_path / "s-01.tar", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert do(run, shards, out).made == 1
    damaged = bytearray((out / "s-00.h5").read_bytes())
    row = read_embeddings(out / "s-00.h5").embedding[2].tobytes()
    damaged[damaged.index(row)] ^= 1
    (out / "s-00.h5").write_bytes(damaged)
    assert do(run, shards, out).made == 1
    assert do(run, shards, out, half=True).made == 3


KILLED = """
import os, signal, sys
from zssbir_cli.data.stage import Stage
from zssbir_cli.workflows.embed import embed
put, done = Stage.put, []
def count(self, name, **arrays):
    put(self, name, **arrays)
    done.append(name)
    if len(done) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
Stage.put = count
embed(sys.argv[1], photos=sys.argv[2], out=sys.argv[3], parts=["1/1"], workers=0, batch=4)
"""


def test_a_killed_part_continues_within_its_shard(tmp_path: Path, run: Path, shards: str) -> None:
    out = tmp_path / "parts"
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(run), shards, str(out)], capture_output=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [p.name for p in out.glob("*.h5")] == ["s-00.h5"]
    told: list[tuple[str, int, int]] = []
    result = do(run, shards, out, progress=lambda *what: told.append(what))
    assert result.made == 2
    assert told[0] == ("embedding s-01.tar (2 of 3)", 8, 10)
    assert sorted(p.name for p in out.iterdir()) == ["s-00.h5", "s-01.h5", "s-02.h5"]
    whole = do(run, shards, tmp_path / "whole")
    for mine, right in zip(result.files, whole.files, strict=True):
        a, b = read_embeddings(mine), read_embeddings(right)
        assert a.sources == b.sources
        np.testing.assert_allclose(a.embedding, b.embedding, atol=1e-5)


def test_two_parts_at_once_and_the_same_part_twice(tmp_path: Path, run: Path, shards: str) -> None:
    out = tmp_path / "parts"
    line = [
        sys.executable,
        "-m",
        "zssbir_cli",
        "embed",
        "--photos",
        shards,
        "--run",
        str(run),
        "--out",
        str(out),
    ]
    jobs = [
        subprocess.Popen([*line, "--part", part, "--workers", "0", "--batch", "2"], stderr=subprocess.PIPE)
        for part in ("1/2", "2/2", "2/2")
    ]
    outcomes = [(job.communicate()[1], job.returncode) for job in jobs]
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert sorted(p.name for p in out.iterdir()) == ["s-00.h5", "s-01.h5", "s-02.h5"]
    assert sum(len(read_embeddings(p)) for p in out.iterdir()) == 29


@pytest.mark.parametrize("damage", ["header", "cut", "end"])
def test_a_damaged_shard_is_named_and_the_others_are_done(
    tmp_path: Path, run: Path, shards: str, damage: str
) -> None:
    shard = tmp_path / "s-01.tar"
    raw = bytearray(shard.read_bytes())
    at = raw.index(b"15.png")
    if damage == "header":
        raw[at + 1] ^= 1
    shard.write_bytes(raw if damage == "header" else raw[: at + 700] if damage == "cut" else raw[:at])
    with pytest.raises(DataError, match=r"2 shards of 3 done; .*s-01\.tar is (damaged|cut short)"):
        do(run, shards, tmp_path / "parts")
    assert sorted(p.name for p in (tmp_path / "parts").iterdir()) == ["s-00.h5", "s-02.h5"]
    with pytest.raises(
        DataError, match=r"s-01\.tar is (damaged|cut short)"
    ):  # `prepare` reads tars in the same way
        open_source(shard).scan()


def test_parts_that_do_not_belong_together_are_refused(
    tmp_path: Path, run: Path, shards: str, tiny_recipe: Path
) -> None:
    other = make_run(tmp_path / "runs" / "two", tiny_recipe, seed=1)
    a, b = do(run, shards, tmp_path / "a").files, do(other, shards, tmp_path / "b").files
    out = tmp_path / "all.h5"
    with pytest.raises(DataError, match=r"b/s-01\.h5: made with other weights than .*a/s-00\.h5"):
        join_galleries([a[0], b[1]], out)
    with pytest.raises(DataError, match=r"s-00\.tar/00\.png is also in"):
        join_galleries([a[0], a[1], a[0]], out)
    with pytest.raises(UsageError, match="name the embeddings files"):
        join_galleries([], out)
    assert not out.exists()


def test_a_shard_without_a_part_is_named(tmp_path: Path, run: Path, shards: str) -> None:
    parts, out = do(run, shards, tmp_path / "a").files, tmp_path / "all.h5"
    with pytest.raises(
        DataError, match=r"s-01\.tar: no part of this shard \(1 of 3 are missing\); embed them first"
    ):
        join_galleries([parts[0], parts[2]], out, shards=shards)
    with pytest.raises(
        DataError, match=r"s-02\.h5: a part of no shard of .*s-\{00\.\.01\}\.tar; leave it out"
    ):
        join_galleries(parts, out, shards=tmp_path / "s-{00..01}.tar")
    assert not out.exists()
    refused = CliRunner().invoke(app, ["embed", "--join", str(out), str(parts[0]), "--photos", str(tmp_path)])
    assert "with --join, the shards that must all be there" in str(refused.exception)
    done = CliRunner().invoke(app, ["embed", "--join", str(out), *map(str, parts), "--photos", shards])
    assert done.exit_code == 0, done.output
    assert len(read_embeddings(out)) == 29


def test_shards_are_named_by_ranges(tmp_path: Path, shards: str) -> None:
    assert [f.name for f in shard_files(shards)] == ["s-00.tar", "s-01.tar", "s-02.tar"]
    with pytest.raises(DataError, match=r"s-03\.tar: no such shard \(2 of 5 are missing\)"):
        shard_files(tmp_path / "s-{00..04}.tar")
    with pytest.raises(UsageError, match=r"\{4\.\.2\} holds no number"):
        shard_files(tmp_path / "s-{4..2}.tar")
    for i in range(2):
        for j in range(9, 11):
            (tmp_path / f"d{i}").mkdir(exist_ok=True)
            (tmp_path / f"d{i}" / f"{j:02d}.tar").touch()
    found = shard_files(tmp_path / "d{0..1}" / "{09..10}.tar")
    assert [f"{f.parent.name}/{f.name}" for f in found] == [
        "d0/09.tar",
        "d0/10.tar",
        "d1/09.tar",
        "d1/10.tar",
    ]


def test_parts_are_numbered_by_hand_by_torchrun_and_by_slurm() -> None:
    assert share_of("2/8", {"RANK": "1", "WORLD_SIZE": "2"}) == (2, 8)
    assert share_of("auto", {}) == (1, 1)
    assert share_of("auto", {"RANK": "1", "WORLD_SIZE": "4"}) == (2, 4)
    slurm = {
        f"SLURM_ARRAY_TASK_{k}": v for k, v in {"ID": "14", "MIN": "10", "COUNT": "3", "STEP": "2"}.items()
    }
    assert share_of("auto", slurm) == (3, 3)
    assert share_of("auto", slurm | {"RANK": "1", "WORLD_SIZE": "2"}) == (6, 6)
    for wrong in ("0/8", "9/8", "test", "1", "-1/2"):
        with pytest.raises(UsageError, match="I/N"):
            share_of(wrong, {})


def test_what_shards_cannot_do_is_said(tmp_path: Path, run: Path, shards: str) -> None:
    with pytest.raises(UsageError, match="--out DIR"):
        embed(run, photos=shards)
    with pytest.raises(UsageError, match="--index is for a table"):
        embed(run, photos=shards, out=tmp_path / "parts", index=True)
    for folder in ("d0", "d1"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "s.tar").write_bytes((tmp_path / "s-00.tar").read_bytes())
    with pytest.raises(UsageError, match=r"two shards are called s\.tar"):
        do(run, str(tmp_path / "d{0..1}" / "s.tar"), tmp_path / "parts")
