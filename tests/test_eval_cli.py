"""`zssbir eval`, `embed` and `search` from end to end: files, JSON, staleness, other data sets, warnings."""

import json
from pathlib import Path

import numpy as np
import pytest
from demo_helpers import demo_set
from retrieval_helpers import make_run
from typer.testing import CliRunner, Result

from zssbir_cli.cli.app import app
from zssbir_cli.data.embeddings import read_embeddings
from zssbir_cli.data.manifest import Leak, read_manifest, write_manifest
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.types import Role


@pytest.fixture
def run(tmp_path: Path, tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = make_run(tmp_path / "runs" / "one", tiny_recipe)
    (tmp_path / "runs" / "latest").symlink_to("one")
    return folder


def call(*arguments: str) -> Result:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if isinstance(result.exception, Exception):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_eval_alone_takes_the_latest_run_and_writes_all_its_files(tmp_path: Path, run: Path) -> None:
    result = call("eval", "--split", "zs")
    assert "39 queries, gallery of 52" in result.stdout
    assert "mAP@all" in result.stdout
    assert sorted(str(p.relative_to(run / "eval")) for p in (run / "eval").rglob("*") if p.is_file()) == [
        "zs.json", "zs.queries.npz", "zs/classes.svg", "zs/confusion.svg", "zs/map.svg", "zs/precision_recall.svg",
        "zs/report.html", "zs/report.md",
    ]  # fmt: skip
    saved = json.loads((run / "eval" / "zs.json").read_text())
    assert (saved["queries"], saved["gallery"], saved["classes"]) == (39, 52, 13)
    assert saved["protocol"] == "zs"
    page = (run / "eval" / "zs" / "report.html").read_text()
    assert page.count('class="strip"') == 10
    assert sorted(p.name.partition("-")[0] for p in (run / "embeddings").iterdir()) == ["best", "frozen"]


def test_json_prints_only_json_and_embeddings_are_reused_until_stale(run: Path, tiny_recipe: Path) -> None:
    first = json.loads(call("eval", "--json", "--no-report").stdout)
    (file,) = (run / "embeddings").glob("best-*")
    stamp = file.stat().st_mtime_ns
    assert json.loads(call("eval", "--json", "--no-report").stdout) == first
    assert file.stat().st_mtime_ns == stamp
    other = make_run(run.parent / "two", tiny_recipe, seed=5)
    (other / "checkpoints" / "best").rename(run / "checkpoints" / "new")
    (run / "checkpoints" / "best").rename(run / "checkpoints" / "old")
    (run / "checkpoints" / "new").rename(run / "checkpoints" / "best")
    again = json.loads(call("eval", "--json", "--no-report").stdout)
    assert file.stat().st_mtime_ns != stamp
    assert again["checkpoint"] != first["checkpoint"]
    assert read_embeddings(file).info.checkpoint == again["checkpoint"]


def test_other_splits_subsets_and_generalised_protocols(run: Path) -> None:
    val = json.loads(call("eval", "--split", "val", "--json", "--no-report").stdout)
    assert (val["queries"], val["gallery"], val["classes"]) == (15, 20, 5)
    gzs = json.loads(call("eval", "--split", "gzs-ocean", "--json", "--no-report", "-k", "10").stdout)
    assert (gzs["queries"], gzs["gallery"], gzs["classes"]) == (39 + 3 * 3, 52 + 3 * 4, 16)
    assert set(gzs["groups"]) == {"seen", "unseen", "harmonic"}
    again = json.loads(
        call("eval", "--split", "gzs-ocean", "--json", "--no-report", "-k", "10", "--seed", "3").stdout
    )
    assert [r["class"] for r in again["per_class"]] != [r["class"] for r in gzs["per_class"]]
    names = [r["class"] for r in json.loads(call("eval", "--json", "--no-report").stdout)["per_class"]][:3]
    few = json.loads(
        call("eval", "--classes", ",".join(names), "--per-class", "2", "--json", "--no-report").stdout
    )
    assert (few["queries"], few["gallery"], few["subset"]) == (6, 6, True)
    assert (run / "eval" / "zs-subset.json").exists()
    assert (run / "eval" / "zs.json").exists()
    with pytest.raises(UsageError, match="--classes spoonerism: no such class"):
        call("eval", "--classes", "spoonerism", "--no-report")


def test_other_seen_classes_of_the_same_size_are_embedded_anew(run: Path, tiny_demo: Path) -> None:
    manifest = read_manifest(tiny_demo)
    unseen = manifest.classes_of(Role.UNSEEN)[0].name
    sources = set()
    for seen in [c.name for c in manifest.classes_of(Role.SEEN)][:2]:
        call("eval", "--split", "gzs-distractors", "--classes", f"{unseen},{seen}", "--json", "--no-report")
    for file in (run / "embeddings").glob("*train*"):
        sources |= {Path(s).parent.name for s in read_embeddings(file).sources}
    assert len(sources) == 2


def test_exact_embeddings_replace_rounded_ones_when_asked_for(run: Path) -> None:
    call("eval", "--precision", "bf16", "--json", "--no-report")
    (file,) = (run / "embeddings").glob("best-*")
    before = read_embeddings(file).info.precision
    call("eval", "--precision", "fp32", "--json", "--no-report")
    assert (before, read_embeddings(file).info.precision) == ("bf16", "fp32")


def test_another_data_set_excludes_and_lists_the_trained_classes(
    tmp_path: Path, run: Path, tiny_demo: Path
) -> None:
    own = read_manifest(tiny_demo)
    seen = own.classes_of(Role.SEEN)[0].name
    val = own.classes_of(Role.VAL)[0].name
    unseen = [c.name for c in own.classes_of(Role.UNSEEN)][:2]
    other = demo_set(tmp_path / "other", seed=9, photos=3, sketches=2, unseen=[seen, val, *unseen], val=2)
    found = json.loads(call("eval", "--data", str(other), "--json", "--no-report").stdout)
    assert sorted(r["class"] for r in found["per_class"]) == sorted(unseen)
    (note,) = (n for n in found["notes"] if "are excluded" in n)
    assert seen in note
    assert val in note
    assert (run / "eval" / f"zs-{read_manifest(other).name}.json").exists()


def test_leaks_of_the_manifest_are_printed_with_every_result(
    tmp_path: Path, run: Path, tiny_demo: Path
) -> None:
    import shutil

    copy = shutil.copytree(tiny_demo, tmp_path / "leaky")
    leak = Leak(kind="image", what="photo/a.jpg", where="train, and test as b.jpg")
    write_manifest(copy, read_manifest(copy).model_copy(update={"leaks": (leak,)}))
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace(str(tiny_demo), str(copy)))
    result = call("eval", "--split", "zs")
    assert "WARNING: 1 leaks" in result.stderr
    assert "photo/a.jpg" in (run / "eval" / "zs" / "report.html").read_text()


def test_compare_two_runs(run: Path, tiny_recipe: Path) -> None:
    other = make_run(run.parent / "two", tiny_recipe, seed=5)
    for folder in (run, other):
        call("eval", "--run", str(folder), "--no-report")
    found = json.loads(call("eval", "--compare", str(run), str(other), "--json").stdout)
    row = found["rows"][0]
    assert row["measure"] == "mAP@all voc"
    assert row["b"] - row["a"] == pytest.approx(row["mean"])
    assert "paired on 39 queries" in call("eval", "--compare", str(run), str(other)).stdout
    with pytest.raises(DataError, match="no such result"):
        call("eval", "--compare", str(run), str(other), "--split", "val")
    with pytest.raises(UsageError, match=r"zz\.json: no such file; did you mean 'zs\.json'"):
        call("eval", "--compare", str(run), str(other / "eval" / "zz.json"))


def test_embeddings_of_another_model_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows, labels = np.eye(4).repeat(3, 0), np.arange(4).repeat(3)
    np.savez("e.npz", query=rows, gallery=rows, query_labels=labels, gallery_labels=labels)
    found = json.loads(call("eval", "--embeddings", "e.npz", "--json").stdout)
    assert found["measures"][0]["value"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["e.npz"]
    call("eval", "--embeddings", "e.npz", "--out", "r")
    assert (tmp_path / "r" / "embeddings" / "report.html").exists()


def test_search_command_prints_writes_and_reuses(tmp_path: Path, run: Path) -> None:
    from PIL import Image, ImageDraw

    sketch = Image.new("L", (40, 40), 255)
    ImageDraw.Draw(sketch).rectangle((8, 8, 30, 30), outline=0, width=2)
    sketch.save(tmp_path / "[red] s.png")
    call("embed")
    (file,) = (p for p in (run / "embeddings").iterdir() if "test" in p.name)
    result = call("search", "[red] s.png", "--photos", str(file), "-k", "3", "--out", "r.html")
    assert "[red] s.png in 52 photos" in result.stdout
    assert (tmp_path / "r.html").exists()
    found = json.loads(call("search", "[red] s.png", "--photos", str(file), "-k", "3", "--json").stdout)
    assert len(found["sketches"][0]["results"]) == 3
