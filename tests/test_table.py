"""Galleries as LanceDB tables: written in step with their embeddings file, searched exactly or by an index."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from retrieval_helpers import make_run

from zssbir_cli.data import table as tables
from zssbir_cli.data.embeddings import EmbeddingInfo, Embeddings, read_embeddings, write_embeddings
from zssbir_cli.data.hdf5 import row_sums
from zssbir_cli.data.table import open_table, write_table
from zssbir_cli.embedding.gallery import open_gallery
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.evaluation.pictures import of_gallery
from zssbir_cli.names import table_address
from zssbir_cli.retrieval.search import search
from zssbir_cli.types import Modality
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.search import search_sketches
from zssbir_cli.workflows.search_pages import changed_photos

lancedb = pytest.importorskip("lancedb", reason="needs the extra lance: python -m pip install '.[lance]'")
INFO = EmbeddingInfo(checkpoint="c" * 64, made="{}", precision="fp32", classes=("a", "b"))


def gallery(count: int, width: int = 16, seed: int = 0, dtype: type[np.floating] = np.float32) -> Embeddings:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(dtype)
    kind = np.full(count, int(Modality.PHOTO), np.uint8)
    names = tuple(f"it's {i:05d}.jpg" for i in range(count))
    return Embeddings(rows, row_sums(rows), np.full(count, -1, np.int32), kind, names, INFO)


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(12):
        picture(tmp_path / "photos" / f"it's {i:02d}.jpg", i)
    return tmp_path / "photos"


def picture(path: Path, seed: int) -> None:
    coarse = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize((40, 40)).save(path)


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    image = Image.new("L", (60, 60), 255)
    ImageDraw.Draw(image).ellipse((10, 15, 50, 45), outline=0, width=3)
    image.save(tmp_path / "s.png")
    return tmp_path / "s.png"


def test_a_table_follows_its_folder_and_finds_what_the_file_finds(
    tmp_path: Path, run: Path, photos: Path, sketch: Path
) -> None:
    table = tmp_path / "p.lance"
    first = embed(run, photos=photos, out=table, workers=0)
    assert first.files == (table,)
    assert "12 rows, 12 added, 0 removed" in first.note
    picture(photos / "new.jpg", 50)
    picture(photos / "it's 03.jpg", 60)
    (photos / "it's 04.jpg").unlink()
    assert "12 rows, 2 added, 2 removed" in embed(run, photos=photos, out=table, workers=0).note
    assert "12 rows, 0 added, 0 removed" in embed(run, photos=photos, out=table, workers=0).note
    exact = search_sketches([sketch], photos, run=run, k=12, like=[photos / "new.jpg"])
    found = search_sketches([sketch], table, k=12, like=[photos / "new.jpg"])
    assert found.photos == 12
    for mine, right in zip(found.found, exact.found, strict=True):
        assert [(h.rank, h.score, h.source) for h in mine.hits] == [
            (h.rank, h.score, h.source) for h in right.hits
        ]
        assert mine.hits


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_search_is_exact_and_equal_scores_stand_in_order(tmp_path: Path, dtype: type[np.floating]) -> None:
    stored = gallery(3000, dtype=dtype)
    rows = stored.embedding.copy()
    rows[1000:1600] = rows[7]  # more equal ones than are looked at first
    names = tuple(f"{3000 - i:05d}.jpg" for i in range(3000))  # in another order than the table's rows
    stored = replace(stored, embedding=rows, checksum=row_sums(rows), sources=names)
    address = str(tmp_path / "t.lance")
    assert write_table(address, [stored], INFO).rows == 3000
    table = open_table(address)
    assert table.info == INFO
    wide = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for i in (7, 42):
        picked = table.pick(wide[i : i + 1].astype(np.float32), 5)
        found = search(torch.from_numpy(wide[i : i + 1]), picked.embedding, 5).rows[0]
        right = sorted(range(3000), key=lambda j: (-round(float(wide[j] @ wide[i]), 9), names[j]))[:5]
        assert [picked.sources[j] for j in found] == [names[j] for j in right]


def test_a_write_that_was_killed_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then a table that is new is refused, and of another one what it was before is searched."""
    stored, address = gallery(100), str(tmp_path / "t.lance")
    monkeypatch.setattr(tables, "BLOCK", 30)

    def stop(what: str, done: int, total: int) -> None:
        if done == 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_table(address, [stored], INFO, progress=stop)
    with pytest.raises(
        DataError, match="never written to its end; run the same `zssbir embed` command again"
    ):
        open_table(address)
    change = write_table(address, [stored], INFO)
    assert (change.rows, change.added) == (100, 40)
    assert len(open_table(address).pick(stored.embedding, 1)) == 100
    for other, info in ((gallery(100, seed=1), INFO), (gallery(100), replace(INFO, checkpoint="d" * 64))):
        with pytest.raises(KeyboardInterrupt):
            write_table(address, [other], info, progress=stop)
        before = open_table(address)
        assert (before.info, before.rows) == (INFO, 100)
        np.testing.assert_array_equal(before.pick(stored.embedding, 1).embedding, stored.embedding)


def test_old_versions_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = str(tmp_path / "t.lance")
    monkeypatch.setattr(tables, "BLOCK", 10)
    monkeypatch.setattr(tables, "KEEP_VERSIONS", tables.timedelta(microseconds=1))
    write_table(address, [gallery(200)], INFO)
    assert len(list((tmp_path / "t.lance" / "data").iterdir())) == 1


def test_a_table_of_other_facts_is_written_anew(tmp_path: Path) -> None:
    stored, address = gallery(50), str(tmp_path / "t.lance")
    write_table(address, [stored], INFO)
    other = replace(INFO, checkpoint="d" * 64)
    assert write_table(address, [stored], other).added == 50
    assert open_table(address).info == other
    assert write_table(address, [gallery(50, 8)], other).rows == 50


def test_an_index_is_for_many_photos_and_its_share_of_exact_results_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path, photos: Path, sketch: Path
) -> None:
    table = tmp_path / "p.lance"
    assert "no index" in embed(run, photos=photos, out=table, index=True, workers=0).note
    with pytest.raises(DataError, match="no index for --approximate"):
        search_sketches([sketch], table, approximate=True)
    with pytest.raises(UsageError, match="--approximate is for tables"):
        search_sketches([sketch], photos, run=run, approximate=True)
    filled = open_table(str(table))
    monkeypatch.setattr(tables, "INDEX_ROWS", 1000)
    width = filled._table.schema.field("vector").type.list_size
    stored = gallery(3000, width)
    assert write_table(str(table), [stored], filled.info, index=True).indexed
    found = search_sketches([sketch], table, k=10, approximate=True)
    assert found.share is not None
    assert 0.3 < found.share <= 1
    hits = found.found[0].hits
    assert len(hits) == 10
    assert [h.score for h in hits] == sorted((h.score for h in hits), reverse=True)
    exact = {h.source: h.score for h in search_sketches([sketch], table, k=3000).found[0].hits}
    assert all(h.score == exact[h.source] for h in hits)  # candidates are scored exactly
    more = replace(stored, sources=(*stored.sources[:-1], "new.jpg"))
    assert write_table(str(table), [more], filled.info).indexed
    assert open_table(str(table))._table.index_stats("vector_idx").num_unindexed_rows == 0


def test_damage_foreign_tables_and_wrong_names_are_told(tmp_path: Path, run: Path) -> None:
    stored, address = gallery(50), str(tmp_path / "t.lance")
    write_table(address, [replace(stored, checksum=stored.checksum + np.uint64(1))], INFO)
    with pytest.raises(DataError, match=r"damaged, the row of it's 00000\.jpg"):
        open_table(address).pick(stored.embedding[:1], 3)
    with pytest.raises(DataError, match="not the same model"):
        open_table(address).pick(np.ones((1, 3), np.float32), 3)
    with pytest.raises(DataError, match="no such table"):
        open_table(str(tmp_path / "none.lance"))
    assert not (tmp_path / "none.lance").exists()
    with pytest.raises(UsageError, match="letters, digits"):
        write_table(str(tmp_path / "my photos.lance"), [stored], INFO)
    lancedb.connect(tmp_path).create_table("other", [{"a": 1}])
    with pytest.raises(DataError, match="another program"):
        open_table(str(tmp_path / "other.lance"))
    with pytest.raises(DataError, match="another program"):
        write_table(str(tmp_path / "other.lance"), [stored], INFO)
    (tmp_path / "bad.lance").mkdir()
    (tmp_path / "bad.lance" / "x").write_text("no")
    with pytest.raises(DataError, match=r"bad\.lance"):
        open_table(str(tmp_path / "bad.lance"))


def test_a_table_of_other_weights_is_refused(tmp_path: Path, run: Path, photos: Path, sketch: Path) -> None:
    table = tmp_path / "p.lance"
    embed(run, photos=photos, out=table, workers=0)
    with pytest.raises(UsageError, match="a table is for `zssbir search`"):
        _ = open_gallery(table, torch.device("cpu")).rows
    found = open_table(str(table))
    write_table(str(table), [gallery(20, 512)], replace(found.info, checkpoint="0" * 64))
    with pytest.raises(DataError, match="made with the weights 000000000000"):
        search_sketches([sketch], table, run=run)


def test_parts_become_a_table(tmp_path: Path) -> None:
    from zssbir_cli.embedding.join import join_galleries

    whole = gallery(60)
    parts = []
    for i, rows in enumerate((slice(0, 25), slice(25, 60))):
        path = tmp_path / f"{i}.h5"
        kind = whole.modality[rows]
        write_embeddings(path, whole.embedding[rows], whole.label[rows], kind, whole.sources[rows], INFO)
        parts.append(path)
    assert join_galleries(parts, tmp_path / "t.lance") == 60
    assert join_galleries(parts, tmp_path / "t.h5") == 60
    np.testing.assert_array_equal(read_embeddings(tmp_path / "t.h5").embedding, whole.embedding)
    assert open_table(str(tmp_path / "t.lance")).rows == 60


def test_addresses() -> None:
    assert table_address(Path("a/photos.lance")) == "a/photos.lance"
    assert table_address(Path("s3://bucket/x/photos.lance")) == "s3://bucket/x/photos.lance"
    assert table_address("gs://bucket/photos.lance/") == "gs://bucket/photos.lance"
    assert table_address("photos.h5") is None
    assert table_address("lance") is None


def test_photos_that_were_replaced_since_are_told_and_not_shown(
    tmp_path: Path, run: Path, photos: Path, sketch: Path
) -> None:
    embed(run, photos=photos, out=tmp_path / "p.lance", workers=0)
    result = search_sketches([sketch], tmp_path / "p.lance", k=12)
    assert changed_photos(result) == []
    picture(photos / "it's 03.jpg", 60)
    (photos / "it's 04.jpg").unlink()
    assert changed_photos(result) == ["it's 03.jpg", "it's 04.jpg"]
    assert of_gallery(result.gallery, [3]) == [None]
    assert of_gallery(result.gallery, [5])[0] is not None
