"""Score files: resuming, sharing the work, and refusing what does not belong to the data set."""

import contextlib
import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st

from zssbir_cli.data.scores import ScoreCache, read_scores, write_scores
from zssbir_cli.errors import DataError

FACTS = {"model": "m", "prompt": "a photo of {}"}


def maps(photos: range) -> np.ndarray:
    return (np.arange(photos.start, photos.stop)[:, None, None] + np.zeros((1, 3, 2))).astype(np.float16)


def cache(root: Path, count: int = 10, **facts: str) -> ScoreCache:
    return ScoreCache(root, "d" * 16, FACTS | facts, count, chunk=4)


def test_work_is_shared_and_resumed(tmp_path: Path) -> None:
    first = cache(tmp_path).missing(0, 2)
    assert first == [range(4), range(8, 10)]
    cache(tmp_path).put(first[1], maps(first[1]))  # then the run is killed, and goes on with one process
    rest = cache(tmp_path).missing()
    assert rest == [range(4), range(4, 8)]
    with pytest.raises(DataError, match="2 of 3 chunks are missing"):
        cache(tmp_path).finish()
    for photos in rest:
        cache(tmp_path).put(photos, maps(photos))
    path = cache(tmp_path).finish()
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name]
    scores = pickle.loads(pickle.dumps(read_scores(path, data="d" * 16, count=10)))
    assert scores.grid == (3, 2)
    assert [float(scores.read(i)[2, 1]) for i in range(10)] == list(range(10))
    assert cache(tmp_path).complete
    assert scores.facts == FACTS


def test_another_model_prompt_or_data_set_is_another_file(tmp_path: Path) -> None:
    paths = {cache(tmp_path).path, cache(tmp_path, prompt="{}").path, cache(tmp_path, model="x").path}
    paths |= {ScoreCache(tmp_path, "e" * 16, FACTS, 10, 4).path, cache(tmp_path, count=11).path}
    assert len(paths) == 5


def test_damaged_chunk_is_computed_again(tmp_path: Path) -> None:
    c = cache(tmp_path)
    for photos in c.missing():
        c.put(photos, maps(photos))
    victim = c.stage.folder / "000000004.npz"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-7])
    assert c.missing() == [range(4, 8)]
    place = whole.index(np.float16(5).tobytes() * 6)
    victim.write_bytes(whole[: place + 1] + b"\0" + whole[place + 2 :])
    assert c.missing() == [range(4, 8)]


def test_two_that_need_the_same_masks_both_get_them(tmp_path: Path) -> None:
    """The one that ends later finds the file made, and its fellow's chunks gone."""
    first, second = cache(tmp_path), cache(tmp_path)
    for photos in first.missing():
        first.put(photos, maps(photos))
    assert second.missing() == []
    path = first.finish()
    second.put(range(4, 8), maps(range(4, 8)))
    assert second.finish() == path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert read_scores(path, data="d" * 16, count=10).read(9)[0, 0] == 9


def test_processes_that_make_the_same_masks_at_once_share_the_work(tmp_path: Path) -> None:
    """Four real processes, as four trainings of one data set begin; each finds the file whole in the end."""
    context = multiprocessing.get_context("fork")
    start = context.Barrier(4)

    def work() -> None:
        own = cache(tmp_path)
        start.wait(30)
        while not own.complete and (missing := own.missing()):
            for photos in missing:
                own.put(photos, maps(photos))
        own.finish()
        assert read_scores(own.path, data="d" * 16, count=10).read(9)[0, 0] == 9
        os._exit(0)

    jobs = [context.Process(target=work) for _ in range(4)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(60)
    assert [job.exitcode for job in jobs] == [0] * 4
    assert [p.name for p in tmp_path.iterdir()] == [cache(tmp_path).path.name]


def test_altered_maps_do_not_count_as_made(tmp_path: Path) -> None:
    c = cache(tmp_path)
    for photos in c.missing():
        c.put(photos, maps(photos))
    raw = c.finish().read_bytes()
    place = raw.index(np.float16(5).tobytes() * 6)
    c.path.write_bytes(raw[: place + 1] + b"\0" + raw[place + 2 :])
    assert not c.complete
    with pytest.raises(DataError, match="damaged or altered"):
        read_scores(c.path, data="d" * 16, count=10)
    assert c.missing() == c.blocks


def test_scores_of_another_set_are_refused(tmp_path: Path) -> None:
    path = write_scores(tmp_path / "s.h5", maps(range(10)), data="d" * 16, facts={})
    with pytest.raises(DataError, match="made for data set"):
        read_scores(path, data="e" * 16, count=10)
    with pytest.raises(DataError, match="10 masks"):
        read_scores(path, data="d" * 16, count=11)
    with pytest.raises(DataError, match="is missing"):
        read_scores(tmp_path / "no.h5", data="d" * 16, count=10)
    with pytest.raises(DataError, match="finite"):
        write_scores(tmp_path / "n.h5", np.full((1, 2, 2), np.nan), data="d", facts={})
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


@cases(60)
@given(cut=st.integers(0, 4000), junk=st.binary(max_size=64))
def test_a_damaged_file_is_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("m") / "s.h5"
    whole = write_scores(path, maps(range(10)), data="d" * 16, facts=FACTS).read_bytes()
    path.write_bytes(whole[: min(cut, len(whole) - 1)] + junk)
    with contextlib.suppress(DataError):  # and nothing but a DataError
        assert len(read_scores(path, data="d" * 16, count=10)) == 10
