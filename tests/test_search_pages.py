"""Which pictures the results of a search show: those that were embedded, of the gallery alone, or why none."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from prepare_helpers import make_folder
from retrieval_helpers import make_run
from search_helpers import draw, six_photos
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.data.embeddings import read_embeddings, write_embeddings
from zssbir_cli.embedding.join import join_galleries
from zssbir_cli.workflows import search as workflow
from zssbir_cli.workflows.embed import embed
from zssbir_cli.workflows.prepare import prepare
from zssbir_cli.workflows.search_pages import changed_photos


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path) -> Path:
    return make_run(tmp_path / "runs" / "one", tiny_recipe)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return six_photos(tmp_path / "photos")


def test_a_photo_that_was_replaced_since_is_not_shown_for_the_one_that_was_embedded(
    tmp_path: Path, run: Path, folder: Path
) -> None:
    made = embed(run, photos=folder, out=tmp_path / "g.h5")
    assert made
    os.utime(folder / "3.jpg", (1, 1))  # touched, its content is as it was
    result = workflow.search_sketches([draw(tmp_path / "s.png")], tmp_path / "g.h5", run=run, k=6)
    assert changed_photos(result) == []
    shutil.copy2(folder / "0.jpg", folder / "1.jpg")
    (folder / "2.jpg").unlink()
    assert changed_photos(result) == ["1.jpg", "2.jpg"]
    workflow.write_result(result, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("data:image/jpeg") == 1 + 4
    shown = CliRunner().invoke(
        app,
        ["search", str(tmp_path / "s.png"), "--photos", str(tmp_path / "g.h5"), "--run", str(run), "-k", "6"],
    )
    assert "2 photos gone or changed since" in shown.stderr
    assert "'1.jpg', '2.jpg'; run `zssbir embed --photos` again" in shown.stderr


def test_pages_say_why_they_show_no_pictures(tmp_path: Path, run: Path, folder: Path) -> None:
    """Another set where the prepared one was; a gallery joined of several folders, whose photos are not gone."""
    query = draw(tmp_path / "s.png")

    def said(gallery: Path) -> str:
        line = [
            "search",
            str(query),
            "--photos",
            str(gallery),
            "--run",
            str(run),
            "--out",
            str(tmp_path / "r.html"),
        ]
        return CliRunner().invoke(app, line).stderr

    for name, unseen in (("data", "all"), ("other", "1")):
        prepare(
            make_folder(tmp_path / f"pics-{name}"),
            out=tmp_path / name,
            unseen=unseen,
            val_classes=0 if name == "other" else None,
        )
    (stored,) = embed(run, data=tmp_path / "data").files
    assert "shows no pictures" not in said(stored)
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "other").rename(tmp_path / "data")
    assert f"shows no pictures: {tmp_path / 'data'} does not hold the data set that was embedded" in said(
        stored
    )
    shutil.copytree(folder, tmp_path / "second")
    for photo in (tmp_path / "second").iterdir():
        photo.rename(photo.with_name(f"other-{photo.name}"))
    parts = [
        embed(run, photos=place, out=tmp_path / f"{place.name}.h5").files[0]
        for place in (folder, tmp_path / "second")
    ]
    join_galleries(parts, tmp_path / "joined.h5")
    told = said(tmp_path / "joined.h5")
    assert "shows no pictures: the gallery does not say where its photos lie" in told
    assert "gone or changed" not in told


@pytest.mark.parametrize("name", ["../secret.jpg", "ABSOLUTE"])
def test_names_of_a_gallery_do_not_lead_out_of_its_folder(
    tmp_path: Path, run: Path, folder: Path, name: str
) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes((folder / "0.jpg").read_bytes())
    own = read_embeddings(embed(run, photos=folder, out=tmp_path / "g.h5").files[0])
    sources = [name.replace("ABSOLUTE", str(secret)), *own.sources[1:]]
    write_embeddings(
        tmp_path / "g.h5",
        np.array(own.embedding),
        own.label,
        own.modality,
        sources,
        own.info,
        stamps=own.stamps,
    )
    result = workflow.search_sketches([draw(tmp_path / "s.png")], tmp_path / "g.h5", run=run, k=6)
    workflow.write_result(result, tmp_path / "out" / "r.html")
    page = (tmp_path / "out" / "r.html").read_text()
    assert len(re.findall(r'href="[^"]*photos/\d\.jpg"', page)) == 5
    assert not re.search(r'href="[^"]*secret', page)
    assert page.count("data:image/jpeg") == 6  # the drawing and five photos
