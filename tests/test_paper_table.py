"""`zssbir runs export`: seeds become one row, conventions are named, three forms say the same."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from cases import cases
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from zssbir_cli.cli.app import app
from zssbir_cli.errors import DataError, UsageError
from zssbir_cli.workflows.paper_table import LATEX, formatted, paper_table
from zssbir_cli.workflows.runs import summary

RECIPE = "name: {name}\nmethod: {{name: triplet}}\noptim: {{lr: {lr}}}\ntrain: {{seed: {seed}}}\n"


def add_run(
    root: Path,
    run: str,
    value: float,
    *,
    name: str = "mine",
    seed: int = 0,
    lr: str = "1e-3",
    identity: str = "a",
) -> None:
    folder = root / run
    (folder / "eval").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(name=name, lr=lr, seed=seed))
    measures = [
        {"name": m, "convention": c, "value": v}
        for m, c, v in (
            ("mAP@all", "voc", value),
            ("mAP@all", "plain", value / 2),
            ("P@10", "", value / 4),
            ("recall@10", "", 1),
        )
    ]
    about = {
        "data": "set_1",
        "split": "5-unseen",
        "identity": identity,
        "protocol": "zs",
        "queries": 100,
        "gallery": 200,
    }
    (folder / "eval" / "zs.json").write_text(json.dumps({**about, "measures": measures}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, value in enumerate((0.40, 0.44, 0.42)):
        add_run(tmp_path, f"r{seed}", value, seed=seed)
    add_run(tmp_path, "r3", 0.30, lr="1e-4")
    return tmp_path


def test_runs_that_differ_only_in_the_seed_are_one_row(runs: Path) -> None:
    table = paper_table([], runs)
    assert [(r.name, len(r.runs)) for r in table.rows] == [("mine", 3), ("mine (optim.lr=0.0001)", 1)]
    assert table.measures == ("mAP@all", "P@10")
    assert [r.text("mAP@all") for r in table.rows] == ["42.00 ± 2.00", "30.00"]
    assert "voc convention" in table.notes[0]
    assert "sample standard deviation" in table.notes[1]
    assert paper_table([], runs, convention="plain").rows[0].text("mAP@all") == "21.00 ± 1.00"
    assert [r.name for r in paper_table(["r3", "r0"], runs).rows] == ["mine", "mine (optim.lr=0.001)"]


def test_other_data_is_another_row_and_is_said(runs: Path) -> None:
    add_run(runs, "r4", 0.5, seed=7, identity="b")
    table = paper_table([], runs)
    assert [len(r.runs) for r in table.rows] == [3, 1, 1]
    assert any("not all from the same data" in n for n in table.notes)


def test_runs_of_other_training_sets_are_no_seeds_of_one(runs: Path) -> None:
    """Measured on one set; what else a run learnt from decides its numbers as the recipe does."""
    for run, identity, start in (
        ("r0", "abcdefghij", []),
        ("r1", "0123456789", []),
        ("r2", "abcdefghij", ["cup"]),
    ):
        learnt = {"name": "pics", "identity": identity, "start": start}
        (runs / run / "run.json").write_text(json.dumps({"data": learnt}))
    table = paper_table(["r0", "r1", "r2"], runs)
    assert [r.runs for r in table.rows] == [("r0",), ("r1",), ("r2",)]
    assert [r.name for r in table.rows[:2]] == ["mine", "mine (trained on pics 01234567)"]


def test_copies_outdated_results_and_leaks_are_said(runs: Path) -> None:
    for run, weights, leaks in (("r0", "aa", []), ("r1", "bb", ["photo x: y"]), ("r2", "aa", [])):
        file = runs / run / "eval" / "zs.json"
        about = {"which": "best", "checkpoint": weights, "leaks": leaks}
        file.write_text(json.dumps(json.loads(file.read_text()) | about))
        (runs / run / "run.json").write_text("{}")
        best = runs / run / "checkpoints" / "best"
        best.mkdir(parents=True)
        (best / "meta.json").write_text(json.dumps({"sha256": {"model.safetensors": "aa"}}))
    table = paper_table([], runs)
    assert [r.runs for r in table.rows] == [("r0", "r1"), ("r3",)]
    assert table.notes[-1] == "r2 has the weights of r0: counted once"
    assert "training has replaced these weights since, evaluate again: 'r1'" in table.notes
    assert "leaks between training and test are on record: 'r1'" in table.notes
    one, two = (summary(runs / run) for run in ("r0", "r1"))
    assert (one.outdated, two.outdated) == ((), ("zs",))
    assert two.shown("zs") == "44.0 (outdated)"


def test_checkpoints_and_subsets_are_said(runs: Path) -> None:
    for run, about in (
        ("r0", {"which": "best"}),
        ("r1", {"which": "last"}),
        ("r2", {"which": "best", "subset": True}),
    ):
        file = runs / run / "eval" / "zs.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | about))
    table = paper_table(["r0", "r1", "r2"], runs)
    assert [r.runs for r in table.rows] == [("r0", "r2"), ("r1",)]
    assert "checkpoint best of 'r0', 'r2'; last of 'r1'" in table.notes
    assert "a part of the protocol's classes or images only: 'r2'" in table.notes
    assert "checkpoint best" in paper_table(["r0"], runs).notes


def test_yardsticks_stand_below_once(runs: Path) -> None:
    for run in ("r0", "r1", "r3"):
        file = runs / run / "eval" / "zs.json"
        values = [{"name": m, "convention": c, "value": 0.1} for m, c in (("mAP@all", "voc"), ("P@10", ""))]
        rows = [
            {"name": n, "about": "net", "checkpoint": c, "values": values}
            for n, c in (("chance", ""), ("frozen start", "ab"))
        ]
        file.write_text(json.dumps(json.loads(file.read_text()) | {"baselines": rows}))
    table = paper_table([], runs)
    assert [(r.name, len(r.runs)) for r in table.rows[2:]] == [("chance", 0), ("frozen start: net", 0)]
    assert "| chance | set_1 (5-unseen) | - | 10.00 | 10.00 |" in formatted(table, "markdown")
    file.write_text(file.read_text().replace("net", "net at 64 px"))  # the same weights, other inputs
    starts = [r.name for r in paper_table([], runs).rows if "frozen" in r.name]
    assert starts == ["frozen start: net", "frozen start: net at 64 px"]


def test_all_forms_hold_the_same_numbers(runs: Path) -> None:
    table = paper_table([], runs)
    rows = list(csv.DictReader(io.StringIO(formatted(table, "csv"))))
    assert [float(r["mAP@all %"]) for r in rows] == pytest.approx([42, 30])
    assert [r["mAP@all sd"] for r in rows] == ["2.0000", ""]
    assert rows[0]["runs"] == "r0 r1 r2"
    assert "| mine | set_1 (5-unseen) | 3 | 42.00 ± 2.00 | 10.50 ± 0.50 |" in formatted(table, "markdown")
    latex = formatted(table, "latex")
    assert r"mine & set\_1 (5-unseen) & 3 & 42.00 $\pm$ 2.00 & 10.50 $\pm$ 0.50 \\" in latex
    assert latex.count("\n% ") + latex.startswith("% ") == len(table.notes)


@cases(100)
@given(st.text(alphabet=st.characters(codec="ascii", exclude_categories=["C"])))
def test_no_name_breaks_latex(name: str) -> None:
    bare = re.sub(r"\\text\w+\{\}|\\[&%$#_{}]", "", name.translate(LATEX))
    assert not set(bare) & set("&%$#_{}~^\\")


def test_faults_are_one_line(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--convention coco"):
        paper_table([], runs, convention="coco")
    with pytest.raises(UsageError, match=r"--measure mAP@5: all these runs have mAP@all, P@10"):
        paper_table([], runs, measures=["mAP@5"])
    with pytest.raises(DataError, match="no run has the result gzs"):
        paper_table([], runs, result="gzs")
    with pytest.raises(UsageError, match="--format html"):
        formatted(paper_table([], runs), "html")
    (runs / "r3" / "eval" / "zs.json").write_text("{}")
    with pytest.raises(DataError, match="not a result"):
        paper_table([], runs)
    (runs / "r3" / "eval" / "zs.json").unlink()
    assert "without this result: 'r3'" in paper_table([], runs).notes[-1]


def test_the_command_prints_or_writes(runs: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    line = ["runs", "--runs", str(runs), "export", "--format", "latex"]
    printed = runner.invoke(app, line, catch_exceptions=False)
    assert printed.stdout.rstrip().endswith(r"\end{tabular}")
    runner.invoke(app, [*line, "--out", str(tmp_path / "t.tex")], catch_exceptions=False)
    assert (tmp_path / "t.tex").read_text("utf-8") == printed.stdout
